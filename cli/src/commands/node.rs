//! `node ls | inspect | rm`.

use swarm_proto::control::{Empty, Reference, RemoveNodeRequest};

use super::{each, fresh, info, inspect};
use crate::args::{ListArgs, NodeCommand};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::output::{self, json};
use crate::rows;

pub(super) async fn run(client: Client, command: NodeCommand) -> Result<(), Error> {
    match command {
        NodeCommand::Ls(flags) => list(client, &flags).await,
        NodeCommand::Inspect { names } => {
            inspect("node", names, |name| {
                let mut client = client.clone();
                async move { client.control.inspect_node(ask(Reference { name })).await }
            })
            .await
        }
        NodeCommand::Rm { force, names } => {
            each(names, |name| {
                let mut client = client.clone();
                async move {
                    client.control.remove_node(ask(RemoveNodeRequest { name, force })).await?;
                    Ok(())
                }
            })
            .await
        }
        NodeCommand::Ps(flags) => super::tasks::of_nodes(client, flags).await,
    }
}

async fn list(mut client: Client, flags: &ListArgs) -> Result<(), Error> {
    let documents = fresh(client.control.list_nodes(ask(Empty {})).await?);
    let own_id = info::own_id(&mut client).await?;
    let nodes = json::parse_all("node", &documents)?;
    output::list(&rows::nodes(nodes, flags, &own_id)?, flags)
}
