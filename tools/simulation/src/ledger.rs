//! What has been committed, and the state that follows from it: the truth that everybody is held to. Each
//! revision is applied here too, by the product's own `State::apply`, and its invariants are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use swarm_manager::Manager;
use swarm_model::{Readiness, TaskState};
use swarm_raft::Role;
use swarm_raft::disk::Stored;
use swarm_state::{Command, State, Touched, Written};

use crate::disk::Disk;
use crate::net::HostId;
use crate::versions::{Version, level_of};

/// An invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

pub(crate) type Checked = Result<(), Violation>;

pub(crate) fn violated<T>(
    invariant: &'static str,
    what: impl Into<String>,
) -> Result<T, Violation> {
    Err(Violation { invariant, what: what.into() })
}

/// A service as of a revision; none when it is gone.
pub(crate) type Wanted = Option<(String, u64, Vec<String>)>;

/// A task's stop was ordered at this revision.
pub(crate) struct Stop {
    pub(crate) task: String,
    pub(crate) service_name: String,
    pub(crate) endpoints: Vec<(String, IpAddr)>,
    /// The live nodes in its networks: all have withdrawn it, and do not send to it again.
    pub(crate) nodes: BTreeSet<String>,
}

/// A task was reported to run for the first time at this revision.
pub(crate) struct Began {
    pub(crate) task: String,
    pub(crate) node: String,
    pub(crate) readiness: Option<Readiness>,
    /// How long it was given to listen.
    pub(crate) timeout: Duration,
}

/// The invariant that `checks` looks for in kernels, and the ledger in the log.
pub(crate) const WITHDRAWN_FIRST: &str = "withdrawn everywhere before it is stopped";

/// The committed log and its state.
#[derive(Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<u64, Stored>,
    pub(crate) state: State,
    /// All that was ever handed out, network and address, and the task or service that had it last.
    holders: BTreeMap<(String, IpAddr), String>,
    tasks: BTreeMap<String, (TaskState, TaskState)>,
    forgotten: BTreeSet<String>,
    /// How each service was after each revision that touched it.
    services: BTreeMap<String, BTreeMap<u64, Wanted>>,
    networks: BTreeMap<String, BTreeMap<u64, bool>>,
    vnis: BTreeMap<String, u32>,
    /// Who led each term, with its candidate.
    leaders: BTreeMap<u64, HostId>,
    /// How far each host's log was compared, by host and generation.
    compared: BTreeMap<(HostId, u64), u64>,
    pub(crate) stops: Vec<Stop>,
    pub(crate) began: Vec<Began>,
}

impl Ledger {
    pub(crate) fn new() -> Ledger {
        Ledger { state: State::new(), ..Ledger::default() }
    }

