//! Which node a task goes to: spread each service over the nodes that take tasks, and that can have
//! its networks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use swarm_model::{
    Availability, NetworkAttachmentConfig, Node, NodeId, Service, Task, TaskId, TaskState,
};
use swarm_state::{Change, State};

use super::Plan;

/// Nodes that an explanation names; of more it says how many.
const MOST_NAMED: usize = 4;

/// The nodes that take tasks.
pub(super) struct Places<'a> {
    state: &'a State,
    /// In the order of their ids.
    candidates: Vec<Candidate<'a>>,
    /// Why no node takes a task, once that is known: on a network without encryption, and with it.
    refusals: [Option<String>; 2],
}

struct Candidate<'a> {
    node: &'a Node,
    /// How many tasks it has, those that this plan gives it among them.
    tasks: usize,
}

/// How one service is spread over the [`Places`].
struct Spread {
    /// How many of its tasks each candidate has.
    counts: Vec<usize>,
    /// The candidates that take its tasks on networks without encryption, and with it, the best one first. Where a
    /// candidate was given a task meanwhile, it stands for better than it is.
    best: [Option<BinaryHeap<Reverse<Rank>>>; 2],
}

/// How many tasks of the service a candidate has, how many at all, and which it is.
type Rank = (usize, usize, usize);

impl<'a> Places<'a> {
    /// All but the nodes in `dead`.
    pub(super) fn new(state: &'a State, dead: &BTreeSet<&NodeId>) -> Places<'a> {
        let takes_tasks = |node: &&Arc<Node>| node.takes_tasks() && !dead.contains(&node.id);
        let candidates = state.nodes().filter(takes_tasks);
        let candidate = |node: &'a Arc<Node>| Candidate { node, tasks: state.task_count(&node.id) };
        Places { state, candidates: candidates.map(candidate).collect(), refusals: [None, None] }
    }

    fn spread<'t>(&self, tasks: impl Iterator<Item = &'t Arc<Task>>) -> Spread {
        let mut on_node: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for task in tasks.filter(|task| task.is_wanted() && !task.is_finished()) {
            if let Some(node) = &task.node_id {
                *on_node.entry(node).or_default() += 1;
            }
        }
        let count = |candidate: &Candidate<'_>| on_node.get(&candidate.node.id).copied();
        let counts = self.candidates.iter().map(|c| count(c).unwrap_or_default()).collect();
        Spread { counts, best: [None, None] }
    }

    /// Gives the node with the fewest tasks one more; none if none takes it.
    fn next(&mut self, spread: &mut Spread, encrypted: bool) -> Option<&'a NodeId> {
        let Spread { counts, best } = spread;
        let best = best[usize::from(encrypted)].get_or_insert_with(|| {
            let all = self.candidates.iter().enumerate();
            let able = all.filter(|(_, candidate)| !encrypted || candidate.node.has_esp());
            able.map(|(at, candidate)| Reverse((counts[at], candidate.tasks, at))).collect()
        });
        loop {
            let Reverse((of_service, tasks, at)) = best.pop()?;
            let candidate = &mut self.candidates[at];
            if (of_service, tasks) != (counts[at], candidate.tasks) {
                best.push(Reverse((counts[at], candidate.tasks, at)));
                continue;
            }
            counts[at] += 1;
            candidate.tasks += 1;
            best.push(Reverse((counts[at], candidate.tasks, at)));
            return Some(&candidate.node.id);
        }
    }

    /// Says why no node takes a task, in the words of what rules each node out.
    fn refusal(&mut self, encrypted: bool) -> &str {
        let state = self.state;
        self.refusals[usize::from(encrypted)].get_or_insert_with(|| refusal(state, encrypted))
    }
}

/// Places the tasks of one service.
pub(super) struct Placing<'p, 'a> {
    places: &'p mut Places<'a>,
    service: &'p Service,
    new_id: &'p mut dyn FnMut() -> TaskId,
    /// Once it is asked for.
    spread: Option<Spread>,
}

impl<'p, 'a> Placing<'p, 'a> {
    pub(super) fn new(
        places: &'p mut Places<'a>,
        service: &'p Service,
        new_id: &'p mut dyn FnMut() -> TaskId,
    ) -> Placing<'p, 'a> {
        Placing { places, service, new_id, spread: None }
    }

    /// Creates a task in a slot, on a node if one takes it.
    pub(super) fn create(&mut self, slot: u64) -> Change {
        let networks = &self.service.spec.task_template.networks;
        let encrypted = is_any_encrypted(self.places.state, networks);
        let node = self.next(encrypted);
        Change::CreateTask { id: (self.new_id)(), service: self.service.id.clone(), slot, node }
    }

    fn next(&mut self, encrypted: bool) -> Option<NodeId> {
        let tasks = self.places.state.tasks_of(&self.service.id);
        let spread = self.spread.get_or_insert_with(|| self.places.spread(tasks));
        self.places.next(spread, encrypted).cloned()
    }

    /// Places the tasks that found no node when they were created.
    pub(super) fn place_pending(&mut self, plan: &mut Plan) {
        let state = self.places.state;
        for task in state.tasks_of(&self.service.id).filter(|task| is_pending(task)) {
            if plan.is_full() {
                return;
            }
            let encrypted = is_any_encrypted(state, &task.spec.networks);
            let id = task.id.clone();
            if let Some(node) = self.next(encrypted) {
                plan.push(Change::AssignTask { id, node });
                continue;
            }
            plan.waiting.insert(self.service.id.clone());
            let err = self.places.refusal(encrypted);
            if task.status.err != err {
                plan.push(Change::ExplainTask { id, err: err.to_owned() });
            }
        }
    }
}

fn is_pending(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted()
}

/// Whether a task in these networks must be on a node that can encrypt.
fn is_any_encrypted(state: &State, networks: &[NetworkAttachmentConfig]) -> bool {
    let networks = networks.iter().filter_map(|n| state.network(&n.target));
    networks.into_iter().any(|network| network.is_encrypted())
}

fn refusal(state: &State, encrypted: bool) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut without_esp = Vec::new();
    for node in state.nodes() {
        if encrypted && node.takes_tasks() && !node.has_esp() {
            without_esp.push(node.description.hostname.as_str());
        } else {
            *reasons.entry(ruled_out_by(node)).or_default() += 1;
        }
    }
    let reasons = reasons
        .into_iter()
        .map(|(reason, count)| {
            format!("{count} node{} {reason}", if count == 1 { "" } else { "s" })
        })
        .chain(needs_esp(without_esp));
    format!("no suitable node ({})", reasons.collect::<Vec<_>>().join("; "))
}

/// Names the nodes that would take a task, were its network not encrypted.
fn needs_esp(mut nodes: Vec<&str>) -> Option<String> {
    nodes.sort_unstable();
    let which = match nodes.as_slice() {
        [] => return None,
        [one] => format!("{one}'s kernel lacks"),
        [first @ .., last] if nodes.len() <= MOST_NAMED => {
            format!("the kernels of {} and {last} lack", first.join(", "))
        }
        _ => {
            let (named, others) = nodes.split_at(MOST_NAMED - 1);
            format!("the kernels of {} and {} more lack", named.join(", "), others.len())
        }
    };
    Some(format!("needs IPsec ESP, which {which}"))
}

fn ruled_out_by(node: &Node) -> &'static str {
    match node.spec.availability {
        _ if !node.is_alive() => "down",
        Availability::Pause => "paused",
        Availability::Drain => "drained",
        Availability::Active => "available",
    }
}
