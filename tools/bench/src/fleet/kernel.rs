//! What a worker without a kernel keeps of its view: enough to check it, small enough for a thousand in one process.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use swarm_model::{EndpointState, Item, ItemKey, NetworkId, TaskId, TaskState, ViewDelta, Wanted};

/// A worker's tasks and endpoints.
#[derive(Default)]
pub(super) struct Kernel {
    /// Those that are to run.
    pub(super) tasks: HashSet<TaskId>,
    networks: HashSet<NetworkId>,
    /// Ready or not, by a hash of the key.
    endpoints: HashMap<u64, bool>,
}

/// What a delta asks of the worker.
#[derive(Default)]
pub(super) struct News {
    /// To be reported.
    pub(super) reports: Vec<(TaskId, TaskState)>,
}

impl Kernel {
    /// Takes a change up.
    pub(super) fn apply(&mut self, delta: &ViewDelta) -> News {
        if delta.full {
            *self = Kernel::default();
        }
        for key in &delta.remove {
            match key {
                ItemKey::Task(id) => drop(self.tasks.remove(id)),
                ItemKey::Network(id) => drop(self.networks.remove(id)),
                ItemKey::Endpoint(..) => drop(self.endpoints.remove(&hash(key))),
                _ => {}
            }
        }
        let mut news = News::default();
        for (key, item) in &delta.upsert {
            match (key, item) {
                (ItemKey::Network(id), _) => drop(self.networks.insert(id.clone())),
                (_, Item::Endpoint(endpoint)) => {
                    let ready = endpoint.state == EndpointState::Ready;
                    self.endpoints.insert(hash(key), ready);
                }
                (ItemKey::Task(id), Item::Task(task)) => match task.wanted {
                    Wanted::Run => {
                        if self.tasks.insert(id.clone()) {
                            news.reports.push((id.clone(), TaskState::Running));
                        }
                    }
                    Wanted::Stop => {
                        self.tasks.remove(id);
                        news.reports.push((id.clone(), TaskState::Shutdown));
                    }
                    Wanted::Keep => drop(self.tasks.remove(id)),
                },
                _ => {}
            }
        }
        news
    }

    /// How many networks it has, and ready endpoints in all of them.
    pub(super) fn networks(&self) -> (usize, usize) {
        (self.networks.len(), self.endpoints.values().filter(|ready| **ready).count())
    }
}

fn hash(key: &ItemKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
