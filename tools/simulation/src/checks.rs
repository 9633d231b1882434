//! Kernels against the committed state: what they may never hold, and what they must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use swarm_dns::NetworkNames;
use swarm_model::{NodeId, Readiness, Service, Task, TaskState, UpdateState};

use crate::kernel::Kernel;
use crate::ledger::{Began, Checked, Ledger, Stop, WITHDRAWN_FIRST, violated};
use crate::node::{Fate, Node};

/// Every address in a kernel was handed out once, in that network.
pub(crate) fn check_allocated(host: u8, kernel: &Kernel, ledger: &Ledger) -> Checked {
    let invariant = "a kernel holds only what was allocated";
    for (id, network) in kernel.networks() {
        let known = ledger.network_vni(&id);
        if known != Some(network.vni) {
            let what = format!("host {host}: network {id} with VNI {}, not {known:?}", network.vni);
            return violated(invariant, what);
        }
        let remote = network.remote.iter().map(|remote| remote.addr);
        for addr in network.local.iter().chain(&network.vips).copied().chain(remote) {
            if !ledger.was_allocated(&id, addr) {
                return violated(invariant, format!("host {host}: {addr} in network {id}"));
            }
        }
    }
    for (id, network) in kernel.balancer.networks() {
        for addr in network.services.iter().flat_map(|s| s.backends.iter().map(|b| b.addr)) {
            if !ledger.was_allocated(&id, addr) {
                return violated(invariant, format!("host {host}: backend {addr} in {id}"));
            }
        }
    }
    Ok(())
}

/// A task counts as running once it listens, when it has had its time, or if it is not waited for.
pub(crate) fn check_ready(began: &Began, kernel: &Kernel) -> Checked {
    // One that has ended meanwhile is no witness any more.
    let Some((age, listens)) = kernel.serving(&began.task) else { return Ok(()) };
    let may = match began.readiness {
        Some(Readiness::Listening) => listens,
        Some(Readiness::Silent) => age >= began.timeout,
        Some(Readiness::Unchecked) => began.timeout.is_zero(),
        Some(Readiness::Waiting) | None => false,
    };
    if may {
        return Ok(());
    }
    let Began { task, readiness, timeout, .. } = began;
    let what = format!(
        "task {task} runs: {readiness:?}; its container is {age:?} old, may take {timeout:?}, and listens: {listens}"
    );
    violated("a task runs once it can serve", what)
}

/// The backends of a service that get new connections.
fn ready(kernel: &Kernel, network: &str, service: &str) -> BTreeSet<IpAddr> {
    let network = kernel.balancer.network(network);
    let services = network.into_iter().flat_map(|network| network.services);
    let backends = services.filter(|s| s.id == service).flat_map(|s| s.backends);
    backends.filter(|b| b.weight > 0).map(|b| b.addr).collect()
}

/// What a node sends to and names.
struct Sends {
    networks: BTreeMap<String, swarm_balancer::Network>,
    names: BTreeMap<String, Arc<NetworkNames>>,
}

impl Sends {
    fn of(kernel: &Kernel) -> Sends {
        Sends { networks: kernel.balancer.networks(), names: kernel.names() }
    }

    /// How this node still sends anybody to the task.
    fn to(&self, stop: &Stop) -> Option<String> {
        stop.endpoints.iter().find_map(|(network, addr)| {
            let balanced = self.networks.get(network).is_some_and(|held| {
                let mut backends = held.services.iter().flat_map(|service| &service.backends);
                backends.any(|backend| backend.addr == *addr && backend.weight > 0)
            });
            let named = self.names.get(network).is_some_and(|names| {
                let answer = names.get(&format!("tasks.{}", stop.service_name));
                answer.is_some_and(|answer| answer.addresses().contains(addr))
            });
            let how = match (balanced, named) {
                (true, _) => "sends to",
                (_, true) => "names",
                _ => return None,
            };
            Some(format!("{how} {addr} in {network}"))
        })
    }
}

/// Tasks that were told to stop: who had to have withdrawn them never sends to them again.
#[derive(Default)]
pub(crate) struct Stopped(Vec<Stop>);

impl Stopped {
    /// A task is told to stop: no live node sends anybody to it.
    pub(crate) fn add(&mut self, stop: Stop, nodes: &[Node]) -> Checked {
        for node in nodes {
            if node.node_id().is_some_and(|id| stop.nodes.contains(&id))
                && let Some(how) = Sends::of(&node.kernel).to(&stop)
            {
                let what = format!("host {} still {how}, of task {}", node.host, stop.task);
                return violated(WITHDRAWN_FIRST, what);
            }
        }
        self.0.push(stop);
        Ok(())
    }

    /// What a node has withdrawn does not come back, unless another task has the address now.
    pub(crate) fn check(&self, node: &Node, ledger: &Ledger) -> Checked {
        let Some(id) = node.node_id() else { return Ok(()) };
        let sends = Sends::of(&node.kernel);
        for stop in self.0.iter().filter(|stop| stop.nodes.contains(&id)) {
            let own = |(network, addr): &(String, IpAddr)| {
                ledger.is_last_holder(network, *addr, &stop.task)
            };
            if let Some(how) = sends.to(stop)
                && stop.endpoints.iter().all(own)
            {
                let what = format!("host {} {how} again, of task {}", node.host, stop.task);
                return violated("withdrawn endpoints do not come back", what);
            }
        }
        Ok(())
    }
}

