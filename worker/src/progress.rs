//! How far a node is with what its managers said: in the kernel, told to the tasks, acknowledged. A state machine: the
//! agent tells it what happens, and does what it answers, in that order.

// Pure: clippy.toml lists what is banned, and why.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_model::NetworkId;

/// The pause before networks that could not be programmed are tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a node that was removed asks again: it is not going to be taken back.
const REMOVED_PAUSE: Duration = Duration::from_secs(30);

/// Some networks.
pub(crate) type Networks = BTreeSet<NetworkId>;

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A manager answered: a session begins.
    Opened,
    /// The session is over.
    Over,
    /// The manager has told a change of the view, which concerns these networks. It was remembered as the
    /// change of this number.
    Delta { revision: u64, change: u64, networks: Networks },
    /// The swarm has removed this node. The view is empty from now on; these networks were in it.
    Removed { networks: Networks },
    /// `Program` has come to its end. An error says why not all was programmed.
    Programmed(Result<(), String>),
    /// `Audit` has come to its end.
    Audited,
    /// `Pause` has come to its end.
    PauseOver,
    /// So many changes are in the file, and the tasks have said what became of them.
    Kept(u64),
    /// It is time to compare the kernel with the view.
    AuditDue,
    /// The kernel lost the keys of encrypted networks.
    KeysLost,
    /// This node has another certificate.
    CertificateChanged,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin to program these networks as the view has them now.
    Program(Networks),
    /// Begin to compare everything with the kernel.
    Audit,
    /// Begin a pause.
    Pause(Duration),
    /// Tell the tasks what the view says of them; start new ones only if they may start.
    UpdateTasks { may_start: bool },
    /// Remove what is left of tasks that no manager knows.
    RemoveStrays,
    /// Say why this node lags behind; in a session, to the manager.
    Admit(String),
    /// Say that what was admitted is over.
    Withdraw,
    /// Tell the manager that everything up to this revision is in force here.
    Acknowledge(u64),
    /// Tell the manager which certificate this node has.
    Certify,
    /// Give the session up, if there is one, and call managers after this pause.
    Call(Duration),
}

/// What is under way. One thing at a time, to its end: `nft` may be stuck for as long as half a minute.
#[derive(Debug, Default)]
enum Work {
    /// Nothing: all that was heard is in the kernel, and the tasks were told.
    #[default]
    Idle,
    /// `networks` are being programmed. `heard` are those of what was heard meanwhile.
    Programming { networks: Networks, heard: Option<Networks> },
    /// The kernel is being compared with the view.
    Auditing { heard: Option<Networks> },
    /// Programming failed. These networks are to be programmed after a pause.
    Pausing { networks: Networks },
}

/// A revision that the manager of this session waits for, and the change that it was remembered as.
#[derive(Debug, Clone, Copy)]
struct Unacknowledged {
    revision: u64,
    change: u64,
}

/// How far a node is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    work: Work,
    unacknowledged: Option<Unacknowledged>,
    /// What this session's manager was told of a failure that is not over.
    admitted: Option<String>,
    audit_due: bool,
    /// The first view of a manager was taken up: what it does not name is nobody's.
    strays_removed: bool,
}

