//! Whatever happens in whatever order: the progress in a small world of a manager, a kernel, tasks and a file, which
//! checks each action when it is carried out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Something that may happen, if the world is such that it can.
#[derive(Debug, Clone)]
enum Step {
    Open,
    Over,
    /// The manager tells a change that concerns these networks.
    Tell(Vec<u8>),
    Removed,
    /// The job ends; these networks cannot be programmed.
    JobEnds(Vec<u8>),
    PauseOver,
    /// The file is written.
    Write,
    /// The tasks have said what became of them.
    Settle,
    AuditDue,
    KeysLost,
    CertificateChanged,
}

fn step() -> impl Strategy<Value = Step> {
    let some = || proptest::collection::vec(0u8..4, 0..3);
    prop_oneof![
        2 => Just(Step::Open),
        1 => Just(Step::Over),
        6 => some().prop_map(Step::Tell),
        1 => Just(Step::Removed),
        4 => Just(Step::JobEnds(Vec::new())),
        3 => some().prop_map(Step::JobEnds),
        3 => Just(Step::PauseOver),
        4 => Just(Step::Write),
        3 => Just(Step::Settle),
        1 => Just(Step::AuditDue),
        1 => Just(Step::KeysLost),
        1 => Just(Step::CertificateChanged),
    ]
}

/// By network: the change that concerned it last.
type Versions = BTreeMap<NetworkId, u64>;

/// A manager's end of a session.
#[derive(Debug, Default)]
struct Session {
    /// By revision: the change that it was remembered as, and what the view was then.
    told: BTreeMap<u64, (u64, Versions)>,
    acknowledged: u64,
    /// Why the node lags behind, as the manager knows.
    trouble: Option<String>,
}

#[derive(Debug)]
enum Job {
    /// Programs these networks, and what is of no network, as the view was at this change.
    Program(Networks, Versions, u64),
    Audit,
}

#[derive(Debug, Default)]
struct World {
    progress: Progress,
    session: Option<Session>,
    revision: u64,
    changes: u64,
    view: Versions,
    kernel: Versions,
    /// Up to which change what is of no network is in the kernel.
    keys: u64,
    job: Option<Job>,
    pause: bool,
    /// The last job that programmed has failed.
    failed: bool,
    /// Up to which change the tasks were told: what is to stop, and everything.
    stopped: u64,
    told: u64,
    /// Some tasks are yet to say what became of them.
    unsettled: bool,
    /// Up to which change the file was written.
    written: u64,
    audit_due: bool,
    strays_removed: bool,
}

fn id(network: u8) -> NetworkId {
    NetworkId::from(format!("n{network}"))
}

impl World {
    fn happens(&mut self, step: Step) {
        match step {
            Step::Open if self.session.is_none() => {
                self.session = Some(Session::default());
                let actions = self.feed(Event::Opened);
                assert!(actions.contains(&Action::Certify), "its certificate may be another");
            }
            Step::Over if self.session.take().is_some() => {
                let actions = self.feed(Event::Over);
                assert!(actions.contains(&Action::Call(Duration::ZERO)));
            }
            Step::Tell(networks) if self.session.is_some() => self.tell(&networks),
            Step::Removed if self.session.is_none() => {
                let networks = self.change(self.view.keys().cloned().collect());
                let actions = self.feed(Event::Removed { networks });
                assert!(actions.contains(&Action::Call(REMOVED_PAUSE)));
            }
            Step::JobEnds(broken) => self.end_job(&broken.into_iter().map(id).collect()),
            Step::PauseOver if std::mem::take(&mut self.pause) => {
                self.feed(Event::PauseOver);
            }
            Step::Write => {
                self.written = self.changes;
                self.look_at_file();
            }
            Step::Settle => {
                self.unsettled = false;
                self.look_at_file();
            }
            Step::AuditDue => {
                self.audit_due = true;
                self.feed(Event::AuditDue);
            }
            Step::KeysLost => {
                self.session = None;
                let actions = self.feed(Event::KeysLost);
                assert!(actions.contains(&Action::Call(Duration::ZERO)));
            }
            Step::CertificateChanged => {
                let actions = self.feed(Event::CertificateChanged);
                assert!(actions.contains(&Action::Certify));
            }
            _ => {} // it cannot happen now
        }
    }

    /// Notes a change that concerns these networks.
    fn change(&mut self, networks: Networks) -> Networks {
        self.changes += 1;
        self.view.extend(networks.iter().map(|id| (id.clone(), self.changes)));
        networks
    }

    /// A session's first view is everything.
    fn tell(&mut self, networks: &[u8]) {
        let mut networks: Networks = networks.iter().copied().map(id).collect();
        if self.session.as_ref().is_some_and(|session| session.told.is_empty()) {
            networks.extend(self.view.keys().cloned());
        }
        let networks = self.change(networks);
        self.revision += 3;
        let (revision, change) = (self.revision, self.changes);
        let told = (change, self.view.clone());
        self.session.as_mut().unwrap().told.insert(revision, told);
        self.feed(Event::Delta { revision, change, networks });
    }

