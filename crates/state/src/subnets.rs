//! Which subnet a new network gets.

use ipnet::IpNet;
use swarm_model::{NetworkSpec, overlap};

use crate::command::Rejected;
use crate::tables::State;

impl State {
    /// The subnet for `spec`: the one asked for, or the first of the pool that clashes with no network
    /// and no route of a node.
    pub(crate) fn choose_subnet(&self, spec: &NetworkSpec) -> Result<IpNet, Rejected> {
        match spec.ipam.config.first().and_then(|config| config.subnet) {
            Some(subnet) => self.check_overlap(subnet),
            None => self.subnet_from_pool(),
        }
    }

    fn check_overlap(&self, subnet: IpNet) -> Result<IpNet, Rejected> {
        match self.networks().find(|other| overlap(&other.subnet, &subnet)) {
            Some(other) => Err(Rejected::Invalid(format!(
                "subnet {subnet} overlaps with {} of network {}",
                other.subnet, other.spec.name
            ))),
            None => Ok(subnet),
        }
    }

    fn subnet_from_pool(&self) -> Result<IpNet, Rejected> {
        let spec = self.cluster().map(|cluster| cluster.spec.clone()).unwrap_or_default();
        let pools = &spec.default_addr_pool;
        let taken: Vec<IpNet> = self.networks().map(|network| network.subnet).collect();
        // A default route says nothing about what is in use. A node whose routes were never known holds nobody up: its
        // message says that they are not.
        let routes: Vec<IpNet> = self
            .nodes()
            .flat_map(|node| node.description.routes.iter().flatten().copied())
            .filter(|route| route.prefix_len() > 0)
            .collect();
        // The first subnet is left to the routing mesh, as Docker does.
        let candidates = pools
            .iter()
            .filter_map(|pool| pool.subnets(spec.subnet_size).ok())
            .flatten()
            .skip(usize::from(pools.len() == 1 && pools[0].prefix_len() < spec.subnet_size));
        candidates
            .into_iter()
            .find(|subnet| taken.iter().chain(&routes).all(|other| !overlap(other, subnet)))
            .ok_or_else(|| {
                let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
                Rejected::Exhausted(format!(
                    "no free /{} subnet in the address pool {}: give one with --subnet",
                    spec.subnet_size,
                    pools.join(", ")
                ))
            })
    }
}
