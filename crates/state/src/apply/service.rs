//! Services are created, changed and removed; their virtual addresses are allocated and given back.

use std::net::IpAddr;

use ipnet::IpNet;
use swarm_model::{
    Endpoint, EndpointMode, Meta, Network, NetworkId, Service, ServiceId, ServiceMode, ServiceSpec,
    UpdateState, UpdateStatus, VirtualIp, service_spec,
};

use super::Context;
use crate::command::{Rejected, Touched};
use crate::tables::{State, attached};

impl State {
    pub(super) fn create_service(
        &mut self,
        cx: &mut Context,
        id: ServiceId,
        spec: ServiceSpec,
    ) -> Result<(), Rejected> {
        self.check_spec(&spec)?;
        if self.service_named(&spec.name).is_some() || self.service(&id).is_some() {
            return Err(Rejected::Exists(format!("service {}", spec.name)));
        }
        let endpoint = self.allocate_endpoint(&spec, Endpoint::default())?;
        cx.touch(Touched::Service(id.clone()));
        self.put_service(Service {
            id,
            meta: Meta::created(cx.revision, cx.now),
            spec,
            previous_spec: None,
            endpoint,
            update_status: None,
            pending_delete: false,
            silent: false,
        });
        Ok(())
    }

    pub(super) fn update_service(
        &mut self,
        cx: &mut Context,
        id: &ServiceId,
        version: u64,
        spec: ServiceSpec,
    ) -> Result<(), Rejected> {
        self.check_spec(&spec)?;
        let mut service = self.changeable(id)?;
        if service.meta.version.index != version {
            return Err(Rejected::OutOfDate(format!("service {}", service.spec.name)));
        }
        if service.spec.name != spec.name {
            return Err(Rejected::Invalid("a service cannot be renamed".into()));
        }
        let before = attached(&service);
        service.endpoint = self.allocate_endpoint(&spec, service.endpoint)?;
        if service.spec.task_template != spec.task_template {
            service.update_status = Some(UpdateStatus {
                state: UpdateState::Updating,
                started_at: cx.now,
                completed_at: None,
                message: "update in progress".into(),
            });
        }
        // Other tasks, or the same ones that are given another time, are waited for again.
        service.silent &= service.spec.task_template == spec.task_template
            && service.spec.ready_timeout() == spec.ready_timeout();
        service.previous_spec = Some(std::mem::replace(&mut service.spec, spec));
        // Who hears of this later finds no trace of the service in the networks it left.
        for left in before.difference(&attached(&service)) {
            cx.touch(Touched::Network(left.clone()));
        }
        self.save_service(cx, service);
        Ok(())
    }

    pub(super) fn scale_service(
        &mut self,
        cx: &mut Context,
        id: &ServiceId,
        replicas: u64,
    ) -> Result<(), Rejected> {
        let mut service = self.changeable(id)?;
        let mut spec = service.spec.clone();
        spec.mode = ServiceMode::replicated(replicas);
        self.check_spec(&spec)?;
        service.previous_spec = Some(std::mem::replace(&mut service.spec, spec));
        self.save_service(cx, service);
        Ok(())
    }

    pub(super) fn remove_service(
        &mut self,
        cx: &mut Context,
        id: &ServiceId,
    ) -> Result<(), Rejected> {
        let mut service = self.changeable(id)?;
        service.pending_delete = true;
        self.save_service(cx, service);
        Ok(())
    }

    pub(super) fn purge_service(
        &mut self,
        cx: &mut Context,
        id: &ServiceId,
    ) -> Result<(), Rejected> {
        let service = self.service(id).ok_or_else(|| no_service(id))?.clone();
        if !service.pending_delete || self.tasks_of(id).any(|task| !task.is_finished()) {
            return Err(Rejected::InUse(format!("service {} has tasks", service.spec.name)));
        }
        let tasks: Vec<_> = self.tasks_of(id).map(|task| task.id.clone()).collect();
        for task in tasks {
            self.forget_task(cx, &task);
        }
        for vip in &service.endpoint.virtual_ips {
            self.release(&vip.network_id, vip.addr.addr());
        }
        self.drop_service(id);
        for network in attached(&service) {
            cx.touch(Touched::Network(network));
        }
        cx.touch(Touched::Service(id.clone()));
        Ok(())
    }

