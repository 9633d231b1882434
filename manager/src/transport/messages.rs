//! Messages of the control API that are no documents, and the words in them, from and to domain types.

use swarm_model::{Availability, NodeRole};
use swarm_proto::control as wire;
use tonic::Status;

use crate::api::types::{
    Changed, JoinAnswer, NodeUpdate, Progress, RootStatus, SlotProgress, UnlockKeyInForce,
};

impl From<Changed> for wire::Changed {
    fn from(changed: Changed) -> wire::Changed {
        let Changed { id, revision, warnings } = changed;
        wire::Changed { id, revision, warnings }
    }
}

impl From<wire::Changed> for Changed {
    fn from(changed: wire::Changed) -> Changed {
        let wire::Changed { id, revision, warnings } = changed;
        Changed { id, revision, warnings }
    }
}

impl From<JoinAnswer> for wire::JoinTokenResponse {
    fn from(answer: JoinAnswer) -> wire::JoinTokenResponse {
        let JoinAnswer { token, addr } = answer;
        wire::JoinTokenResponse { token, addr }
    }
}

impl From<UnlockKeyInForce> for wire::UnlockKeyResponse {
    fn from(answer: UnlockKeyInForce) -> wire::UnlockKeyResponse {
        let UnlockKeyInForce { key, warnings } = answer;
        wire::UnlockKeyResponse { unlock_key: key.map(|key| key.0).unwrap_or_default(), warnings }
    }
}

impl From<RootStatus> for wire::RootStatus {
    fn from(status: RootStatus) -> wire::RootStatus {
        let RootStatus {
            root_pem,
            digest,
            rotating,
            nodes,
            certificates,
            trusting,
            waiting,
            converged,
        } = status;
        wire::RootStatus {
            root_pem,
            digest,
            rotating,
            nodes,
            certificates,
            trusting,
            waiting,
            converged,
        }
    }
}

impl From<Progress> for wire::Progress {
    fn from(progress: Progress) -> wire::Progress {
        wire::Progress {
            desired: progress.desired,
            running: progress.running,
            stopping: progress.stopping,
            nodes: progress.nodes,
            nodes_in_force: progress.nodes_in_force,
            lagging: progress.lagging,
            slots: progress.slots.into_iter().map(Into::into).collect(),
            converged: progress.converged,
            failure: progress.failure,
        }
    }
}

impl From<wire::Progress> for Progress {
    fn from(progress: wire::Progress) -> Progress {
        Progress {
            desired: progress.desired,
            running: progress.running,
            stopping: progress.stopping,
            nodes: progress.nodes,
            nodes_in_force: progress.nodes_in_force,
            lagging: progress.lagging,
            slots: progress.slots.into_iter().map(Into::into).collect(),
            converged: progress.converged,
            failure: progress.failure,
        }
    }
}

impl From<SlotProgress> for wire::SlotProgress {
    fn from(progress: SlotProgress) -> wire::SlotProgress {
        let SlotProgress { slot, state, err, message } = progress;
        wire::SlotProgress { slot, state, err, message }
    }
}

impl From<wire::SlotProgress> for SlotProgress {
    fn from(progress: wire::SlotProgress) -> SlotProgress {
        let wire::SlotProgress { slot, state, err, message } = progress;
        SlotProgress { slot, state, err, message }
    }
}

/// Which node is to be changed, and what of it.
pub(super) fn node_update(
    request: wire::UpdateNodeRequest,
) -> Result<(String, NodeUpdate), Status> {
    let wire::UpdateNodeRequest { name, availability, role, label_add, label_rm } = request;
    let update = NodeUpdate {
        availability: given(&availability).map(self::availability).transpose()?,
        role: given(&role).map(self::role).transpose()?,
        label_add: label_add.into_iter().collect(),
        label_rm,
    };
    Ok((name, update))
}

/// The word, unless it is empty: then nothing is to change.
fn given(word: &str) -> Option<&str> {
    Some(word).filter(|word| !word.is_empty())
}

fn availability(word: &str) -> Result<Availability, Status> {
    match word {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(Status::invalid_argument(format!(
            "unknown availability {other:?}: use active, pause or drain"
        ))),
    }
}

pub(super) fn role(word: &str) -> Result<NodeRole, Status> {
    match word {
        "worker" => Ok(NodeRole::Worker),
        "manager" => Ok(NodeRole::Manager),
        other => {
            Err(Status::invalid_argument(format!("unknown role {other:?}: use worker or manager")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(availability: &str, role: &str) -> Result<NodeUpdate, String> {
        let (availability, role) = (availability.to_owned(), role.to_owned());
        let request = wire::UpdateNodeRequest { availability, role, ..Default::default() };
        let update = node_update(request).map(|(_, update)| update);
        update.map_err(|status| status.message().to_owned())
    }

    #[test]
    fn of_a_node_changes_what_is_given_and_known() {
        let update_of = |availability, role| {
            update(availability, role).map(|update| (update.availability, update.role))
        };
        assert_eq!(update_of("", ""), Ok((None, None)));
        assert_eq!(update_of("drain", ""), Ok((Some(Availability::Drain), None)));
        assert_eq!(update_of("", "manager"), Ok((None, Some(NodeRole::Manager))));
        let unknown = "unknown availability \"on\": use active, pause or drain";
        assert_eq!(update_of("on", ""), Err(unknown.to_owned()));
        let unknown = "unknown role \"boss\": use worker or manager";
        assert_eq!(update_of("", "boss"), Err(unknown.to_owned()));
    }
}
