//! `swarmctl network`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::ListArgs;
use crate::units;

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make an overlay network
    Create(CreateNetwork),
    /// List networks
    #[command(visible_alias = "list", after_help = "Filters: driver, id, label, name, scope")]
    Ls(ListArgs),
    /// Show networks as JSON
    Inspect(InspectNetwork),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        names: Vec<String>,
    },
    /// Remove all networks that nothing uses
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// Flags of `network create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarmctl network create net
  swarmctl network create --subnet 10.9.0.0/24 --gateway 10.9.0.1 --internal backend
  swarmctl network create --opt encrypted safe
  swarmctl network create --opt com.docker.network.driver.mtu=1400 small")]
pub(crate) struct CreateNetwork {
    /// Driver
    #[arg(short, long, default_value = swarm_model::DEFAULT_DRIVER)]
    pub(crate) driver: String,
    /// Subnet [default: a free one from the pool]
    #[arg(long, value_name = "CIDR", value_parser = units::subnet)]
    pub(crate) subnet: Option<IpNet>,
    /// Address of the gateway [default: the subnet's first]
    #[arg(long, value_name = "IP", value_parser = units::gateway)]
    pub(crate) gateway: Option<IpAddr>,
    /// Part of the subnet that addresses are taken from [default: all of it]
    #[arg(long, value_name = "CIDR", value_parser = units::subnet)]
    pub(crate) ip_range: Option<IpNet>,
    /// No way out of the swarm
    #[arg(long)]
    pub(crate) internal: bool,
    /// Label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::key_value)]
    pub(crate) label: Vec<(String, String)>,
    /// Driver option: encrypted, com.docker.network.driver.mtu=N; may be repeated
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = units::key_value)]
    pub(crate) opt: Vec<(String, String)>,
    /// Name of the network
    pub(crate) name: String,
}

/// Flags of `network inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectNetwork {
    /// Show the services in it too, with their addresses and tasks
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) names: Vec<String>,
}
