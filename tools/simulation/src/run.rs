//! One simulation from its seed to its end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};

use swarm_pki::Role;
use swarm_proto::control::control_server::Control as _;
use swarm_proto::control::{Progress, WatchServiceRequest};
use tokio_stream::StreamExt;
use tonic::Request;

use crate::bad_leader;
use crate::break_it::Break;
use crate::checks::{Stopped, check_allocated, check_ready, is_paused, settled};
use crate::client::{Clients, Traffic};
use crate::determinism;
use crate::faults::Faults;
use crate::leader::{leader, remove_lost};
use crate::ledger::{Checked, Ledger, Violation, violated};
use crate::net::{HostId, Net};
use crate::node::{Fate, Node, Shared};
use crate::random::Random;
use crate::versions::{Upgrade, Version};

/// Milliseconds that all hosts run before any of them hears another.
const TICK: u64 = 5;
/// How long the swarm may take to come up, and to settle in the end.
const BOOT: u64 = 30_000;
const SETTLE: u64 = 60_000;
/// How often replicas are compared.
const AGREEMENT: u64 = 500;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// All chance comes from it.
    pub seed: u64,
    /// What is broken on purpose.
    pub broken: Option<Break>,
    /// Tell what happens.
    pub verbose: bool,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The invariant that does not hold, if any.
    pub violation: Option<Violation>,
    /// Virtual milliseconds.
    pub time: u64,
    /// How long the swarm took to settle after the last fault.
    pub settled_in: u64,
    /// Things that went wrong on purpose.
    pub faults: u64,
    /// Log entries committed.
    pub entries: u64,
    /// What users did.
    pub traffic: Traffic,
    /// The same for two runs of a seed, unless they differ.
    pub fingerprint: u64,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of simulated programs are violations: their text is kept, and not printed.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if determinism::is_simulating() {
                PANIC.with_borrow_mut(|panic| *panic = Some(info.to_string().replace('\n', " ")));
            } else {
                former(info);
            }
        }));
    });
}

/// Simulates, on a thread of its own: what threads keep for themselves begins anew for each seed.
pub fn run(plan: Plan) -> Report {
    catch_panics();
    let simulation = std::thread::Builder::new().stack_size(16 << 20).spawn(move || {
        let dir = folder();
        determinism::enter(plan.seed);
        World::new(plan, dir.path()).run()
    });
    match simulation.map(std::thread::JoinHandle::join) {
        Ok(Ok(report)) => report,
        _ => Report {
            violation: Some(Violation {
                invariant: "the simulation itself works",
                what: "its thread panicked".to_owned(),
            }),
            time: 0,
            settled_in: 0,
            faults: 0,
            entries: 0,
            traffic: Traffic::default(),
            fingerprint: 0,
        },
    }
}

/// In memory, if there is such a place.
fn folder() -> tempfile::TempDir {
    let shm = tempfile::Builder::new().prefix("swarm-sim-").tempdir_in("/dev/shm");
    shm.or_else(|_| tempfile::tempdir()).expect("a temporary folder can be made")
}

/// What a watcher of a service was told last.
type Told = Arc<Mutex<Option<Result<Progress, String>>>>;

struct World {
    plan: Plan,
    now: u64,
    net: Net,
    nodes: Vec<Node>,
    ledger: Ledger,
    clients: Clients,
    random: Random,
    /// Changes of each kernel that were looked at.
    looked: BTreeMap<HostId, u64>,
    stopped: Stopped,
    /// Users who upgrade the swarm, if there are any.
    upgrade: Option<Upgrade>,
    faults: u64,
    settled_in: u64,
}

