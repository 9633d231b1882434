//! How a manager becomes part of the quorum, and stays it at another address.

use std::time::Duration;

use anyhow::Result;
use swarm_pki::{ConnectError, Connector, ExpectedPeer};
use swarm_proto::membership::BecomeVoterRequest;
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_raft::{Member, Raft, Role};
use swarm_worker::Managers;
use tonic::{Code, Status};

use crate::config::NodeConfig;
use crate::node::Node;

/// How long the swarm may take to make a manager a voter.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before it is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Why a manager was not made a voter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAVoter {
    #[error(transparent)]
    NotReached(#[from] ConnectError),
    #[error("the swarm did not make this node a manager in time")]
    TooLate(#[from] tokio::time::error::Elapsed),
    #[error("cannot become a manager: {}", .0.message())]
    Refused(#[from] Status),
}

/// Asks the manager at `remote` to make this node's a voter, at the address that it has now.
pub(crate) async fn ask(
    connector: &Connector,
    config: &NodeConfig,
    remote: &str,
    raft_id: u64,
) -> Result<(), NotAVoter> {
    let channel = connector.connect(remote, ExpectedPeer::Manager).await?;
    let request = BecomeVoterRequest { raft_id, addr: config.advertise_addr.clone() };
    let mut client = MembershipClient::new(channel);
    tokio::time::timeout(PATIENCE, client.become_voter(request)).await??;
    Ok(())
}

/// A manager that is not part of the quorum yet, because it was just promoted, or its joining was cut short after
/// it was saved, or that is known there by another address: asks until it is, or ends.
pub(crate) fn complete(node: &Node) -> Option<impl Future<Output = ()> + Send + 'static> {
    let candidate = Candidate {
        raft_id: node.config.raft_id?,
        raft: node.manager.as_ref()?.raft().clone(),
        connector: node.connector.clone(),
        config: node.config.clone(),
        managers: node.worker.managers().clone(),
    };
    Some(candidate.run())
}

struct Candidate {
    raft_id: u64,
    raft: Raft,
    connector: Connector,
    config: NodeConfig,
    managers: Managers,
}

impl Candidate {
    async fn run(self) {
        let status = self.raft.status();
        // Of a copy, the log is of before it was copied: the others must say so, too.
        let mut confirmed = false;
        let mut said = String::new();
        loop {
            let now = status.borrow().clone();
            let ended = matches!(now.role, Role::Stopped | Role::Failed(_));
            confirmed |= now.role == Role::Leader;
            if ended || (confirmed && self.is_among(&now.voters)) {
                return;
            }
            match self.ask_as(&now.role).await {
                Ok(()) => confirmed = now.role != Role::Removed,
                Err(e) => {
                    let e = format!("{e:#}");
                    // Once, not at every try.
                    if e != said {
                        tracing::warn!("{e}");
                    }
                    said = e;
                }
            }
            // Either it takes a moment to show, or a manager is asked again.
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn is_among(&self, voters: &[Member]) -> bool {
        let own =
            |voter: &Member| voter.id == self.raft_id && voter.addr == self.config.advertise_addr;
        voters.iter().any(own)
    }

    async fn ask_as(&self, role: &Role) -> Result<()> {
        match role {
            Role::Leader => {
                let addr = self.config.advertise_addr.clone();
                Ok(self.raft.update_addr(self.raft_id, addr).await?)
            }
            // It may only seem so, while its log is caught up.
            Role::Removed => Ok(()),
            _ => self.ask_others().await,
        }
    }

    /// If the manager that they know runs, then this one is a copy of it, and takes no part any more.
    async fn ask_others(&self) -> Result<()> {
        let mut last = Ok(());
        let managers = self.managers.all();
        for manager in managers.iter().filter(|m| m.addr != self.config.advertise_addr) {
            match ask(&self.connector, &self.config, &manager.addr, self.raft_id).await {
                Ok(()) => return Ok(()),
                Err(NotAVoter::Refused(why)) if why.code() == Code::AlreadyExists => {
                    tracing::error!("this manager stops: {}", why.message());
                    return Ok(self.raft.shutdown().await?);
                }
                Err(e) => last = Err(e.into()),
            }
        }
        last
    }
}