/// A task failed in the course of an update: it waits for the user, as Docker's does.
pub(crate) fn is_paused(service: &Service) -> bool {
    service.update_status.as_ref().is_some_and(|update| update.state == UpdateState::Paused)
}

/// Whether all is as users want it; else why not.
pub(crate) fn settled(ledger: &Ledger, nodes: &[Node]) -> Result<(), String> {
    let state = &ledger.state;
    for service in state.services() {
        if service.pending_delete {
            return Err(format!("service {} is being removed", service.spec.name));
        }
        if is_paused(service) {
            return Err(format!("the update of {} is paused", service.spec.name));
        }
        let running = state.tasks_of(&service.id).filter(|task| {
            task.is_wanted()
                && task.status.state == TaskState::Running
                && *task.spec == service.spec.task_template
                && state.node_of(task).is_some_and(|node| node.is_alive())
        });
        let (running, wanted) = (running.count() as u64, service.replicas());
        if running != wanted {
            let name = &service.spec.name;
            let update = service.update_status.as_ref().map(|update| update.state);
            let tasks = state.tasks_of(&service.id).filter(|task| !task.is_finished());
            let tasks: Vec<String> = tasks.map(|task| told(task)).collect();
            return Err(format!(
                "{running} of {wanted} tasks of {name} run; {update:?}: {tasks:?}"
            ));
        }
    }
    for node in nodes {
        match node.fate {
            Fate::Here => {}
            Fate::ToCome => return Err(format!("host {} is to come", node.host)),
            Fate::Lost | Fate::Removed => {
                settled_former(ledger, node)?;
                continue;
            }
        }
        let Some(id) = node.node_id() else {
            return Err(format!("host {} has not joined", node.host));
        };
        settled_node(ledger, node, &id)?;
    }
    Ok(())
}

/// What there is to know of a task that should run and does not.
fn told(task: &Task) -> String {
    let Task { id, slot, node_id, status, desired_state, withdrawn, .. } = task;
    format!(
        "{id} in slot {slot} on {node_id:?}: {} {:?} {:?}, to be {desired_state}, withdrawn {withdrawn:?}",
        status.state, status.message, status.err
    )
}

/// A host that is no node any more does nothing for the swarm.
fn settled_former(ledger: &Ledger, node: &Node) -> Result<(), String> {
    let host = node.host;
    if node.node_id().is_some_and(|id| ledger.state.node(&id.into()).is_some()) {
        return Err(format!("host {host} is not removed"));
    }
    let (running, networks) = (node.kernel.running(), node.kernel.networks());
    if !running.is_empty() || !networks.is_empty() {
        return Err(format!("host {host} was removed and still runs {running:?}"));
    }
    Ok(())
}

fn settled_node(ledger: &Ledger, node: &Node, id: &str) -> Result<(), String> {
    let state = &ledger.state;
    let host = node.host;
    let id = NodeId::from(id);
    let known = state.node(&id);
    if known.is_some_and(|node| !node.is_alive()) {
        return Err(format!("host {host} is not ready"));
    }
    let wanted: BTreeSet<String> = state
        .tasks_on(&id)
        .filter(|task| task.is_wanted())
        .map(|task| task.id.to_string())
        .collect();
    let running = node.kernel.running();
    if running != wanted {
        return Err(format!("host {host} runs {running:?}, not {wanted:?}"));
    }
    let networks = node.kernel.networks();
    let expected: BTreeSet<String> = state
        .tasks_on(&id)
        .flat_map(|task| &task.networks_attachments)
        .map(|attachment| attachment.network.id.to_string())
        .collect();
    let held: BTreeSet<String> = networks.keys().cloned().collect();
    if held != expected {
        return Err(format!("host {host} holds networks {held:?}, not {expected:?}"));
    }
    for (network, held) in &networks {
        settled_network(ledger, node, &id, network, held)?;
    }
    Ok(())
}

fn settled_network(
    ledger: &Ledger,
    node: &Node,
    id: &NodeId,
    network: &str,
    held: &swarm_overlay::Network,
) -> Result<(), String> {
    let state = &ledger.state;
    let network_id = network.into();
    let mut by_service: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    let (mut local, mut remote) = (BTreeSet::new(), BTreeSet::new());
    for task in state.tasks_in(&network_id).filter(|task| task.is_wanted()) {
        let attachment = task.networks_attachments.iter().find(|a| a.network.id == network_id);
        let Some(addr) = attachment.and_then(|a| a.addresses.first()) else { continue };
        by_service.entry(task.service_id.to_string()).or_default().insert(addr.addr());
        if task.is_on(id) {
            local.insert(addr.addr());
        } else {
            remote.insert(addr.addr());
        }
    }
    let held_local: BTreeSet<IpAddr> = held.local.iter().copied().collect();
    let held_remote: BTreeSet<IpAddr> = held.remote.iter().map(|r| r.addr).collect();
    if (&held_local, &held_remote) != (&local, &remote) {
        return Err(format!(
            "host {} holds {held_local:?} and {held_remote:?} in {network}, not {local:?} and {remote:?}",
            node.host
        ));
    }
    for service in state.services_in(&network_id) {
        let wanted = by_service.remove(service.id.as_str()).unwrap_or_default();
        let balanced = ready(&node.kernel, network, service.id.as_str());
        if balanced != wanted {
            let name = &service.spec.name;
            return Err(format!(
                "host {} balances {name} over {balanced:?}, not {wanted:?}",
                node.host
            ));
        }
    }
    Ok(())
}
