//! Where the managers are, as far as a node knows.

use std::sync::Arc;

use rand::seq::SliceRandom;
use swarm_model::ManagerAddress;
use tokio::sync::watch;

use crate::memory::Memory;

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

    #[test]
    fn those_heard_of_come_first_and_the_old_ones_are_not_forgotten() {
        let (sender, heard) = watch::channel(Arc::new(Memory::default()));
        let managers = Managers::new(heard, vec![at("old"), at("both")]);
        assert_eq!(managers.all().len(), 2);
        let news = Memory { managers: vec![at("new"), at("both")], ..Memory::default() };
        sender.send_replace(Arc::new(news));
        let mut all = managers.all();
        assert_eq!(all.pop(), Some(at("old")), "nobody named it since");
        all.sort_by(|a, b| a.addr.cmp(&b.addr));
        assert_eq!(all, [at("both"), at("new")]);
    }
}