impl Progress {
    /// Takes note of what happened; returns what is to be done about it. The end of what is not under way is none.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Opened => {
                self.admitted = None; // this manager was told of no trouble yet
                vec![Action::Certify] // it may have changed since the node described itself
            }
            Event::Over | Event::KeysLost => self.call(Duration::ZERO),
            Event::Delta { revision, change, networks } => {
                self.unacknowledged = Some(Unacknowledged { revision, change });
                self.hear(networks)
            }
            Event::Removed { networks } => {
                let mut actions = self.call(REMOVED_PAUSE);
                actions.extend(self.hear(networks));
                actions
            }
            Event::Programmed(Ok(())) => self.succeed(),
            Event::Programmed(Err(reason)) => self.fail(reason),
            Event::Audited => self.end_audit(),
            Event::PauseOver => self.try_again(),
            Event::Kept(changes) => self.acknowledge(changes),
            Event::AuditDue => {
                self.audit_due = true;
                match self.work {
                    Work::Idle => self.rest(),
                    _ => Vec::new(), // what is under way comes to its end first
                }
            }
            Event::CertificateChanged => vec![Action::Certify],
        }
    }

    /// How many changes must be in the file, and the tasks must have said what became of them, before the next
    /// acknowledgement: a `swarmd` that is restarted must not take up a view older than what was acknowledged. None
    /// if there is nothing to acknowledge, or not everything was told to the tasks.
    pub(crate) fn awaited(&self) -> Option<u64> {
        match self.work {
            Work::Idle | Work::Auditing { heard: None } => {
                self.unacknowledged.map(|unacknowledged| unacknowledged.change)
            }
            Work::Programming { .. } | Work::Auditing { heard: Some(_) } | Work::Pausing { .. } => {
                None
            }
        }
    }

    fn call(&mut self, pause: Duration) -> Vec<Action> {
        self.unacknowledged = None; // the next session begins with everything
        vec![Action::Call(pause)]
    }

    fn hear(&mut self, more: Networks) -> Vec<Action> {
        match &mut self.work {
            Work::Idle => return self.program(more),
            Work::Programming { heard, .. } | Work::Auditing { heard } => {
                heard.get_or_insert_default().extend(more);
            }
            Work::Pausing { networks } => networks.extend(more),
        }
        Vec::new()
    }

    /// Also without networks: then what was heard is for the tasks, or of the keys that are programmed with any.
    fn program(&mut self, networks: Networks) -> Vec<Action> {
        self.work = Work::Programming { networks: networks.clone(), heard: None };
        vec![Action::Program(networks)]
    }

    fn rest(&mut self) -> Vec<Action> {
        if std::mem::take(&mut self.audit_due) {
            self.work = Work::Auditing { heard: None };
            return vec![Action::Audit];
        }
        self.work = Work::Idle;
        Vec::new()
    }

    fn succeed(&mut self) -> Vec<Action> {
        let Work::Programming { heard, .. } = &mut self.work else { return Vec::new() };
        if let Some(heard) = heard.take() {
            return self.program(heard); // more was heard meanwhile: first that
        }
        let mut actions = vec![Action::UpdateTasks { may_start: true }];
        if self.admitted.take().is_some() {
            actions.push(Action::Withdraw);
        }
        if !self.strays_removed {
            self.strays_removed = true;
            actions.push(Action::RemoveStrays);
        }
        actions.extend(self.rest());
        actions
    }

    /// Only what succeeded may be acknowledged. But what is to stop must not wait for a network that cannot be
    /// programmed.
    fn fail(&mut self, reason: String) -> Vec<Action> {
        let Work::Programming { networks, heard } = &mut self.work else { return Vec::new() };
        let mut networks = std::mem::take(networks);
        networks.extend(heard.take().into_iter().flatten());
        self.work = Work::Pausing { networks };
        let mut actions = vec![Action::UpdateTasks { may_start: false }];
        if self.admitted.as_ref() != Some(&reason) {
            self.admitted = Some(reason.clone());
            actions.push(Action::Admit(reason));
        }
        actions.push(Action::Pause(RETRY_PAUSE));
        actions
    }

    fn end_audit(&mut self) -> Vec<Action> {
        match &mut self.work {
            Work::Auditing { heard: Some(heard) } => {
                let heard = std::mem::take(heard);
                self.program(heard)
            }
            Work::Auditing { heard: None } => self.rest(),
            _ => Vec::new(),
        }
    }

    fn try_again(&mut self) -> Vec<Action> {
        let Work::Pausing { networks } = &mut self.work else { return Vec::new() };
        let networks = std::mem::take(networks);
        self.program(networks)
    }

    fn acknowledge(&mut self, changes: u64) -> Vec<Action> {
        if self.awaited().is_none_or(|awaited| changes < awaited) {
            return Vec::new();
        }
        let acknowledged = self.unacknowledged.take();
        acknowledged.map(|it| Action::Acknowledge(it.revision)).into_iter().collect()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
