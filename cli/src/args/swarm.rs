//! Making, joining and leaving a swarm.

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::Format;
use crate::units;

/// What to do with the swarm. Each of these is a command of `swarmctl` and of `swarmctl swarm`, as Docker's users type it.
#[derive(Debug, Subcommand)]
pub(crate) enum SwarmCommand {
    /// Make this node the first manager of a new swarm
    Init(Init),
    /// Let this node join a swarm
    Join(Join),
    /// Show or rotate the token that nodes join with
    JoinToken(JoinToken),
    /// Rotate the swarm's keys
    Ca(Ca),
    /// Change the swarm's settings
    Update(UpdateSwarm),
    /// Unlock this manager, which has restarted in a swarm with autolock
    #[command(after_help = "The key is asked for, or read from standard input:
  swarmctl unlock < FILE")]
    Unlock,
    /// Show or rotate the key that unlocks managers
    UnlockKey(UnlockKey),
    /// Let this node leave its swarm
    Leave {
        /// Leave even if the swarm is lost by it, or cannot be asked
        #[arg(short, long)]
        force: bool,
    },
}

/// Flags of `init`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarmctl init
  swarmctl init --advertise-addr eth1
  swarmctl init --default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 26")]
pub(crate) struct Init {
    /// Address that other nodes reach this one at
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub(crate) advertise_addr: Option<String>,
    /// Address to listen on
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub(crate) listen_addr: Option<String>,
    /// Address that carries the traffic of overlay networks [default: the advertised one]
    #[arg(long, value_name = "IP|IFACE")]
    pub(crate) data_path_addr: Option<String>,
    /// UDP port that carries the traffic of overlay networks [default: 4789]
    #[arg(long, value_name = "PORT")]
    pub(crate) data_path_port: Option<u16>,
    /// Subnet that networks take theirs from; may be repeated [default: 10.0.0.0/8]
    #[arg(long, value_name = "CIDR", value_parser = units::subnet)]
    pub(crate) default_addr_pool: Vec<IpNet>,
    /// Prefix length of a network's subnet from the pool [default: 24]
    #[arg(long, value_name = "N")]
    pub(crate) default_addr_pool_mask_length: Option<u8>,
    /// Let managers that restart be locked until they are given the unlock key
    #[arg(long)]
    pub(crate) autolock: bool,
    /// Go on alone from this manager's state, when the other managers are lost for good
    #[arg(long)]
    pub(crate) force_new_cluster: bool,
}

/// Flags of `join`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarmctl join --token SWMTKN-1-... 192.0.2.1:2377")]
pub(crate) struct Join {
    /// Token that `swarmctl join-token` prints on a manager
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: String,
    /// Address that other nodes reach this one at
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub(crate) advertise_addr: Option<String>,
    /// Address to listen on
    #[arg(long, value_name = "IP|IFACE[:PORT]")]
    pub(crate) listen_addr: Option<String>,
    /// Address that carries the traffic of overlay networks [default: the advertised one]
    #[arg(long, value_name = "IP|IFACE")]
    pub(crate) data_path_addr: Option<String>,
    /// Address of a manager
    #[arg(value_name = "HOST:PORT")]
    pub(crate) remote_addr: String,
}

/// What a node joins as.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    /// Runs tasks.
    Worker,
    /// Votes, and runs tasks too.
    Manager,
}

impl Role {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Manager => "manager",
        }
    }
}

/// Flags of `join-token`.
#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// What the token lets a node join as
    #[arg(value_enum, value_name = "worker|manager", hide_possible_values = true)]
    pub(crate) role: Role,
    /// Print the token only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make a new token; the old one lets nobody in any more
    #[arg(long)]
    pub(crate) rotate: bool,
}

/// Flags of `update`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarmctl update --autolock=true
  swarmctl update --autolock=false")]
pub(crate) struct UpdateSwarm {
    /// Whether managers that restart are locked until they are given the unlock key
    #[arg(long, required = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "true|false", hide_possible_values = true)]
    pub(crate) autolock: bool,
}

/// Flags of `unlock-key`.
#[derive(Debug, Args)]
pub(crate) struct UnlockKey {
    /// Print the key only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Make a new key; a manager that is down now still needs the old one
    #[arg(long)]
    pub(crate) rotate: bool,
}

/// Flags of `ca`.
#[derive(Debug, Args)]
#[command(after_help = "Without flags it prints the root certificate.")]
pub(crate) struct Ca {
    /// Replace the root certificate and the join tokens, and wait until every node has changed over
    #[arg(long)]
    pub(crate) rotate: bool,
    /// Return at once, not only when every node has changed over
    #[arg(short, long, requires = "rotate")]
    pub(crate) detach: bool,
    /// Do not show progress
    #[arg(short, long, requires = "rotate")]
    pub(crate) quiet: bool,
    /// Replace the keys of encrypted networks, losing no packet; else that is done every 12 hours
    #[arg(long, conflicts_with = "rotate")]
    pub(crate) rotate_network_keys: bool,
}

/// Flags of `info`.
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Print text, or JSON
    #[arg(long, value_enum, default_value_t = Format::Table, hide_possible_values = true, value_name = "table|json")]
    pub(crate) format: Format,
}
