//! A balancer that records what it is told instead of programming a kernel, for simulations of whole clusters.
//!
//! It keeps the interface's promises that a worker can see: validation, idempotence, drift found by audits.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{Balancer, Changes, Error, Kind, Network, Repaired, Result, VirtualService};

/// See the module's documentation. Share it through an `Arc`: the simulated node programs, the test looks.
#[derive(Debug, Default)]
pub struct FakeBalancer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the pretended kernel holds.
    kernel: BTreeMap<String, Network>,
    /// What was programmed last; differs from `kernel` after [`FakeBalancer::flush`].
    programmed: BTreeMap<String, Network>,
    failures: VecDeque<String>,
    operations: usize,
}

impl FakeBalancer {
    /// A balancer whose kernel holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the pretended kernel holds of a network.
    #[must_use]
    pub fn network(&self, id: &str) -> Option<Network> {
        self.state().kernel.get(id).cloned()
    }

    /// Everything that the pretended kernel holds, by network id.
    #[must_use]
    pub fn networks(&self) -> BTreeMap<String, Network> {
        self.state().kernel.clone()
    }

    /// Service changes sent to the pretended kernel so far.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// Makes the next call that has not been promised a failure yet fail with [`Error::Injected`], changing nothing.
    pub fn fail_next(&self, reason: impl Into<String>) {
        self.state().failures.push_back(reason.into());
    }

    /// Pretends that someone emptied the network's tables behind the balancer's back.
    pub fn flush(&self, id: &str) {
        self.state().kernel.remove(id);
    }

    /// Pretends that the node was rebooted or the daemon restarted with fresh namespaces: everything is forgotten.
    pub fn reboot(&self) {
        let mut state = self.state();
        state.kernel.clear();
        state.programmed.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced field by field; a panicking test thread leaves it usable for the others' assertions.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn injected(&mut self) -> Result<()> {
        self.failures.pop_front().map_or(Ok(()), |reason| Err(Error::Injected(reason)))
    }

    fn program(&mut self, network: &Network) -> Changes {
        let held = self.kernel.get(&network.id);
        let before = held.map(services).unwrap_or_default();
        let after = services(network);
        let gone = before.keys().filter(|id| !after.contains_key(*id)).count();
        let changed =
            after.iter().filter(|(id, service)| before.get(*id) != Some(*service)).count();
        let changes =
            Changes { operations: gone + changed, rebuilt: held.is_none(), connections: 0 };
        self.operations += changes.operations;
        self.kernel.insert(network.id.clone(), network.clone());
        self.programmed.insert(network.id.clone(), network.clone());
        changes
    }
}

fn services(network: &Network) -> BTreeMap<&str, &VirtualService> {
    network.services.iter().map(|service| (service.id.as_str(), service)).collect()
}

#[async_trait]
impl Balancer for FakeBalancer {
    async fn program(&self, network: &Network) -> Result<Changes> {
        network.validate()?;
        let mut state = self.state();
        state.injected()?;
        Ok(state.program(network))
    }

    async fn audit(&self, network: &Network) -> Result<Repaired> {
        network.validate()?;
        let mut state = self.state();
        state.injected()?;
        let lost = state.kernel.get(&network.id) != state.programmed.get(&network.id);
        let drift = lost.then(|| "the table was emptied".to_owned());
        Ok(Repaired { drift, changes: state.program(network) })
    }

    async fn remove(&self, network_id: &str, _netns: &Path) -> Result<()> {
        let mut state = self.state();
        state.injected()?;
        state.kernel.remove(network_id);
        state.programmed.remove(network_id);
        Ok(())
    }

    fn name(&self) -> &'static str {
        "fake"
    }

    fn kind(&self) -> Kind {
        Kind::Fake
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ports;

    fn network() -> Network {
        let service = |id: &str, last| VirtualService {
            id: id.into(),
            name: id.into(),
            mark: None,
            vip: [10, 0, 0, last].into(),
            ports: Ports::All,
            backends: vec![],
        };
        let services = vec![service("a", 2), service("b", 3)];
        Network {
            id: "n".into(),
            netns: "/run/netns/n".into(),
            gateway: [10, 0, 0, 1].into(),
            services,
        }
    }

    #[tokio::test]
    async fn it_keeps_the_interfaces_promises() {
        let fake = FakeBalancer::new();
        let mut network = network();
        let first = fake.program(&network).await.unwrap();
        assert_eq!(first, Changes { operations: 2, rebuilt: true, connections: 0 });
        assert_eq!(fake.program(&network).await.unwrap(), Changes::default());

        network.services.pop();
        assert_eq!(fake.program(&network).await.unwrap().operations, 1);
        assert_eq!(fake.network("n"), Some(network.clone()));

        assert_eq!(fake.audit(&network).await.unwrap(), Repaired::default());
        fake.flush("n");
        assert_eq!(
            fake.audit(&network).await.unwrap().drift.as_deref(),
            Some("the table was emptied")
        );
        assert_eq!(fake.network("n"), Some(network.clone()));

        fake.fail_next("disk on fire");
        assert_eq!(fake.program(&network).await.unwrap_err().to_string(), "disk on fire");
        fake.remove("n", &network.netns).await.unwrap();
        assert!(fake.networks().is_empty());
    }
}
