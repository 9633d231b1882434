//! From what a user typed (an id, a name, the beginning of an id) to the object meant.

use std::sync::Arc;

use swarm_model::{Network, Node, Service, Task};
use swarm_state::State;

use crate::error::ApiError;

/// Picks the one object that `name` means: by id, else by name, else by the beginning of its id.
fn pick<'a, T: 'a>(
    what: &str,
    name: &str,
    objects: impl Iterator<Item = &'a Arc<T>> + Clone,
    id: impl Fn(&T) -> &str,
    named: impl Fn(&T) -> bool,
) -> Result<Arc<T>, ApiError> {
    let one = |found: Vec<&Arc<T>>| match found.as_slice() {
        [] => None,
        [one] => Some(Ok(Arc::clone(one))),
        many => Some(Err(ApiError::Ambiguous(format!(
            "{what} {name} is ambiguous ({} matches found): use the id",
            many.len()
        )))),
    };
    if name.is_empty() {
        return Err(ApiError::Invalid(format!("the name of the {what} is empty")));
    }
    one(objects.clone().filter(|object| id(object) == name).collect())
        .or_else(|| one(objects.clone().filter(|object| named(object)).collect()))
        .or_else(|| one(objects.filter(|object| id(object).starts_with(name)).collect()))
        .unwrap_or_else(|| Err(ApiError::NotFound(format!("{what} {name} not found"))))
}

/// The service meant.
pub(crate) fn service(state: &State, name: &str) -> Result<Arc<Service>, ApiError> {
    if let Some(service) = state.service_named(name) {
        return Ok(Arc::clone(service));
    }
    let services: Vec<_> = state.services().filter(|service| !service.pending_delete).collect();
    pick("service", name, services.into_iter(), |s| s.id.as_str(), |s| s.spec.name == name)
}

/// The network meant.
pub(crate) fn network(state: &State, name: &str) -> Result<Arc<Network>, ApiError> {
    if let Some(network) = state.network_named(name) {
        return Ok(Arc::clone(network));
    }
    let networks: Vec<_> = state.networks().collect();
    pick("network", name, networks.into_iter(), |n| n.id.as_str(), |n| n.spec.name == name)
}

/// The node meant.
pub(crate) fn node(state: &State, name: &str) -> Result<Arc<Node>, ApiError> {
    let nodes: Vec<_> = state.nodes().collect();
    pick("node", name, nodes.into_iter(), |n| n.id.as_str(), |n| n.description.hostname == name)
}

/// The task meant: `web.1` is the one that runs, or else the last one that did, in that slot.
pub(crate) fn task(state: &State, name: &str) -> Result<Arc<Task>, ApiError> {
    if let Some(task) = state.task(&name.into()) {
        return Ok(Arc::clone(task));
    }
    if let Some(task) = in_slot(state, name) {
        return Ok(task);
    }
    let tasks: Vec<_> = state.tasks().collect();
    pick("task", name, tasks.into_iter(), |t| t.id.as_str(), |t| t.name() == name)
}

fn in_slot(state: &State, name: &str) -> Option<Arc<Task>> {
    let (service, slot) = name.rsplit_once('.')?;
    let (service, slot) = (state.service_named(service)?, slot.parse::<u64>().ok()?);
    let tasks = state.tasks_in_slot(&service.id, slot);
    tasks.max_by_key(|task| (!task.is_finished(), task.meta.created_at)).cloned()
}
