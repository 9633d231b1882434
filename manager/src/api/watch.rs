//! How far a service is from being as wanted: the wanted tasks run, *and* every node's data plane has
//! acknowledged them. Only the leader knows the latter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use swarm_model::{
    Node, NodeId, RestartCondition, Service, ServiceId, Task, TaskState, TaskStatus, UpdateState,
};
use swarm_raft::{Role, Status as RaftStatus};
use swarm_state::{State, Touched};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::types::{Progress, SlotProgress};
use super::{Api, resolve};
use crate::error::ApiError;
use crate::leader::agenda::rest;
use crate::leader::fleet::Fleet;
use crate::leader::plan::NodeFacts;
use crate::replica::store::Store;

/// News that may wait for a slow reader.
const QUEUE: usize = 16;

type Heard = BTreeMap<NodeId, NodeFacts>;

impl Api {
    /// Tells how far a service is from being as wanted with the change of that revision, until it is.
    pub async fn watch_service(
        &self,
        name: &str,
        revision: u64,
    ) -> Result<BoxStream<'static, Result<Progress, ApiError>>, ApiError> {
        if let Some(mut leader) = self.other_leader()? {
            return leader.watch_service(name, revision).await;
        }
        self.barrier().await?;
        let service = resolve::service(&self.store.read(), name)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (store, fleet, id) = (self.store.clone(), self.fleet.clone(), service.id.clone());
        tokio::spawn(follow(self.raft.status(), store, fleet, id, revision, sender));
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

/// Follows a service until it is as wanted, will not be, nobody listens, or another manager leads: only
/// the leader is told what is in force.
async fn follow(
    mut status: watch::Receiver<RaftStatus>,
    store: Store,
    fleet: Fleet,
    service: ServiceId,
    revision: u64,
    listener: mpsc::Sender<Result<Progress, ApiError>>,
) {
    let mut events = store.events();
    let mut heard = fleet.changes();
    let mut last = None;
    loop {
        let progress = progress(&store.read(), &fleet.facts(), &service, revision);
        let ended = progress.converged || !progress.failure.is_empty();
        if last.as_ref() != Some(&progress) {
            if listener.send(Ok(progress.clone())).await.is_err() || ended {
                return;
            }
            last = Some(progress);
        }
        let tasks = store.read().count_of(&service);
        tokio::time::sleep(rest(tasks)).await; // what changes meanwhile is told with it
        tokio::select! {
            () = concerns(&mut events, &service) => events = events.resubscribe(),
            changed = heard.changed() => if changed.is_err() { return },
            () = deposed(&mut status) => {
                // The client asks again, and then another manager; unless it is gone.
                let over = ApiError::Unavailable("leadership changed meanwhile: try again".into());
                let _ = listener.send(Err(over)).await;
                return;
            }
            () = listener.closed() => return,
        }
    }
}

/// Waits until this manager does not lead.
async fn deposed(status: &mut watch::Receiver<RaftStatus>) {
    // An error means that Raft has ended here.
    let _ = status.wait_for(|status| status.role != Role::Leader).await;
}

/// Waits for a change of the service, its tasks, or any node.
async fn concerns(
    events: &mut broadcast::Receiver<Arc<crate::replica::store::Applied>>,
    id: &ServiceId,
) {
    loop {
        let Ok(applied) = events.recv().await else { return };
        let concerned = applied.touched.iter().any(|object| match object {
            Touched::Service(service) | Touched::Task(_, service) => service == id,
            Touched::Node(_) => true,
            Touched::Cluster
            | Touched::Network(_)
            | Touched::NodeHistory(_)
            | Touched::Carriers(_)
            | Touched::Endpoint(_)
            | Touched::Assignment(_)
            | Touched::NetworkKeys
            | Touched::NodeCertificate(_) => false,
        });
        if concerned {
            return;
        }
    }
}

/// How far the service is.
pub(crate) fn progress(state: &State, heard: &Heard, id: &ServiceId, revision: u64) -> Progress {
    let Some(service) = state.service(id).filter(|service| !service.pending_delete) else {
        return Progress { failure: "the service was removed".into(), ..Progress::default() };
    };
    let tasks: Vec<&Arc<Task>> = state.tasks_of(id).collect();
    let active: Vec<&Arc<Task>> = tasks.iter().copied().filter(|task| task.holds_slot()).collect();
    let alive =
        |task: &Task| task.node_id.is_none() || state.node_of(task).is_some_and(|n| n.is_alive());
    let runs = |task: &&&Arc<Task>| *task.spec == service.spec.task_template && state.runs(task);
    let running = active.iter().filter(runs).count() as u64;
    let leaving = tasks.iter().filter(|t| !t.holds_slot() && !t.is_finished() && alive(t));
    let nodes = carriers(state, service);
    let lagging = lagging(heard, &nodes, last_change(service, &tasks));
    let mut progress = Progress {
        desired: service.replicas(),
        running: running + completed(service, &tasks),
        stopping: leaving.count() as u64,
        nodes: nodes.len() as u64,
        nodes_in_force: (nodes.len() - lagging.len()) as u64,
        lagging,
        slots: slots(&tasks),
        converged: false,
        failure: failure(service, &tasks),
    };
    let updating = service.update_status.as_ref().is_some_and(|u| u.state == UpdateState::Updating);
    progress.converged = state.revision() >= revision
        && !updating
        && progress.failure.is_empty()
        && progress.running == progress.desired
        && active.len() as u64 <= progress.desired
        && progress.stopping == 0
        && progress.nodes == progress.nodes_in_force;
    progress
}

/// The revision of the last change of a service or one of its tasks.
fn last_change(service: &Service, tasks: &[&Arc<Task>]) -> u64 {
    let of_tasks = tasks.iter().map(|task| task.meta.version.index).max().unwrap_or(0);
    of_tasks.max(service.meta.version.index)
}

/// The live nodes that carry the service's networks.
fn carriers<'a>(state: &'a State, service: &Service) -> Vec<&'a Arc<Node>> {
    // A network that the service just left counts as well: nobody is to find it there any more.
    let before = service.previous_spec.iter().flat_map(|spec| &spec.task_template.networks);
    let ids: BTreeSet<&NodeId> = service
        .spec
        .task_template
        .networks
        .iter()
        .chain(before)
        .flat_map(|network| state.carriers(&network.target))
        .collect();
    let nodes = ids.iter().filter_map(|id| state.node(id));
    nodes.filter(|node| node.is_alive()).collect()
}

