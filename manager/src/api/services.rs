//! `service create | update | scale | ls | inspect | rm`.

use swarm_model::{NetworkAttachmentConfig, ServiceId, ServiceSpec};
use swarm_proto::control::{
    Changed, Document, Documents, ScaleServiceRequest, UpdateServiceRequest,
};
use swarm_state::Change;
use tonic::Status;

use super::{Control, document, resolve, shape, strict};
use crate::clock;

impl Control {
    pub(super) async fn create_service_now(&self, request: Document) -> Result<Changed, Status> {
        let mut spec: ServiceSpec = strict::spec(&request.json, "service")?;
        if spec.name.is_empty() {
            spec.name = format!("service-{}", &clock::new_id::<ServiceId>().as_str()[15..]);
        }
        swarm_model::service_spec(&spec).map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.resolve_networks(&mut spec).await?;
        if self.store.read().service_named(&spec.name).is_some() {
            return Err(Status::already_exists(format!("service {} already exists", spec.name)));
        }
        self.pin_image(&mut spec).await?;
        let id: ServiceId = clock::new_id();
        let change = Change::CreateService { id: id.clone(), spec: Box::new(spec) };
        let outcome = self.proposer.propose_one(change).await?;
        Ok(Changed { id: id.to_string(), revision: outcome.revision, warnings: vec![] })
    }

    pub(super) async fn update_service_now(
        &self,
        request: UpdateServiceRequest,
    ) -> Result<Changed, Status> {
        self.barrier().await?;
        let mut spec: ServiceSpec = strict::spec(&request.spec, "service")?;
        let service = resolve::service(&self.store.read(), &request.name)?;
        self.resolve_networks(&mut spec).await?;
        let before = &service.spec.task_template.container_spec.image;
        if spec.task_template.container_spec.image != *before {
            self.pin_image(&mut spec).await?;
        }
        let change = Change::UpdateService {
            id: service.id.clone(),
            version: request.version,
            spec: Box::new(spec),
        };
        let outcome = self.proposer.propose_one(change).await?;
        Ok(Changed { id: service.id.to_string(), revision: outcome.revision, warnings: vec![] })
    }

    pub(super) async fn scale_service_now(
        &self,
        request: ScaleServiceRequest,
    ) -> Result<Changed, Status> {
        self.barrier().await?;
        let service = resolve::service(&self.store.read(), &request.name)?;
        let change = Change::ScaleService { id: service.id.clone(), replicas: request.replicas };
        let outcome = self.proposer.propose_one(change).await?;
        Ok(Changed { id: service.id.to_string(), revision: outcome.revision, warnings: vec![] })
    }

    pub(super) async fn remove_service_now(&self, name: &str) -> Result<Changed, Status> {
        self.barrier().await?;
        let service = resolve::service(&self.store.read(), name)?;
        let change = Change::RemoveService { id: service.id.clone() };
        let outcome = self.proposer.propose_one(change).await?;
        Ok(Changed { id: service.id.to_string(), revision: outcome.revision, warnings: vec![] })
    }

    pub(super) async fn list_services_now(&self) -> Result<Documents, Status> {
        let stale = self.freshen().await;
        let state = self.store.read();
        let listed = state.services().filter(|service| !service.pending_delete);
        let json = listed.map(|s| document(&shape::service_with_status(&state, s))).collect();
        Ok(Documents { json, stale })
    }

    pub(super) async fn inspect_service_now(&self, name: &str) -> Result<Document, Status> {
        self.barrier().await?;
        let service = resolve::service(&self.store.read(), name)?;
        Ok(Document { json: document(&*service) })
    }

    /// Networks are stored by id; users give names.
    async fn resolve_networks(&self, spec: &mut ServiceSpec) -> Result<(), Status> {
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

    async fn pin_image(&self, spec: &mut ServiceSpec) -> Result<(), Status> {
        let container = &mut spec.task_template.container_spec;
        let pinned = self.images.pin(container.image.clone()).await;
        container.image = pinned.map_err(Status::invalid_argument)?;
        Ok(())
    }
}
