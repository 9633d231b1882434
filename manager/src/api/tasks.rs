//! `task ls | inspect`, `service ps`, `node ps`.

use std::collections::BTreeSet;

use swarm_model::{NodeId, ServiceId};
use swarm_proto::control::{Document, Documents, ListTasksRequest};
use tonic::Status;

use super::{Control, document, resolve};

impl Control {
    pub(super) async fn list_tasks_now(
        &self,
        request: ListTasksRequest,
    ) -> Result<Documents, Status> {
        let stale = self.freshen().await;
        let state = self.store.read();
        let services: BTreeSet<ServiceId> = request
            .services
            .iter()
            .map(|name| resolve::service(&state, name).map(|service| service.id.clone()))
            .collect::<Result<_, _>>()?;
        let nodes: BTreeSet<NodeId> = request
            .nodes
            .iter()
            .map(|name| resolve::node(&state, &self.own_name(name)).map(|node| node.id.clone()))
            .collect::<Result<_, _>>()?;
        let tasks = state.tasks().filter(|task| {
            (services.is_empty() || services.contains(&task.service_id))
                && (nodes.is_empty()
                    || task.node_id.as_ref().is_some_and(|node| nodes.contains(node)))
        });
        Ok(Documents { json: tasks.map(|task| document(&**task)).collect(), stale })
    }

    pub(super) async fn inspect_task_now(&self, name: &str) -> Result<Document, Status> {
        self.barrier().await?;
        let task = resolve::task(&self.store.read(), name)?;
        Ok(Document { json: document(&*task) })
    }
}