impl World {
    fn new(plan: Plan, dir: &Path) -> World {
        let mut random = Random::new(plan.seed);
        let net = Net::new(random.split());
        let managers = [1u8, 3, 3, 3, 5][random.within(0..5) as usize];
        let workers = random.within(2..5) as u8;
        let shared = Shared {
            net: net.clone(),
            tokens: Arc::default(),
            managers: (1..=managers).collect(),
            broken: plan.broken,
            snapshot_every: random.within(40..400),
        };
        // Some join later: up to one manager and one worker.
        let (more_managers, more_workers) = (random.within(0..2) as u8, random.within(0..2) as u8);
        let upgrades = random.chance(50) || plan.broken == Some(Break::Level);
        let all = managers + workers + more_managers + more_workers;
        let nodes = (1..=all).map(|host| {
            let first = host <= managers + workers;
            let manages =
                host <= managers || (!first && host <= managers + workers + more_managers);
            let role = if manages { Role::Manager } else { Role::Worker };
            let own = dir.join(host.to_string());
            std::fs::create_dir_all(&own).expect("a folder can be made");
            let mut node = Node::new(host, role, shared.clone(), own, &mut random);
            node.fate = if first { Fate::Here } else { Fate::ToCome };
            if upgrades && !first {
                node.version = Version::New; // nobody installs the old one any more
            }
            node
        });
        let nodes = nodes.collect();
        let clients = Clients::new(random.split());
        let upgrade = upgrades.then(|| Upgrade::new(random.split(), 0));
        World {
            plan,
            now: 0,
            net,
            nodes,
            ledger: Ledger::new(),
            clients,
            random,
            looked: BTreeMap::new(),
            stopped: Stopped::default(),
            upgrade,
            faults: 0,
            settled_in: 0,
        }
    }

