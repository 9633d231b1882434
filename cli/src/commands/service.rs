//! `service create | scale | ls | inspect | rm`.

use swarm_model::{
    ContainerSpec, EndpointSpec, ResourceRequirements, Resources, RestartPolicy, ServiceMode,
    ServiceSpec, TaskSpec,
};
use swarm_proto::control::{Document, Empty, Reference, ScaleServiceRequest};

use super::{all_done, each, fresh, inspect, warnings};
use crate::args::{CreateService, ListArgs, ServiceCommand, WaitArgs};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::follow::{self, Change};
use crate::output::{self, json};
use crate::rows;

pub(super) async fn run(client: Client, command: ServiceCommand) -> Result<(), Error> {
    match command {
        ServiceCommand::Create(flags) => create(client, *flags).await,
        ServiceCommand::Scale { wait, services } => scale(client, wait, services).await,
        ServiceCommand::Ls(flags) => list(client, &flags).await,
        ServiceCommand::Inspect { names } => {
            inspect("service", names, |name| {
                let mut client = client.clone();
                async move { client.control.inspect_service(ask(Reference { name })).await }
            })
            .await
        }
        ServiceCommand::Rm { names } => {
            each(names, |name| {
                let mut client = client.clone();
                async move {
                    client.control.remove_service(ask(Reference { name })).await?;
                    Ok(())
                }
            })
            .await
        }
        ServiceCommand::Update(flags) => super::update::run(client, &flags).await,
        ServiceCommand::Ps { ps, names } => super::tasks::of_services(client, ps, names).await,
        ServiceCommand::Logs(flags) => super::logs::show(client, flags).await,
    }
}

async fn create(mut client: Client, flags: CreateService) -> Result<(), Error> {
    let wait = flags.wait;
    // An empty name is made up, as none is.
    let name = flags.name.clone().filter(|name| !name.is_empty());
    // The model's types have no failing serializers.
    let spec = serde_json::to_vec(&spec(flags)).expect("a spec is valid JSON");
    let made =
        client.control.create_service(ask(Document { json: spec.into() })).await?.into_inner();
    output::line(&made.id)?;
    warnings(&made.warnings);
    let name = name.unwrap_or_else(|| made.id.clone());
    follow::wait(&client, &[Change { name, id: made.id, revision: made.revision }], wait).await
}

fn spec(flags: CreateService) -> ServiceSpec {
    let mut words = flags.image_and_args.into_iter();
    let container = ContainerSpec {
        // clap has seen to it that there is one.
        image: words.next().unwrap_or_default(),
        labels: Default::default(),
        command: flags.entrypoint.map(|words| words.0).unwrap_or_default(),
        args: words.collect(),
        env: flags.env.into_iter().flatten().collect(),
        dir: flags.workdir.unwrap_or_default(),
        user: flags.user.unwrap_or_default(),
        stop_grace_period: flags.stop_grace_period,
    };
    let default = RestartPolicy::default();
    let restart = RestartPolicy {
        condition: flags.restart_condition.map_or(default.condition, Into::into),
        delay: flags.restart_delay.unwrap_or(default.delay),
    };
    let limits = Resources {
        nano_cpus: flags.limit_cpu.unwrap_or_default(),
        memory_bytes: flags.limit_memory.unwrap_or_default(),
    };
    let mut spec = ServiceSpec {
        name: flags.name.unwrap_or_default(),
        labels: flags.label.into_iter().collect(),
        task_template: TaskSpec {
            container_spec: container,
            resources: ResourceRequirements { limits },
            restart_policy: restart,
            networks: flags.network.iter().map(|network| network.attachment()).collect(),
            force_update: 0,
        },
        endpoint_spec: EndpointSpec { mode: flags.endpoint_mode.into() },
        ..ServiceSpec::default()
    };
    spec.mode = ServiceMode::replicated(flags.replicas);
    spec
}

/// Sends all changes first, then waits for those that were taken.
async fn scale(
    mut client: Client,
    wait: WaitArgs,
    services: Vec<(String, u64)>,
) -> Result<(), Error> {
    let mut changes = Vec::new();
    let mut failed = Vec::new();
    for (name, replicas) in services {
        let request = ScaleServiceRequest { name: name.clone(), replicas };
        match client.control.scale_service(ask(request)).await {
            Ok(changed) => {
                let changed = changed.into_inner();
                output::line(&format!("{name} scaled to {replicas}"))?;
                warnings(&changed.warnings);
                changes.push(Change { name, id: changed.id, revision: changed.revision });
            }
            Err(status) => failed.push(Error::from(status)),
        }
    }
    if let Err(error) = follow::wait(&client, &changes, wait).await {
        failed.push(error);
    }
    all_done(failed)
}

async fn list(mut client: Client, flags: &ListArgs) -> Result<(), Error> {
    let documents = fresh(client.control.list_services(ask(Empty {})).await?);
    let services = json::parse_all("service", &documents)?;
    output::list(&rows::services(services, flags)?, flags)
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command, ServiceCommand};
    use serde_json::json;

    fn spec(line: &str) -> serde_json::Value {
        let Command::Service(ServiceCommand::Create(flags)) = Cli::command_of(line).unwrap() else {
            panic!("not a service create")
        };
        serde_json::to_value(super::spec(*flags)).unwrap()
    }

    #[test]
    fn flags_become_a_spec() {
        let made = spec(
            "swarmctl service create --name web --network name=net,alias=a --replicas 3 --env A=1 --label x=y \
             --limit-cpu 0.5 --limit-memory 64m --restart-condition on-failure --restart-delay 1s \
             --stop-grace-period 2s --endpoint-mode dnsrr --entrypoint 'sh -c' --workdir /w --user 1:2 nginx one two",
        );
        assert_eq!(
            made,
            json!({
                "Name": "web", "Labels": {"x": "y"},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "nginx", "Labels": {}, "Command": ["sh", "-c"], "Args": ["one", "two"],
                                      "Env": ["A=1"], "Dir": "/w", "User": "1:2", "StopGracePeriod": 2_000_000_000u64},
                    "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20}},
                    "RestartPolicy": {"Condition": "on-failure", "Delay": 1_000_000_000},
                    "Networks": [{"Target": "net", "Aliases": ["a"]}],
                    "ForceUpdate": 0
                },
                "Mode": {"Replicated": {"Replicas": 3}},
                "EndpointSpec": {"Mode": "dnsrr"}
            })
        );
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        let made = spec("swarmctl service create nginx");
        let default = serde_json::to_value(swarm_model::ServiceSpec::default()).unwrap();
        assert_eq!(made["TaskTemplate"]["RestartPolicy"], default["TaskTemplate"]["RestartPolicy"]);
        assert_eq!(made["Mode"], default["Mode"]);
        assert_eq!(made["EndpointSpec"], default["EndpointSpec"]);
    }
}
