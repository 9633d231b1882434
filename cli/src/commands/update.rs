//! `service update`: takes the spec as it is, applies the flags, and puts it back if nobody else was faster.

use std::time::Duration;

use swarm_model::{NetworkAttachmentConfig, NetworkId, Service, ServiceMode, ServiceSpec};
use swarm_proto::control::{InspectNetworkRequest, Reference, UpdateServiceRequest};

use super::warnings;
use crate::args::UpdateService;
use crate::client::{Client, ask};
use crate::error::Error;
use crate::follow::{self, Change};
use crate::output::{self, json};

/// How often to begin anew when the service was changed meanwhile.
const TRIES: u32 = 10;

pub(super) async fn run(mut client: Client, flags: &UpdateService) -> Result<(), Error> {
    let add = resolve_added(&mut client, flags).await?;
    let remove = resolve_removed(&mut client, flags).await?;
    let mut tries = 0;
    let changed = loop {
        tries += 1;
        match put(&mut client, flags, &add, &remove).await {
            Err(Error::Remote(status))
                if status.code() == tonic::Code::Aborted && tries < TRIES =>
            {
                tokio::time::sleep(Duration::from_millis(20) * tries).await; // somebody else changes it, and would again: let them finish
            }
            other => break other?,
        }
    };
    output::line(&flags.name)?;
    follow::wait(&client, &[changed], flags.wait).await
}

/// One try.
async fn put(
    client: &mut Client,
    flags: &UpdateService,
    add: &[NetworkAttachmentConfig],
    remove: &[NetworkId],
) -> Result<Change, Error> {
    let reference = Reference { name: flags.name.clone() };
    let document = client.control.inspect_service(ask(reference)).await?.into_inner();
    let service: Service = json::parse("service", &document.json)?;
    let mut spec = service.spec;
    change_container(&mut spec, flags);
    change_task(&mut spec, flags);
    change_networks(&mut spec, add, remove);
    let request = UpdateServiceRequest {
        name: service.id.to_string(),
        version: service.meta.version.index,
        // The model's types have no failing serializers.
        spec: serde_json::to_vec(&spec).expect("a spec is valid JSON").into(),
    };
    let changed = client.control.update_service(ask(request)).await?.into_inner();
    warnings(&changed.warnings);
    Ok(Change { name: flags.name.clone(), id: changed.id, revision: changed.revision })
}

async fn network_id(client: &mut Client, name: &str) -> Result<NetworkId, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Network {
        id: NetworkId,
    }
    let request = InspectNetworkRequest { name: name.to_owned(), verbose: false };
    let document = client.control.inspect_network(ask(request)).await?.into_inner();
    Ok(json::parse::<Network>("network", &document.json)?.id)
}

async fn resolve_added(
    client: &mut Client,
    flags: &UpdateService,
) -> Result<Vec<NetworkAttachmentConfig>, Error> {
    let mut added = Vec::new();
    for network in &flags.network_add {
        let target = network_id(client, &network.target).await?;
        added.push(NetworkAttachmentConfig { target, aliases: network.aliases.clone() });
    }
    Ok(added)
}

async fn resolve_removed(
    client: &mut Client,
    flags: &UpdateService,
) -> Result<Vec<NetworkId>, Error> {
    let mut removed = Vec::new();
    for name in &flags.network_rm {
        removed.push(network_id(client, name).await?);
    }
    Ok(removed)
}

fn change_container(spec: &mut ServiceSpec, flags: &UpdateService) {
    let container = &mut spec.task_template.container_spec;
    set(&mut container.image, flags.image.as_ref());
    set(&mut container.dir, flags.workdir.as_ref());
    set(&mut container.user, flags.user.as_ref());
    set(&mut container.args, flags.args.as_ref().map(|words| &words.0));
    set(&mut container.command, flags.entrypoint.as_ref().map(|words| &words.0));
    if flags.stop_grace_period.is_some() {
        container.stop_grace_period = flags.stop_grace_period;
    }
    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    container.env.retain(|variable| !flags.env_rm.contains(&name_of(variable)));
    for added in flags.env_add.iter().flatten() {
        match container.env.iter_mut().find(|variable| name_of(variable) == name_of(added)) {
            Some(variable) => variable.clone_from(added),
            None => container.env.push(added.clone()),
        }
    }
}