    fn run(mut self) -> Report {
        let violation = self.live().err();
        if let Some(violation) = &violation {
            self.say(|| format!("VIOLATION: {}: {}", violation.invariant, violation.what));
        }
        for node in &mut self.nodes {
            node.kill();
        }
        let mut fingerprint = self.now ^ self.ledger.end().rotate_left(32);
        for id in self.ledger.state.tasks().map(|task| task.id.to_string()) {
            for byte in id.bytes() {
                fingerprint = fingerprint.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
            }
        }
        Report {
            violation,
            time: self.now,
            settled_in: self.settled_in,
            faults: self.faults,
            entries: self.ledger.end(),
            traffic: self.clients.traffic,
            fingerprint,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.plan.verbose {
            println!("{:>7} ms  {}", self.now, what());
        }
    }

    fn live(&mut self) -> Checked {
        self.boot()?;
        self.chaos()?;
        self.settle()
    }

    fn boot(&mut self) -> Checked {
        for node in self.nodes.iter_mut().filter(|node| node.fate == Fate::Here) {
            node.start(0);
        }
        let mut reason = String::new();
        while self.now < BOOT {
            self.tick()?;
            match self.is_up() {
                Ok(()) => {
                    self.say(|| "the swarm is up".to_owned());
                    return Ok(());
                }
                Err(why) => reason = why,
            }
        }
        violated("a swarm comes up", reason)
    }

    fn is_up(&self) -> Result<(), String> {
        for node in self.nodes.iter().filter(|node| node.fate == Fate::Here) {
            let id = node.node_id().ok_or_else(|| format!("host {} has not joined", node.host))?;
            let known = self.ledger.state.node(&id.into());
            let known = known.ok_or_else(|| format!("host {} is not known", node.host))?;
            if !known.is_alive() {
                return Err(format!("host {} is not ready", node.host));
            }
            if let Some(manager) = node.manager()
                && !manager
                    .raft()
                    .status()
                    .borrow()
                    .voters
                    .iter()
                    .any(|v| v.id == self.raft_id(node))
            {
                return Err(format!("host {} does not vote", node.host));
            }
        }
        Ok(())
    }

    fn raft_id(&self, node: &Node) -> u64 {
        node.seen().member.as_ref().map_or(0, |member| member.raft_id)
    }

    fn chaos(&mut self) -> Checked {
        let end = self.now + self.random.within(2_000..10_000);
        let mut faults = Faults::new(self.random.split(), self.now);
        let mut ask_at = self.now;
        while self.now < end {
            let may_remove = self.upgrade.as_ref().is_none_or(|upgrade| !upgrade.is_replacing());
            for what in faults.step(self.now, &mut self.nodes, &self.net, &self.ledger, may_remove)
            {
                self.say(|| what);
            }
            self.upgrade(false);
            if self.now >= ask_at {
                ask_at = self.now + self.random.within(20..400);
                self.ask();
            }
            self.tick()?;
        }
        faults.heal(self.now, &mut self.nodes, &self.net);
        for node in self.nodes.iter_mut().filter(|node| node.fate == Fate::ToCome) {
            node.start(self.now);
        }
        self.faults = faults.count;
        self.say(|| "all is repaired".to_owned());
        Ok(())
    }

    fn upgrade(&mut self, must_end: bool) {
        let Some(upgrade) = &mut self.upgrade else { return };
        let what = upgrade.step(self.now, &mut self.nodes, &self.ledger, must_end);
        if let Some(what) = what {
            self.say(|| what);
        }
    }

    /// Whether all hosts are of one version in the end, and the swarm makes use of it.
    fn is_upgraded(&self) -> Result<(), String> {
        let version = if self.upgrade.is_some() { Version::New } else { Version::Old };
        let level = self.ledger.state.feature_level();
        if level != version.level() {
            let held = self.ledger.state.held_back(version.level());
            return Err(format!("the feature level is {level}, {held}"));
        }
        Ok(())
    }

    fn ask(&mut self) {
        let managers: Vec<usize> =
            (0..self.nodes.len()).filter(|at| self.nodes[*at].manager().is_some()).collect();
        let Some(at) = self.random.pick(&managers).copied() else { return };
        let Some(manager) = self.nodes[at].manager() else { return };
        let ask = self.clients.ask(manager.handle().control());
        self.nodes[at].spawn(ask);
    }

    fn settle(&mut self) -> Checked {
        let began = self.now;
        let mut reason = String::new();
        while self.now < began + SETTLE {
            self.upgrade(true);
            self.tick()?;
            if !self.now.is_multiple_of(100) {
                continue;
            }
            if self.now.is_multiple_of(2_000) {
                remove_lost(&self.nodes, &self.ledger);
                self.update_paused();
            }
            let answered = self.clients.all_answered();
            let settled = answered.and_then(|()| settled(&self.ledger, &self.nodes));
            let settled = settled.and_then(|()| self.is_upgraded()).and_then(|()| self.is_up());
            match settled.and_then(|()| self.managers_agree()) {
                Ok(()) => {
                    self.settled_in = self.now - began;
                    self.say(|| "all is settled".to_owned());
                    self.clients.check_all_kept()?;
                    return self.all_acknowledge();
                }
                Err(why) => reason = why,
            }
        }
        violated("everything settles", reason)
    }

    /// Users see that an update was paused, and try another.
    fn update_paused(&mut self) {
        let Some((node, manager)) = leader(&self.nodes) else { return };
        let paused = self.ledger.state.services().filter(|service| is_paused(service));
        for service in paused {
            node.spawn(self.clients.ask_to_update(&service.spec.name, manager.handle().control()));
        }
    }

    /// All replicas are the same, and as the committed log has it.
    fn managers_agree(&self) -> Result<(), String> {
        let expected = self.ledger.state.to_snapshot();
        for node in &self.nodes {
            if let Some(manager) = node.manager()
                && manager.store().read().to_snapshot() != expected
            {
                return Err(format!("host {}'s replica differs from the log", node.host));
            }
        }
        Ok(())
    }

    /// Managers say themselves that each service is in force on every node.
    fn all_acknowledge(&mut self) -> Checked {
        let services: Vec<String> =
            self.ledger.state.services().map(|service| service.id.to_string()).collect();
        let until = self.now + 10_000;
        for service in services {
            let told: Told = Arc::default();
            let heard = || told.lock().unwrap_or_else(PoisonError::into_inner).clone();
            while !heard().is_some_and(|told| told.is_ok_and(|progress| progress.converged)) {
                // Asked again from time to time: the leader that was asked may not lead any more.
                if self.now.is_multiple_of(1_000) {
                    self.watch(&service, &told);
                }
                if self.now > until {
                    let what = format!("service {service}, of which was told {:?}", heard());
                    return violated("all nodes acknowledge", what);
                }
                self.tick()?;
            }
        }
        Ok(())
    }

    fn watch(&self, service: &str, told: &Told) {
        let Some((node, manager)) = leader(&self.nodes) else { return };
        let (told, control) = (told.clone(), manager.handle().control());
        let tell = move |said| *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        let request = WatchServiceRequest { service: service.to_owned(), revision: 0 };
        node.spawn(async move {
            let mut progress = match control.watch_service(Request::new(request)).await {
                Ok(answer) => answer.into_inner(),
                Err(refused) => return tell(Err(refused.to_string())),
            };
            while let Some(said) = progress.next().await {
                tell(said.map_err(|e| e.to_string()));
            }
        });
    }

    fn tick(&mut self) -> Checked {
        self.now += TICK;
        self.net.advance(self.now);
        for node in &mut self.nodes {
            node.step(self.now);
        }
        self.check()
    }

    fn check(&mut self) -> Checked {
        if let Some(panic) = PANIC.with_borrow_mut(Option::take) {
            return violated("no program panics", panic);
        }
        for node in &self.nodes {
            if let Some(reason) = node.seen().failed.take() {
                return violated("no program fails", format!("host {}: {reason}", node.host));
            }
        }
        for node in &self.nodes {
            if let Some(manager) = node.manager() {
                self.ledger.hear(node.host, node.generation, &manager, &node.disk)?;
            }
        }
        let managers = self.nodes.iter().filter_map(Node::manager);
        let applied = managers.filter_map(|manager| manager.raft().status().borrow().last_applied);
        let applied = applied.max().unwrap_or(0);
        self.ledger.learn(applied, self.nodes.iter().map(|node| &node.disk))?;
        for stop in std::mem::take(&mut self.ledger.stops) {
            self.stopped.add(stop, &self.nodes)?;
        }
        for began in std::mem::take(&mut self.ledger.began) {
            let is_there = |node: &&Node| node.node_id().is_some_and(|id| id == began.node);
            if let Some(node) = self.nodes.iter().find(is_there) {
                node.set_clock(self.now);
                check_ready(&began, &node.kernel)?;
            }
        }
        for node in &self.nodes {
            let changes = node.kernel.changes();
            if self.looked.insert(node.host, changes) != Some(changes) {
                check_allocated(node.host, &node.kernel, &self.ledger)?;
                self.stopped.check(node, &self.ledger)?;
            }
        }
        if self.now.is_multiple_of(AGREEMENT) {
            self.replicas_agree()?;
        }
        match self.plan.broken {
            Some(Break::WithdrawOrder) => bad_leader::stop_too_soon(&self.nodes),
            Some(Break::Level) if self.now.is_multiple_of(AGREEMENT) => {
                bad_leader::speak_too_soon(&self.nodes, &self.ledger);
            }
            _ => {}
        }
        self.clients.check(&self.ledger)
    }

    /// Replicas that have come as far as the committed log are as it says.
    fn replicas_agree(&self) -> Checked {
        let committed = self.ledger.state.revision();
        let mut expected = None;
        for node in &self.nodes {
            let Some(manager) = node.manager() else { continue };
            let state = manager.store().read();
            if state.revision() != committed {
                continue;
            }
            let expected = expected.get_or_insert_with(|| self.ledger.state.to_snapshot());
            if state.to_snapshot() != *expected {
                let what = format!("host {}'s differs from the log at {committed}", node.host);
                return violated("replicas agree", what);
            }
        }
        Ok(())
    }
}
