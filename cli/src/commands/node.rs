//! `node ls | inspect | update | promote | demote | rm`.

use swarm_model::Node;
use swarm_proto::control::{Empty, Reference, RemoveNodeRequest, UpdateNodeRequest};

use super::{all_done, each, fresh, info, inspect, warnings};
use crate::args::{ListArgs, NodeCommand, Role, UpdateNode};
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
        NodeCommand::Update(flags) => update(client, flags).await,
        NodeCommand::Promote { names } => set_role(client, names, Role::Manager).await,
        NodeCommand::Demote { names } => set_role(client, names, Role::Worker).await,
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

async fn update(mut client: Client, flags: UpdateNode) -> Result<(), Error> {
    let request = UpdateNodeRequest {
        name: flags.name.clone(),
        availability: flags.availability.map(|a| a.as_str().to_owned()).unwrap_or_default(),
        role: flags.role.map(|role| role.as_str().to_owned()).unwrap_or_default(),
        label_add: flags.label_add.into_iter().collect(),
        label_rm: flags.label_rm,
    };
    if request == (UpdateNodeRequest { name: flags.name.clone(), ..Default::default() }) {
        let text = "nothing to change: use --availability, --role, --label-add or --label-rm";
        return Err(Error::Usage(text.into()));
    }
    let changed = client.control.update_node(ask(request)).await?.into_inner();
    warnings(&changed.warnings);
    output::line(&flags.name)
}

/// `promote` and `demote`, in Docker's words.
async fn set_role(client: Client, names: Vec<String>, role: Role) -> Result<(), Error> {
    let mut failed = Vec::new();
    for name in names {
        match set_role_of(client.clone(), &name, role).await {
            Ok(said) => output::line(&said)?,
            Err(error) => {
                let change = match role {
                    Role::Manager => "promoted",
                    Role::Worker => "demoted",
                };
                failed.push(Error::Failed(format!("node {name} was not {change}: {error}")));
            }
        }
    }
    all_done(failed)
}

async fn set_role_of(mut client: Client, name: &str, role: Role) -> Result<String, Error> {
    let reference = Reference { name: name.to_owned() };
    let document = client.control.inspect_node(ask(reference)).await?.into_inner();
    let node: Node = json::parse("node", &document.json)?;
    match role {
        Role::Manager if node.is_manager() => {
            return Ok(format!("Node {name} is already a manager."));
        }
        // One that votes as yet was left on its way: asked for again, that is completed.
        Role::Worker if !node.is_manager() && node.manager_status.is_none() => {
            return Ok(format!("Node {name} is already a worker."));
        }
        _ => {}
    }
    let request = UpdateNodeRequest {
        name: node.id.to_string(),
        role: role.as_str().to_owned(),
        ..UpdateNodeRequest::default()
    };
    let changed = client.control.update_node(ask(request)).await?.into_inner();
    warnings(&changed.warnings);
    Ok(match role {
        Role::Manager => format!("Node {name} promoted to a manager in the swarm."),
        Role::Worker => format!("Manager {name} demoted in the swarm."),
    })
}

async fn list(mut client: Client, flags: &ListArgs) -> Result<(), Error> {
    let documents = fresh(client.control.list_nodes(ask(Empty {})).await?);
    let own_id = info::own_id(&mut client).await?;
    let nodes = json::parse_all("node", &documents)?;
    output::list(&rows::nodes(nodes, flags, &own_id)?, flags)
}
