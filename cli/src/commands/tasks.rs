//! Lists of tasks: `service ps`, `node ps`, `task ls`; and `task inspect`.

use std::collections::BTreeMap;

use swarm_model::{Node, NodeId};
use swarm_proto::control::{Empty, ListTasksRequest, Reference};

use super::fresh;
use crate::args::{NodePs, PsArgs};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::filter::Filters;
use crate::output::{self, json, time};
use crate::rows::{self, TASK_FILTERS, TaskList};

pub(super) async fn of_services(
    client: Client,
    flags: PsArgs,
    services: Vec<String>,
) -> Result<(), Error> {
    let filters = filters(&flags, &["node"])?;
    let nodes = filters.values("node").to_vec();
    show(client, &flags, &filters, ListTasksRequest { services, nodes }).await
}

pub(super) async fn of_nodes(client: Client, flags: NodePs) -> Result<(), Error> {
    let filters = filters(&flags.ps, &[])?;
    let nodes = if flags.names.is_empty() { vec!["self".to_owned()] } else { flags.names };
    show(client, &flags.ps, &filters, ListTasksRequest { services: vec![], nodes }).await
}

pub(super) async fn all(client: Client, flags: PsArgs) -> Result<(), Error> {
    let filters = filters(&flags, &["node", "service"])?;
    let services = filters.values("service").to_vec();
    let nodes = filters.values("node").to_vec();
    show(client, &flags, &filters, ListTasksRequest { services, nodes }).await
}

pub(super) async fn inspect(client: Client, names: Vec<String>) -> Result<(), Error> {
    super::inspect("task", names, |name| {
        let mut client = client.clone();
        async move { client.control.inspect_task(ask(Reference { name })).await }
    })
    .await
}

fn filters(flags: &PsArgs, more: &[&str]) -> Result<Filters, Error> {
    let known = [TASK_FILTERS, more].concat();
    let filters = Filters::new(&flags.list.filter, &known)?;
    filters.check("desired-state", &["accepted", "ready", "running", "shutdown"])?;
    Ok(filters)
}

async fn show(
    mut client: Client,
    flags: &PsArgs,
    filters: &Filters,
    request: ListTasksRequest,
) -> Result<(), Error> {
    let documents = fresh(client.control.list_tasks(ask(request)).await?);
    let tasks = json::parse_all("task", &documents)?;
    let hostnames = if flags.no_resolve { BTreeMap::new() } else { hostnames(&mut client).await? };
    let how = TaskList { list: &flags.list, filters, hostnames: &hostnames, now: time::now() };
    output::list(&rows::tasks(tasks, &how), &flags.list)
}

/// Host names by node id.
pub(super) async fn hostnames(client: &mut Client) -> Result<BTreeMap<NodeId, String>, Error> {
    let documents = client.control.list_nodes(ask(Empty {})).await?.into_inner();
    let nodes: Vec<Node> = json::parse_all("node", &documents.json)?;
    Ok(nodes.into_iter().map(|node| (node.id, node.description.hostname)).collect())
}
