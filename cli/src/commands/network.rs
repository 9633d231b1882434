//! `network create | ls | inspect | rm | prune`.

use std::io::{BufRead, IsTerminal, Write};

use swarm_model::{Ipam, IpamConfig, NetworkSpec};
use swarm_proto::control::{Document, Empty, InspectNetworkRequest, Reference};

use super::{each, fresh, inspect, warnings};
use crate::args::{CreateNetwork, ListArgs, NetworkCommand};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::output::{self, json};
use crate::rows;

pub(super) async fn run(client: Client, command: NetworkCommand) -> Result<(), Error> {
    match command {
        NetworkCommand::Create(flags) => create(client, flags).await,
        NetworkCommand::Ls(flags) => list(client, &flags).await,
        NetworkCommand::Inspect(flags) => {
            let verbose = flags.verbose;
            inspect("network", flags.names, |name| {
                let mut client = client.clone();
                async move {
                    let request = InspectNetworkRequest { name, verbose };
                    client.control.inspect_network(ask(request)).await
                }
            })
            .await
        }
        NetworkCommand::Rm { names } => {
            each(names, |name| {
                let mut client = client.clone();
                async move {
                    client.control.remove_network(ask(Reference { name })).await?;
                    Ok(())
                }
            })
            .await
        }
        NetworkCommand::Prune { force } => prune(client, force).await,
    }
}

async fn create(mut client: Client, flags: CreateNetwork) -> Result<(), Error> {
    // The model's types have no failing serializers.
    let spec = serde_json::to_vec(&spec(flags)).expect("a spec is valid JSON");
    let made =
        client.control.create_network(ask(Document { json: spec.into() })).await?.into_inner();
    warnings(&made.warnings);
    output::line(&made.id)
}

fn spec(flags: CreateNetwork) -> NetworkSpec {
    let config =
        IpamConfig { subnet: flags.subnet, ip_range: flags.ip_range, gateway: flags.gateway };
    let config = if config == IpamConfig::default() { vec![] } else { vec![config] };
    NetworkSpec {
        name: flags.name,
        labels: flags.label.into_iter().collect(),
        driver: flags.driver,
        internal: flags.internal,
        options: flags.opt.into_iter().collect(),
        ipam: Ipam { driver: "default".to_owned(), config },
    }
}

async fn list(mut client: Client, flags: &ListArgs) -> Result<(), Error> {
    let documents = fresh(client.control.list_networks(ask(Empty {})).await?);
    let networks = json::parse_all("network", &documents)?;
    output::list(&rows::networks(networks, flags)?, flags)
}

async fn prune(mut client: Client, force: bool) -> Result<(), Error> {
    if !force && !confirmed()? {
        return Ok(());
    }
    let documents = fresh(client.control.prune_networks(ask(Empty {})).await?);
    let mut names: Vec<String> = json::parse_all("network name", &documents)?;
    names.sort_by(|a, b| crate::natural::compare(a, b));
    if names.is_empty() {
        return Ok(());
    }
    output::line(&format!("Deleted Networks:\n{}\n", names.join("\n")))
}

fn confirmed() -> Result<bool, Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Usage("without a terminal to ask on, prune needs --force".to_owned()));
    }
    let question = "WARNING! This will remove all networks not used by at least one service.\n\
                    Are you sure you want to continue? [y/N] ";
    let mut stderr = std::io::stderr();
    stderr.write_all(question.as_bytes()).map_err(|e| Error::io("ask", e))?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|e| Error::io("read the answer", e))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command, NetworkCommand};
    use serde_json::json;

    fn spec(line: &str) -> serde_json::Value {
        let Command::Network(NetworkCommand::Create(flags)) = Cli::command_of(line).unwrap() else {
            panic!("not a network create")
        };
        serde_json::to_value(super::spec(flags)).unwrap()
    }

    #[test]
    fn flags_become_a_spec() {
        let made = spec(
            "swarmctl network create --subnet 10.9.0.0/24 --gateway 10.9.0.9 --label a=b --internal \
             --opt com.docker.network.driver.mtu=1400 net",
        );
        assert_eq!(
            made,
            json!({"Name": "net", "Labels": {"a": "b"}, "Driver": "overlay", "Internal": true,
                   "Options": {"com.docker.network.driver.mtu": "1400"},
                   "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.9"}]}})
        );
        let options =
            |opt: &str| spec(&format!("swarmctl network create {opt} net"))["Options"].clone();
        assert_eq!(options("--opt encrypted"), json!({"encrypted": ""}));
        assert_eq!(options("-o encrypted=true"), json!({"encrypted": "true"}));
        assert_eq!(spec("swarmctl network create net")["IPAM"]["Config"], json!([]));
    }
}
