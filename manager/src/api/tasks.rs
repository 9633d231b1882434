//! Tasks: listed, inspected.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{NodeId, ServiceId, Task};

use super::types::Listed;
use super::{Api, resolve};
use crate::error::ApiError;

impl Api {
    /// The tasks of any of these services that are on any of these nodes; of all, if none is named.
    pub async fn list_tasks(
        &self,
        services: &[String],
        nodes: &[String],
    ) -> Result<Listed<Arc<Task>>, ApiError> {
        let stale = self.freshen().await;
        let state = self.store.read();
        let services: BTreeSet<ServiceId> = services
            .iter()
            .map(|name| resolve::service(&state, name).map(|service| service.id.clone()))
            .collect::<Result<_, _>>()?;
        let nodes: BTreeSet<NodeId> = nodes
            .iter()
            .map(|name| resolve::node(&state, &self.own_name(name)).map(|node| node.id.clone()))
            .collect::<Result<_, _>>()?;
        let tasks = state.tasks().filter(|task| {
            (services.is_empty() || services.contains(&task.service_id))
                && (nodes.is_empty()
                    || task.node_id.as_ref().is_some_and(|node| nodes.contains(node)))
        });
        Ok(Listed { items: tasks.cloned().collect(), stale })
    }

    /// The task meant.
    pub async fn inspect_task(&self, name: &str) -> Result<Arc<Task>, ApiError> {
        self.barrier().await?;
        resolve::task(&self.store.read(), name)
    }
}
