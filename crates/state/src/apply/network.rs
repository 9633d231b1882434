//! Networks are created, with a VNI and a subnet of their own, and removed once nothing uses them.

use swarm_model::{
    ENCRYPTED_OPTION, IpamConfig, Meta, Network, NetworkId, NetworkSpec, network_spec,
};

use super::Context;
use crate::command::{Rejected, Touched};
use crate::ipam::AddressPool;
use crate::tables::{FIRST_VNI, LAST_VNI, State};

impl State {
    pub(super) fn create_network(
        &mut self,
        cx: &mut Context,
        id: NetworkId,
        spec: NetworkSpec,
    ) -> Result<(), Rejected> {
        network_spec(&spec).map_err(|e| Rejected::Invalid(e.to_string()))?;
        if self.network_named(&spec.name).is_some() || self.network(&id).is_some() {
            return Err(Rejected::Exists(format!("network {}", spec.name)));
        }
        let encrypted = spec.options.contains_key(ENCRYPTED_OPTION);
        if encrypted && self.encrypted_port().is_none() {
            return Err(Rejected::Invalid(
                "a network cannot be encrypted in this swarm: its data path port is the last one, and \
                 encrypted networks use the next"
                    .into(),
            ));
        }
        let subnet = self.choose_subnet(&spec)?;
        let config = spec.ipam.config.first().cloned().unwrap_or_default();
        let IpamConfig { ip_range, gateway, .. } = config;
        let gateway = gateway.or(subnet.hosts().next()).unwrap_or(subnet.network());
        let ip_range = ip_range.unwrap_or(subnet);
        let pool = AddressPool::new(subnet, ip_range, gateway)
            .map_err(|e| Rejected::Invalid(e.to_string()))?;
        let network = Network {
            id,
            meta: Meta::created(cx.revision, cx.now),
            vni: self.allocate_vni()?,
            subnet,
            gateway,
            ip_range,
            spec,
        };
        cx.touch(Touched::Network(network.id.clone()));
        self.put_network(network, pool);
        Ok(())
    }

    /// Next fit, as for addresses: a VNI that was just freed may still be known to a cut-off node.
    fn allocate_vni(&mut self) -> Result<u32, Rejected> {
        let after = |vni| if vni == LAST_VNI { FIRST_VNI } else { vni + 1 };
        if self.vnis.len() > (LAST_VNI - FIRST_VNI) as usize {
            return Err(Rejected::Exhausted("no free VXLAN network identifier".into()));
        }
        let mut vni = self.next_vni;
        while self.vnis.contains(&vni) {
            vni = after(vni);
        }
        self.next_vni = after(vni);
        Ok(vni)
    }

    pub(super) fn remove_network(
        &mut self,
        cx: &mut Context,
        id: &NetworkId,
    ) -> Result<(), Rejected> {
        let network =
            self.network(id).ok_or_else(|| Rejected::NotFound(format!("network {id}")))?;
        let mut users: Vec<&str> =
            self.services_in(id).map(|service| service.spec.name.as_str()).collect();
        users.extend(self.tasks_in(id).map(|task| task.service_name.as_str()));
        users.sort_unstable();
        users.dedup();
        if !users.is_empty() {
            return Err(Rejected::InUse(format!(
                "network {} is in use by {}",
                network.spec.name,
                users.join(", ")
            )));
        }
        self.drop_network(id);
        cx.touch(Touched::Network(id.clone()));
        Ok(())
    }
}