    pub(super) fn set_update_status(
        &mut self,
        cx: &mut Context,
        id: &ServiceId,
        status: UpdateStatus,
    ) -> Result<(), Rejected> {
        let mut service = self.changeable(id)?;
        // What is said of an update is not said of the one that the user began meanwhile.
        if service.update_status.as_ref().is_some_and(|now| now.started_at != status.started_at) {
            return Err(Rejected::OutOfDate(format!("service {}", service.spec.name)));
        }
        service.update_status = Some(status);
        self.save_service(cx, service);
        Ok(())
    }

    fn changeable(&self, id: &ServiceId) -> Result<Service, Rejected> {
        let service = self.service(id).filter(|service| !service.pending_delete);
        service.map(|service| (**service).clone()).ok_or_else(|| no_service(id))
    }

    pub(super) fn save_service(&mut self, cx: &mut Context, mut service: Service) {
        service.meta.touch(cx.revision, cx.now);
        cx.touch(Touched::Service(service.id.clone()));
        self.put_service(service);
    }

    fn check_spec(&self, spec: &ServiceSpec) -> Result<(), Rejected> {
        service_spec(spec).map_err(|e| Rejected::Invalid(e.to_string()))?;
        let targets: Vec<&NetworkId> =
            spec.task_template.networks.iter().map(|network| &network.target).collect();
        for (at, target) in targets.iter().enumerate() {
            if self.network(target).is_none() {
                return Err(Rejected::NotFound(format!("network {target}")));
            }
            if targets[..at].contains(target) {
                return Err(Rejected::Invalid("a network is given twice".into()));
            }
        }
        Ok(())
    }

    /// Makes the virtual addresses those of `spec`: keeps what stays, gives back what goes. On an
    /// error nothing has changed.
    fn allocate_endpoint(
        &mut self,
        spec: &ServiceSpec,
        current: Endpoint,
    ) -> Result<Endpoint, Rejected> {
        let vip_mode = spec.endpoint_spec.mode == EndpointMode::Vip;
        let wanted: Vec<&NetworkId> =
            spec.task_template.networks.iter().map(|n| &n.target).filter(|_| vip_mode).collect();
        let (mut kept, gone): (Vec<VirtualIp>, Vec<VirtualIp>) =
            current.virtual_ips.into_iter().partition(|vip| wanted.contains(&&vip.network_id));
        let missing = wanted.into_iter().filter(|id| kept.iter().all(|v| v.network_id != **id));
        let missing: Vec<NetworkId> = missing.cloned().collect();
        for (network, addr) in self.allocate_all(&missing)? {
            kept.push(VirtualIp { network_id: network, addr });
        }
        for vip in gone {
            self.release(&vip.network_id, vip.addr.addr());
        }
        Ok(Endpoint { spec: spec.endpoint_spec.clone(), virtual_ips: kept })
    }

    /// Takes an address of each of these different networks: of all or of none, without a trace.
    pub(super) fn allocate_all(
        &mut self,
        networks: &[NetworkId],
    ) -> Result<Vec<(NetworkId, IpNet)>, Rejected> {
        for id in networks {
            let network = self.network(id).ok_or_else(|| no_network(id))?;
            if self.free_addresses(id) == 0 {
                return Err(no_free_address(network));
            }
        }
        networks.iter().map(|id| Ok((id.clone(), self.allocate(id)?))).collect()
    }

    fn allocate(&mut self, id: &NetworkId) -> Result<IpNet, Rejected> {
        let network = self.networks.get(id).ok_or_else(|| no_network(id))?;
        let pool = self.pools.get_mut(id).ok_or_else(|| no_network(id))?;
        let addr = pool.allocate().ok_or_else(|| no_free_address(network))?;
        Ok(IpNet::new(addr, network.subnet.prefix_len()).unwrap_or_else(|_| addr.into()))
    }

    /// Gives an address of a network back.
    pub(super) fn release(&mut self, network: &NetworkId, addr: IpAddr) {
        if let Some(pool) = self.pools.get_mut(network) {
            pool.release(addr);
        }
    }
}

fn no_network(id: &NetworkId) -> Rejected {
    Rejected::NotFound(format!("network {id}"))
}

fn no_free_address(network: &Network) -> Rejected {
    let (name, range) = (&network.spec.name, network.ip_range);
    Rejected::Exhausted(format!("no free address in network {name} ({range})"))
}

pub(super) fn no_service(id: &ServiceId) -> Rejected {
    Rejected::NotFound(format!("service {id}"))
}