    fn end_job(&mut self, broken: &Networks) {
        match self.job.take() {
            Some(Job::Program(networks, view, change)) => {
                self.keys = change;
                let programmed = networks.difference(broken);
                self.kernel.extend(programmed.map(|id| (id.clone(), view[id])));
                let failed = networks.intersection(broken).next();
                let reason = failed.map(|id| format!("cannot program network {id}"));
                self.failed = reason.is_some();
                self.feed(Event::Programmed(reason.clone().map_or(Ok(()), Err)));
                if self.failed {
                    assert_eq!(self.stopped, self.changes, "what is to stop waits");
                    let told = self.session.as_ref().is_none_or(|s| s.trouble == reason);
                    assert!(told, "the manager does not know why it waits");
                }
            }
            Some(Job::Audit) => {
                self.feed(Event::Audited);
            }
            None => {}
        }
    }

    /// Also when it is not awaited.
    fn look_at_file(&mut self) {
        if !self.unsettled {
            self.feed(Event::Kept(self.written));
        }
    }

    fn feed(&mut self, event: Event) -> Vec<Action> {
        let actions = self.progress.on(event);
        for action in &actions {
            self.carry_out(action);
        }
        let is_idle = self.job.is_none() && !self.pause;
        assert!(!is_idle || self.told == self.changes, "it waits for nothing");
        actions
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Program(networks) => {
                self.begin(Job::Program(networks.clone(), self.view.clone(), self.changes));
            }
            Action::Audit => {
                self.audit_due = false;
                self.begin(Job::Audit);
            }
            Action::Pause(RETRY_PAUSE) => {
                assert!(self.job.is_none() && !self.pause && self.failed, "a pause for nothing");
                self.pause = true;
            }
            Action::Pause(pause) => panic!("a pause of {pause:?}"),
            Action::UpdateTasks { may_start: true } => {
                assert_eq!(self.kernel, self.view, "tasks start before their networks are there");
                assert_eq!(self.keys, self.changes, "tasks start before there are keys");
                (self.told, self.stopped, self.unsettled) = (self.changes, self.changes, true);
            }
            Action::UpdateTasks { may_start: false } => self.stopped = self.changes,
            Action::RemoveStrays => {
                assert!(
                    self.changes > 0 && self.told == self.changes,
                    "whose they are is not known"
                );
                assert!(!self.strays_removed, "strays are removed twice");
                self.strays_removed = true;
            }
            Action::Admit(reason) => {
                assert!(self.failed);
                if let Some(session) = &mut self.session {
                    assert_ne!(session.trouble.as_ref(), Some(reason), "admitted twice");
                    session.trouble = Some(reason.clone());
                }
            }
            Action::Withdraw => {
                assert_eq!(self.kernel, self.view, "it is not over");
                if let Some(session) = &mut self.session {
                    session.trouble = None;
                }
            }
            Action::Acknowledge(revision) => self.acknowledge(*revision),
            Action::Certify => {}
            Action::Call(_) => assert!(self.session.is_none(), "a session is given up"),
        }
    }

    fn begin(&mut self, job: Job) {
        assert!(self.job.is_none(), "two jobs");
        assert!(!self.pause, "a job in a pause");
        self.job = Some(job);
    }

    fn acknowledge(&mut self, revision: u64) {
        let session = self.session.as_mut().expect("nobody waits for it");
        let told = session.told.get(&revision).expect("another session told it");
        let (change, view) = told;
        for (id, version) in view {
            assert!(self.kernel.get(id) >= Some(version), "network {id} is not programmed");
        }
        assert!(self.keys >= *change, "keys are not programmed");
        assert!(self.told >= *change, "the tasks were not told");
        assert!(self.written >= *change, "a restart would go back");
        assert!(!self.unsettled, "tasks that are gone count as running");
        assert!(revision > session.acknowledged, "an acknowledgement goes back");
        session.acknowledged = revision;
    }

    /// Nothing fails any more, and nobody says anything new: everything that waits comes to its end.
    fn calm_down(&mut self) {
        for _ in 0..8 {
            for step in [Step::JobEnds(Vec::new()), Step::PauseOver, Step::Write, Step::Settle] {
                self.happens(step);
            }
        }
        assert!(self.job.is_none() && !self.pause, "it does not come to rest");
        assert_eq!(self.kernel, self.view);
        assert_eq!(self.told, self.changes);
        assert!(!self.audit_due, "an audit is forgotten");
        assert_eq!(self.strays_removed, self.changes > 0);
        if let Some(session) = &self.session {
            let last = session.told.keys().last().copied().unwrap_or_default();
            assert_eq!(session.acknowledged, last, "the manager waits for ever");
            assert_eq!(session.trouble, None, "a failure that is over is not withdrawn");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn only_what_is_in_force_is_acknowledged_and_in_the_end_everything(
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut world = World::default();
        for step in steps {
            world.happens(step);
        }
        world.calm_down();
    }
}