fn change_task(spec: &mut ServiceSpec, flags: &UpdateService) {
    let replicas = flags.replicas.map(ServiceMode::replicated);
    set(&mut spec.mode, replicas.as_ref());
    if let Some(mode) = flags.endpoint_mode {
        spec.endpoint_spec.mode = mode.into();
    }
    spec.labels.retain(|key, _| !flags.label_rm.contains(key));
    spec.labels.extend(flags.label_add.iter().cloned());
    let task = &mut spec.task_template;
    set(&mut task.resources.limits.nano_cpus, flags.limit_cpu.as_ref());
    set(&mut task.resources.limits.memory_bytes, flags.limit_memory.as_ref());
    if let Some(condition) = flags.restart_condition {
        task.restart_policy.condition = condition.into();
    }
    set(&mut task.restart_policy.delay, flags.restart_delay.as_ref());
    if flags.force {
        task.force_update += 1;
    }
}

/// A network that is attached already gets the aliases now given.
fn change_networks(spec: &mut ServiceSpec, add: &[NetworkAttachmentConfig], remove: &[NetworkId]) {
    let networks = &mut spec.task_template.networks;
    networks.retain(|network| !remove.contains(&network.target));
    for added in add {
        match networks.iter_mut().find(|network| network.target == added.target) {
            Some(network) => network.clone_from(added),
            None => networks.push(added.clone()),
        }
    }
}

fn set<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, ServiceCommand};

    fn flags(line: &str) -> Box<UpdateService> {
        let line = format!("swarmctl service update {line} web");
        let Command::Service(ServiceCommand::Update(flags)) = Cli::command_of(&line).unwrap()
        else {
            panic!("not a service update")
        };
        flags
    }

    fn before() -> ServiceSpec {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        let container = &mut spec.task_template.container_spec;
        container.image = "nginx:1".into();
        container.env = vec!["A=1".into(), "B=2".into()];
        container.args = vec!["old".into()];
        spec.labels.insert("old".into(), "1".into());
        spec.task_template.networks =
            vec![NetworkAttachmentConfig { target: "n1".into(), aliases: vec![] }];
        spec
    }

    fn after(line: &str) -> ServiceSpec {
        let (mut spec, flags) = (before(), flags(line));
        change_container(&mut spec, &flags);
        change_task(&mut spec, &flags);
        spec
    }

    #[test]
    fn without_flags_nothing_changes() {
        assert_eq!(after(""), before());
    }

    #[test]
    fn variables_and_labels_are_set_and_removed() {
        let spec = after("--env-add B=3 --env-add C=4 --env-rm A --label-add new=2 --label-rm old");
        assert_eq!(spec.task_template.container_spec.env, ["B=3", "C=4"]);
        assert_eq!(spec.labels.into_iter().collect::<Vec<_>>(), [("new".into(), "2".into())]);
    }

    #[test]
    fn the_rest_is_replaced() {
        let spec = after(
            "--image x --args '--port 80' --replicas 0 --limit-memory 64m --restart-condition none --force",
        );
        let mut wanted = before();
        wanted.task_template.container_spec.image = "x".into();
        wanted.task_template.container_spec.args = vec!["--port".into(), "80".into()];
        wanted.mode = ServiceMode::replicated(0);
        wanted.task_template.resources.limits.memory_bytes = 64 << 20;
        wanted.task_template.restart_policy.condition = swarm_model::RestartCondition::None;
        wanted.task_template.force_update = 1;
        assert_eq!(spec, wanted);
    }

    #[test]
    fn networks_come_and_go() {
        let mut spec = before();
        let attachment = |id: &str, alias: &str| NetworkAttachmentConfig {
            target: id.into(),
            aliases: vec![alias.to_owned()],
        };
        change_networks(&mut spec, &[attachment("n1", "a"), attachment("n2", "b")], &[]);
        let networks = &spec.task_template.networks;
        assert_eq!(networks, &[attachment("n1", "a"), attachment("n2", "b")]);
        change_networks(&mut spec, &[], &["n1".into()]);
        assert_eq!(spec.task_template.networks, [attachment("n2", "b")]);
    }
}
