//! Where the managers are, as far as a node knows.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use swarm_model::ManagerAddress;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::memory::Memory;

/// How long the news of a manager may take to this node: it is told every half second.
const NEWS: Duration = Duration::from_secs(2);

/// Knows the managers; cheap to clone.
#[derive(Debug, Clone)]
pub struct Managers {
    heard: watch::Receiver<Arc<Memory>>,
    first: Arc<[ManagerAddress]>,
}

impl Managers {
    /// `first` are those known before any was heard.
    pub(crate) fn new(heard: watch::Receiver<Arc<Memory>>, first: Vec<ManagerAddress>) -> Managers {
        Managers { heard, first: first.into() }
    }

    /// Whether a node is a manager. Of a new one the news may be on its way.
    pub(crate) async fn includes(&self, node: &str) -> bool {
        let is_there = |memory: &Arc<Memory>| {
            let known = match memory.managers.as_slice() {
                [] => &self.first, // none was heard of yet
                heard => heard,
            };
            known.iter().any(|manager| manager.node_id.as_str() == node)
        };
        let mut heard = self.heard.clone();
        timeout(NEWS, heard.wait_for(is_there)).await.is_ok_and(|there| there.is_ok())
    }

    /// All of them, in the order to try: first those that a manager named last, in random order, so that
    /// nodes spread over them; then those that the node knew when it was set up.
    pub fn all(&self) -> Vec<ManagerAddress> {
        let mut all = self.heard.borrow().managers.clone();
        all.shuffle(&mut rand::rng());
        let mut first = self.first.to_vec();
        first.shuffle(&mut rand::rng());
        for manager in first {
            if all.iter().all(|other| other.addr != manager.addr) {
                all.push(manager);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addr: &str) -> ManagerAddress {
        ManagerAddress { node_id: "m".into(), addr: addr.into() }
    }

    #[tokio::test]
    async fn a_manager_is_one_once_it_is_heard_of_and_until_it_is_named_no_more() {
        let (sender, heard) = watch::channel(Arc::new(Memory::empty("n".into())));
        let managers = Managers::new(heard, vec![of("m1")]);
        assert!(managers.includes("m1").await);
        assert!(!managers.includes("m2").await);
        let hear = |named: &[&str]| {
            let managers = named.iter().map(|id| of(id)).collect();
            sender.send_replace(Arc::new(Memory { managers, ..Memory::empty("n".into()) }))
        };
        let (includes, _) = tokio::join!(managers.includes("m2"), async { hear(&["m2", "m3"]) });
        assert!(includes, "the news came");
        assert!(!managers.includes("m1").await, "that was long ago");
    }

    fn of(id: &str) -> ManagerAddress {
        ManagerAddress { node_id: id.into(), addr: format!("{id}:2377") }
    }

    #[test]
    fn those_heard_of_come_first_and_the_old_ones_are_not_forgotten() {
        let (sender, heard) = watch::channel(Arc::new(Memory::empty("n".into())));
        let managers = Managers::new(heard, vec![at("old"), at("both")]);
        assert_eq!(managers.all().len(), 2);
        let news = Memory { managers: vec![at("new"), at("both")], ..Memory::empty("n".into()) };
        sender.send_replace(Arc::new(news));
        let mut all = managers.all();
        assert_eq!(all.pop(), Some(at("old")), "nobody named it since");
        all.sort_by(|a, b| a.addr.cmp(&b.addr));
        assert_eq!(all, [at("both"), at("new")]);
    }
}