/// The names of the nodes that have not programmed `revision`, each with why, if it has said.
fn lagging(heard: &Heard, nodes: &[&Arc<Node>], revision: u64) -> Vec<String> {
    let there = |node: &Node| heard.get(&node.id).is_some_and(|facts| facts.in_force >= revision);
    let late = nodes.iter().filter(|node| !there(node));
    late.map(|node| match node.status.message.as_str() {
        "" => node.description.hostname.clone(),
        why => format!("{}: {why}", node.description.hostname),
    })
    .collect()
}

/// Tasks that did what they should and are not to run again.
fn completed(service: &Service, tasks: &[&Arc<Task>]) -> u64 {
    if service.spec.task_template.restart_policy.condition == RestartCondition::Any {
        return 0;
    }
    let latest = latest_by_slot(tasks);
    // What was withdrawn ended early: that it ended well does not make it one of those wanted.
    let done = |task: &&Arc<Task>| {
        task.status.state == TaskState::Complete
            && task.withdrawn.is_none()
            && *task.spec == service.spec.task_template
    };
    latest.into_values().filter(done).count() as u64
}

fn latest_by_slot<'a>(tasks: &[&'a Arc<Task>]) -> BTreeMap<u64, &'a Arc<Task>> {
    let mut latest: BTreeMap<u64, &Arc<Task>> = BTreeMap::new();
    for task in tasks {
        let newest = latest.entry(task.slot).or_insert(task);
        if (task.meta.created_at, &task.id) > (newest.meta.created_at, &newest.id) {
            *newest = task;
        }
    }
    latest
}

fn failure(service: &Service, tasks: &[&Arc<Task>]) -> String {
    if let Some(update) = &service.update_status
        && update.state == UpdateState::Paused
    {
        return update.message.clone();
    }
    if service.spec.task_template.restart_policy.condition != RestartCondition::None {
        return String::new();
    }
    let failed = latest_by_slot(tasks).into_values().find(|task| {
        matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
            && *task.spec == service.spec.task_template
    });
    let text = |task: &Arc<Task>| format!("task {} failed: {}", task.name(), task.status.err);
    failed.map(text).unwrap_or_default()
}

fn slots(tasks: &[&Arc<Task>]) -> Vec<SlotProgress> {
    let mut last_errors: BTreeMap<u64, &TaskStatus> = BTreeMap::new();
    for task in tasks.iter().filter(|task| !task.status.err.is_empty()) {
        let last = last_errors.entry(task.slot).or_insert(&task.status);
        if task.status.timestamp >= last.timestamp {
            *last = &task.status;
        }
    }
    let latest = latest_by_slot(tasks);
    let shown =
        latest.into_values().filter(|task| !task.is_finished() || !task.status.err.is_empty());
    shown
        .map(|task| SlotProgress {
            slot: task.slot,
            state: task.status.state.to_string(),
            err: last_errors
                .get(&task.slot)
                .filter(|_| !task.is_running())
                .map(|status| status.err.clone())
                .unwrap_or_default(),
            message: task.status.remark().unwrap_or_default().to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