    /// The index of the last committed entry.
    pub(crate) fn end(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Compares a manager's applied log with what is known, and learns from it what is new.
    pub(crate) fn hear(
        &mut self,
        host: HostId,
        generation: u64,
        manager: &Manager,
        disk: &Disk,
    ) -> Checked {
        let (applied, role, term) = {
            let status = manager.raft().status();
            let status = status.borrow();
            (status.last_applied.unwrap_or(0), status.role.clone(), status.term)
        };
        if let Role::Failed(reason) = role {
            return violated("no manager fails", format!("host {host}: {reason}"));
        }
        let compared = self.compared.get(&(host, generation)).copied();
        if compared.is_none_or(|compared| applied > compared) {
            self.compare(host, generation, applied, disk)?;
        }
        if role == Role::Leader {
            self.crown(host, term)?;
        }
        Ok(())
    }

    fn crown(&mut self, host: HostId, term: u64) -> Checked {
        match self.leaders.insert(term, host) {
            Some(other) if other != host => violated(
                "one leader a term",
                format!("hosts {other} and {host} both led term {term}"),
            ),
            _ => Ok(()),
        }
    }

    fn compare(&mut self, host: HostId, generation: u64, applied: u64, disk: &Disk) -> Checked {
        let from = self.compared.get(&(host, generation)).map_or(0, |compared| compared + 1);
        let entries = disk.entries(from).map_err(|e| Violation {
            invariant: "logs are readable",
            what: format!("host {host}: {e}"),
        })?;
        let mut reached = from.saturating_sub(1);
        for entry in entries.into_iter().take_while(|entry| entry.index <= applied) {
            reached = entry.index;
            match self.entries.get(&entry.index) {
                Some(known) if *known == entry => {}
                Some(known) => {
                    return violated(
                        "committed log prefixes agree",
                        format!("host {host} has {entry:?}, committed was {known:?}"),
                    );
                }
                None if entry.index == self.end() + 1 || self.entries.is_empty() => {
                    self.commit(entry)?;
                }
                None => {
                    return violated(
                        "committed log prefixes agree",
                        format!(
                            "host {host} applied entry {}, {} is unknown",
                            entry.index,
                            self.end() + 1
                        ),
                    );
                }
            }
        }
        // A leader may have applied what its own disk has not got yet: see `learn`.
        self.compared.insert((host, generation), reached);
        Ok(())
    }

    /// Learns what some manager has applied and no disk of a manager that was heard has. Where disks differ, what was
    /// committed is of the newest term (Raft's leader completeness).
    pub(crate) fn learn<'a>(
        &mut self,
        applied: u64,
        disks: impl Iterator<Item = &'a Disk>,
    ) -> Checked {
        let from = self.end() + 1;
        if applied < from || self.entries.is_empty() {
            return Ok(());
        }
        let mut newest: BTreeMap<u64, Stored> = BTreeMap::new();
        for disk in disks {
            let entries = disk
                .entries(from)
                .map_err(|e| Violation { invariant: "logs are readable", what: e.to_string() })?;
            for entry in entries.into_iter().take_while(|entry| entry.index <= applied) {
                if newest.get(&entry.index).is_none_or(|known| known.term < entry.term) {
                    newest.insert(entry.index, entry);
                }
            }
        }
        for (index, entry) in newest {
            if index == self.end() + 1 {
                self.commit(entry)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, entry: Stored) -> Checked {
        let (index, command) = (entry.index, entry.command.clone());
        self.entries.insert(index, entry);
        let Some(command) = command else { return Ok(()) };
        let opened = Command::open(Written::Command(index), &command, Version::New.level());
        let (level, command) = opened.map_err(|e| Violation {
            invariant: "the log can be read by the newest version",
            what: e.to_string(),
        })?;
        let swarm = self.state.feature_level();
        let needed = command.changes.iter().map(level_of).max().unwrap_or_default();
        if self.state.cluster().is_some() && level.max(needed) > swarm {
            let what = format!("entry {index} is of level {level}, the swarm at {swarm}");
            return violated("nothing above the feature level is proposed", what);
        }
        let (_, touched) = self.state.apply(index, command);
        for object in &touched {
            match object {
                Touched::Service(id) => self.note_service(index, id.as_str()),
                Touched::Network(id) => {
                    let exists = self.state.network(id).is_some();
                    let history = self.networks.entry(id.to_string()).or_default();
                    history.insert(index, exists);
                }
                _ => {}
            }
        }
        self.check_addresses(index)?;
        self.check_tasks(index, &touched)
    }

    fn note_service(&mut self, index: u64, id: &str) {
        let service = self.state.service(&id.into()).filter(|service| !service.pending_delete);
        let wanted = service.map(|service| {
            let env = service.spec.task_template.container_spec.env.clone();
            (service.spec.name.clone(), service.replicas(), env)
        });
        self.services.entry(id.to_owned()).or_default().insert(index, wanted);
    }

    /// The service as it was after `revision`; none also if it was never there.
    pub(crate) fn service_at(&self, id: &str, revision: u64) -> Wanted {
        let history = self.services.get(id)?;
        history.range(..=revision).next_back()?.1.clone()
    }

    /// All that the service was at some moment from `revision` on.
    pub(crate) fn service_since(&self, id: &str, revision: u64) -> Vec<Wanted> {
        let mut all = vec![self.service_at(id, revision)];
        if let Some(history) = self.services.get(id) {
            all.extend(history.range(revision + 1..).map(|(_, wanted)| wanted.clone()));
        }
        all
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &String> {
        self.services.keys()
    }

    pub(crate) fn network_at(&self, id: &str, revision: u64) -> bool {
        let history = self.networks.get(id);
        history.and_then(|h| h.range(..=revision).next_back()).is_some_and(|(_, exists)| *exists)
    }

    /// The VNI that a network has or had.
    pub(crate) fn network_vni(&self, id: &str) -> Option<u32> {
        self.vnis.get(id).copied()
    }

    pub(crate) fn was_allocated(&self, network: &str, addr: IpAddr) -> bool {
        self.holders.contains_key(&(network.to_owned(), addr))
    }

    /// Whether nobody has been given the address since this task was.
    pub(crate) fn is_last_holder(&self, network: &str, addr: IpAddr, task: &str) -> bool {
        self.holders.get(&(network.to_owned(), addr)).is_some_and(|holder| holder == task)
    }

    fn check_addresses(&mut self, index: u64) -> Checked {
        let state = &self.state;
        let mut vnis = BTreeSet::new();
        for network in state.networks() {
            if !vnis.insert(network.vni) {
                return violated("no VNI twice", format!("{} at {index}", network.vni));
            }
            self.vnis.insert(network.id.to_string(), network.vni);
            let mut taken = BTreeSet::from([network.gateway]);
            let vips = state.services_in(&network.id).flat_map(|service| {
                let vips = service.endpoint.virtual_ips.iter();
                let here = vips.filter(|vip| vip.network_id == network.id);
                here.map(|vip| (vip.addr.addr(), service.id.as_str()))
            });
            let tasks = state.tasks_in(&network.id).flat_map(|task| {
                let here = task.networks_attachments.iter().filter(|a| a.network.id == network.id);
                here.flat_map(|a| &a.addresses).map(|addr| (addr.addr(), task.id.as_str()))
            });
            for (addr, holder) in vips.chain(tasks) {
                if !taken.insert(addr) {
                    let what = format!("{addr} in {} at {index}", network.spec.name);
                    return violated("no address or VIP twice", what);
                }
                self.holders.insert((network.id.to_string(), addr), holder.to_string());
            }
        }
        Ok(())
    }

    fn check_tasks(&mut self, index: u64, touched: &[Touched]) -> Checked {
        for object in touched {
            let Touched::Task(id, _) = object else { continue };
            let known = self.state.task(id).cloned();
            let id = id.as_str();
            let Some(task) = known else {
                self.tasks.remove(id);
                self.forgotten.insert(id.to_owned());
                continue;
            };
            if self.forgotten.contains(id) {
                return violated("no id twice", format!("task {id} is back at {index}"));
            }
            let now = (task.status.state, task.desired_state);
            let before = self.tasks.insert(id.to_owned(), now);
            let Some(before) = before else { continue };
            if now.0 < before.0 || now.1 < before.1 {
                let what = format!("task {id} from {before:?} to {now:?} at {index}");
                return violated("task state only forward", what);
            }
            if before.0 < TaskState::Running
                && now.0 == TaskState::Running
                && let Some(node) = &task.node_id
            {
                self.began.push(Began {
                    task: id.to_owned(),
                    node: node.to_string(),
                    readiness: task.status.readiness,
                    timeout: Duration::from_nanos(task.ready_timeout),
                });
            }
            let stops = before.1 <= TaskState::Running && now.1 > TaskState::Running;
            let alive = self.state.node_of(&task).is_some_and(|n| n.is_alive());
            if stops && alive && task.status.state == TaskState::Running {
                if task.withdrawn.is_none() {
                    return violated(WITHDRAWN_FIRST, format!("task {id} never was, at {index}"));
                }
                self.stops.push(self.stop(&task));
            }
        }
        Ok(())
    }

    fn stop(&self, task: &swarm_model::Task) -> Stop {
        let endpoints = task.networks_attachments.iter().filter_map(|attachment| {
            let addr = attachment.addresses.first()?.addr();
            Some((attachment.network.id.to_string(), addr))
        });
        let nodes = task.networks_attachments.iter().flat_map(|attachment| {
            let nodes = self.state.carriers(&attachment.network.id);
            let lives =
                |id: &&swarm_model::NodeId| self.state.node(id).is_some_and(|node| node.is_alive());
            nodes.filter(lives).map(|id| id.to_string())
        });
        Stop {
            task: task.id.to_string(),
            service_name: task.service_name.clone(),
            endpoints: endpoints.collect(),
            nodes: nodes.collect(),
        }
    }
}
