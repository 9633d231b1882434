//! Services: created, updated, scaled, listed, inspected, removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{NetworkAttachmentConfig, Service, ServiceId, ServiceSpec, Version};
use swarm_state::{Change, State};

use super::types::{Changed, Listed, ServiceOverview};
use super::{Api, resolve};
use crate::clock;
use crate::error::ApiError;

impl Api {
    /// Creates a service. Without a name it is given one; networks may be meant by name.
    pub async fn create_service(&self, mut spec: ServiceSpec) -> Result<Changed, ApiError> {
        if spec.name.is_empty() {
            spec.name = format!("service-{}", &clock::new_id::<ServiceId>().as_str()[15..]);
        }
        swarm_model::service_spec(&spec).map_err(|e| ApiError::Invalid(e.to_string()))?;
        self.resolve_networks(&mut spec).await?;
        if self.store.read().service_named(&spec.name).is_some() {
            return Err(ApiError::Exists(format!("service {} already exists", spec.name)));
        }
        self.pin_image(&mut spec).await?;
        let id: ServiceId = clock::new_id();
        self.change_service(id, |id| Change::CreateService { id, spec: Box::new(spec) }).await
    }

    /// Replaces a service's spec, if it has not changed since `version`.
    pub async fn update_service(
        &self,
        name: &str,
        version: Version,
        mut spec: ServiceSpec,
    ) -> Result<Changed, ApiError> {
        let service = self.inspect_service(name).await?;
        self.resolve_networks(&mut spec).await?;
        let before = &service.spec.task_template.container_spec.image;
        if spec.task_template.container_spec.image != *before {
            self.pin_image(&mut spec).await?;
        }
        let version = version.index;
        let update = |id| Change::UpdateService { id, version, spec: Box::new(spec) };
        self.change_service(service.id.clone(), update).await
    }

    /// Changes how many tasks are wanted, whatever else changed meanwhile.
    pub async fn scale_service(&self, name: &str, replicas: u64) -> Result<Changed, ApiError> {
        let service = self.inspect_service(name).await?;
        let scale = |id| Change::ScaleService { id, replicas };
        self.change_service(service.id.clone(), scale).await
    }

    /// Removes a service.
    pub async fn remove_service(&self, name: &str) -> Result<Changed, ApiError> {
        let service = self.inspect_service(name).await?;
        self.change_service(service.id.clone(), |id| Change::RemoveService { id }).await
    }

    /// All services that are not being removed.
    pub async fn list_services(&self) -> Listed<ServiceOverview> {
        let stale = self.freshen().await;
        let state = self.store.read();
        let listed = state.services().filter(|service| !service.pending_delete);
        Listed { items: listed.map(|service| overview(&state, service)).collect(), stale }
    }

    /// The service meant.
    pub async fn inspect_service(&self, name: &str) -> Result<Arc<Service>, ApiError> {
        self.barrier().await?;
        resolve::service(&self.store.read(), name)
    }

    async fn change_service(
        &self,
        id: ServiceId,
        change: impl FnOnce(ServiceId) -> Change,
    ) -> Result<Changed, ApiError> {
        let revision = self.proposer.propose_one(change(id.clone())).await?.revision;
        Ok(Changed { id: id.to_string(), revision, warnings: vec![] })
    }

    /// Networks are stored by id; users give names.
    async fn resolve_networks(&self, spec: &mut ServiceSpec) -> Result<(), ApiError> {
        if spec.task_template.networks.is_empty() {
            return Ok(());
        }
        self.barrier().await?;
        let state = self.store.read();
        for NetworkAttachmentConfig { target, .. } in &mut spec.task_template.networks {
            *target = resolve::network(&state, target.as_str())?.id.clone();
        }
        Ok(())
    }

    async fn pin_image(&self, spec: &mut ServiceSpec) -> Result<(), ApiError> {
        let container = &mut spec.task_template.container_spec;
        let pinned = self.images.pin(container.image.clone()).await;
        container.image = pinned.map_err(ApiError::Invalid)?;
        Ok(())
    }
}

fn overview(state: &State, service: &Arc<Service>) -> ServiceOverview {
    // A slot that is handed over has two tasks for a moment.
    let running: BTreeSet<u64> = state
        .tasks_of(&service.id)
        .filter(|task| task.is_wanted() && state.runs(task))
        .map(|task| task.slot)
        .collect();
    ServiceOverview { service: Arc::clone(service), running: running.len() as u64 }
}
