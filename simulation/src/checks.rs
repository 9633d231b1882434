//! Kernels against the committed state: what they may never hold, and what they must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use swarm_model::{NodeId, Service, TaskState, UpdateState};

use crate::kernel::Kernel;
use crate::ledger::{Checked, Ledger, Stop, violated};
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

/// The backends of a service that get new connections.
fn ready(kernel: &Kernel, network: &str, service: &str) -> BTreeSet<Ipv4Addr> {
    let network = kernel.balancer.network(network);
    let services = network.into_iter().flat_map(|network| network.services);
    let backends = services.filter(|s| s.id == service).flat_map(|s| s.backends);
    backends.filter(|b| b.weight > 0).map(|b| b.addr).collect()
}

/// Endpoints that stay withdrawn, and what each kernel balanced to when it was looked at last.
#[derive(Default)]
pub(crate) struct Withdrawn {
    gone: BTreeSet<(String, Ipv4Addr)>,
    seen: BTreeMap<u8, BTreeSet<(String, Ipv4Addr)>>,
}

impl Withdrawn {
    pub(crate) fn note(&mut self, stop: &Stop) {
        self.gone.extend(stop.endpoints.iter().cloned());
    }

    /// What was withdrawn from a live node does not come back, unless another task has the address now.
    pub(crate) fn check(&mut self, node: &Node, ledger: &Ledger) -> Checked {
        let networks = node.kernel.balancer.networks();
        let now: BTreeSet<(String, Ipv4Addr)> = networks
            .into_iter()
            .flat_map(|(id, network)| network.services.into_iter().map(move |s| (id.clone(), s)))
            .flat_map(|(id, s)| s.backends.into_iter().map(move |b| (id.clone(), b)))
            .filter(|(_, backend)| backend.weight > 0)
            .map(|(id, backend)| (id, backend.addr))
            .collect();
        let before = self.seen.insert(node.host, now.clone()).unwrap_or_default();
        let lives = node.node_id().and_then(|id| ledger.state.node(&id).map(|n| n.is_alive()));
        for endpoint in now.difference(&before).filter(|endpoint| self.gone.contains(*endpoint)) {
            let (network, addr) = endpoint;
            if lives == Some(true) && !ledger.is_ready(network, *addr) {
                return violated(
                    "withdrawn endpoints do not come back",
                    format!("host {} sends to {addr} in {network} again", node.host),
                );
            }
        }
        Ok(())
    }
}

/// No live kernel sends anybody to a task that is told to stop.
pub(crate) fn check_stop(stop: &Stop, nodes: &[Node]) -> Checked {
    let invariant = "withdrawn everywhere before it is stopped";
    for node in nodes {
        if !node.node_id().is_some_and(|id| stop.nodes.contains(&id)) {
            continue;
        }
        let names = node.kernel.names();
        for (network, addr) in &stop.endpoints {
            if ready(&node.kernel, network, &stop.service).contains(addr) {
                let what =
                    format!("host {} still sends to {addr} of task {}", node.host, stop.task);
                return violated(invariant, what);
            }
            let named = names.get(network).and_then(|names| {
                let service = stop.service_name.as_str();
                names.get(&format!("tasks.{service}")).map(|a| a.addresses().contains(addr))
            });
            if named == Some(true) {
                let what = format!("host {} still names {addr} of task {}", node.host, stop.task);
                return violated(invariant, what);
            }
        }
    }
    Ok(())
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
        let paused = is_paused(service);
        let running = state.tasks_of(&service.id).filter(|task| {
            task.is_wanted()
                && task.status.state == TaskState::Running
                && (paused || task.spec == service.spec.task_template)
                && state.node(task.node_id.as_str()).is_some_and(|node| node.is_alive())
        });
        let (running, wanted) = (running.count() as u64, service.replicas());
        if running != wanted {
            let name = &service.spec.name;
            let update = &service.update_status;
            return Err(format!("{running} of {wanted} tasks of {name} run; update: {update:?}"));
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
        if node.role == swarm_pki::Role::Worker {
            settled_worker(ledger, node, &id)?;
        }
    }
    Ok(())
}

/// A host that is no node any more does nothing for the swarm.
fn settled_former(ledger: &Ledger, node: &Node) -> Result<(), String> {
    let host = node.host;
    if node.node_id().is_some_and(|id| ledger.state.node(&id).is_some()) {
        return Err(format!("host {host} is not removed"));
    }
    let (running, networks) = (node.kernel.running(), node.kernel.networks());
    if !running.is_empty() || !networks.is_empty() {
        return Err(format!("host {host} was removed and still runs {running:?}"));
    }
    Ok(())
}

fn settled_worker(ledger: &Ledger, node: &Node, id: &str) -> Result<(), String> {
    let state = &ledger.state;
    let host = node.host;
    let known = state.node(id);
    if known.is_some_and(|node| !node.is_alive()) {
        return Err(format!("host {host} is not ready"));
    }
    let id = NodeId::from(id);
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
    let mut by_service: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    let (mut local, mut remote) = (BTreeSet::new(), BTreeSet::new());
    for task in state.tasks_in(&network_id).filter(|task| task.is_wanted()) {
        let attachment = task.networks_attachments.iter().find(|a| a.network.id == network_id);
        let Some(addr) = attachment.and_then(|a| a.addresses.first()) else { continue };
        by_service.entry(task.service_id.to_string()).or_default().insert(addr.addr());
        if task.node_id == *id {
            local.insert(addr.addr());
        } else {
            remote.insert(addr.addr());
        }
    }
    let held_local: BTreeSet<Ipv4Addr> = held.local.iter().copied().collect();
    let held_remote: BTreeSet<Ipv4Addr> = held.remote.iter().map(|r| r.addr).collect();
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
