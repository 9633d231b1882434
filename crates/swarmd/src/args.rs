//! The daemon's command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use swarm_balancer::Preference;
use swarm_images::Reference;

/// The daemon of a swarm's node.
#[derive(Debug, Clone, Parser)]
#[command(name = "swarmd", version)]
pub(crate) struct Args {
    /// Where the node keeps what outlives a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/swarmd", global = true)]
    pub(crate) state_dir: PathBuf,

    /// Where the node keeps what does not, and its socket swarmd.sock
    #[arg(long, value_name = "DIR", default_value = "/run/swarmd", global = true)]
    pub(crate) run_dir: PathBuf,

    /// A registry spoken to over plain HTTP (may be given several times)
    #[arg(long = "insecure-registry", value_name = "HOST:PORT", value_parser = registry)]
    pub(crate) insecure_registries: Vec<String>,

    /// The engine that balances service VIPs on this node
    #[arg(long, value_enum, default_value_t = Balancer::Auto)]
    pub(crate) balancer: Balancer,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of running the daemon.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Make this host the first manager of a swarm as `swarmctl backup` saved it
    Restore(Restore),
}

/// Flags of `restore`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Restore {
    /// The file that `swarmctl backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Address that other nodes reach this one at
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub(crate) advertise_addr: Option<String>,
    /// Address to listen on
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub(crate) listen_addr: Option<String>,
    /// Address that carries the traffic of overlay networks [default: the advertised one]
    #[arg(long, value_name = "IP|IFACE")]
    pub(crate) data_path_addr: Option<String>,
}

/// A choice of balancer engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Balancer {
    /// IPVS where the kernel has it, else nftables
    Auto,
    /// IPVS; swarmd does not start where it does not work
    Ipvs,
    /// nftables; swarmd does not start where it does not work
    Nftables,
}

impl From<Balancer> for Preference {
    fn from(balancer: Balancer) -> Preference {
        match balancer {
            Balancer::Auto => Preference::Auto,
            Balancer::Ipvs => Preference::Ipvs,
            Balancer::Nftables => Preference::Nftables,
        }
    }
}

impl Args {
    /// This process's; else the status to exit with, once help or the one line that says what is wrong is printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| swarm_usage::report(&error))
    }
}

/// What can be the registry of an image reference.
fn registry(text: &str) -> Result<String, String> {
    let reference = format!("{text}/image").parse::<Reference>();
    match reference {
        Ok(image) if image.registry() == text => Ok(text.to_owned()),
        _ => Err("use HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_host_perhaps_with_a_port() {
        for sound in ["10.0.0.1:5000", "localhost:5000", "registry.example"] {
            assert_eq!(registry(sound).as_deref(), Ok(sound));
        }
        for bad in ["", "http://x", "http://registry.example:5000", "a b:1", "host:port", "plain"] {
            assert!(registry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_fits_one_line() {
        let error = Args::try_parse_from(["swarmd", "--nope"]).expect_err("a wrong flag");
        let line = swarm_usage::line(&error);
        assert_eq!(line, "error: unexpected argument '--nope' found (see 'swarmd --help')");
    }
}
