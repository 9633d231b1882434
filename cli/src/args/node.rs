//! `swarmctl node`.

use clap::{Args, Subcommand, ValueEnum};

use super::{ListArgs, PsArgs, Role};
use crate::units;

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes of the swarm
    #[command(visible_alias = "list", after_help = "Filters: id, label, name, role")]
    Ls(ListArgs),
    /// Show nodes as JSON
    Inspect {
        /// Names or ids; `self` is this node
        #[arg(required = true, value_name = "NODE")]
        names: Vec<String>,
    },
    /// List the tasks of nodes
    #[command(after_help = "Filters: desired-state, id, name")]
    Ps(NodePs),
    /// Change whether a node takes tasks, its role, its labels
    Update(UpdateNode),
    /// Make workers managers
    Promote {
        /// Names or ids
        #[arg(required = true, value_name = "NODE")]
        names: Vec<String>,
    },
    /// Make managers workers
    Demote {
        /// Names or ids; `self` is this node
        #[arg(required = true, value_name = "NODE")]
        names: Vec<String>,
    },
    /// Remove nodes that are down from the swarm
    #[command(visible_alias = "remove")]
    Rm {
        /// Remove it even if it is up
        #[arg(short, long)]
        force: bool,
        /// Names or ids
        #[arg(required = true, value_name = "NODE")]
        names: Vec<String>,
    },
}

/// Flags of `node update`: what is not given stays.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarmctl node update --availability drain pg-2   # before maintenance: its tasks move, one serves at any time
  swarmctl node update --label-add zone=a --label-rm rack pg-2")]
pub(crate) struct UpdateNode {
    /// Take tasks; keep those there are, but take no more; or give all up
    #[arg(long, value_enum, value_name = "active|pause|drain", hide_possible_values = true)]
    pub(crate) availability: Option<AvailabilityArg>,
    /// What it is in the swarm
    #[arg(long, value_enum, value_name = "worker|manager", hide_possible_values = true)]
    pub(crate) role: Option<Role>,
    /// Set a label of the node; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::key_value)]
    pub(crate) label_add: Vec<(String, String)>,
    /// Remove a label of the node; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
    /// Name or id; `self` is this node
    #[arg(value_name = "NODE")]
    pub(crate) name: String,
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AvailabilityArg {
    /// It does.
    Active,
    /// It keeps those it has.
    Pause,
    /// It gives them up.
    Drain,
}

impl AvailabilityArg {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            AvailabilityArg::Active => "active",
            AvailabilityArg::Pause => "pause",
            AvailabilityArg::Drain => "drain",
        }
    }
}

/// Flags of `node ps`.
#[derive(Debug, Args)]
pub(crate) struct NodePs {
    #[command(flatten)]
    pub(crate) ps: PsArgs,
    /// Names or ids [default: this node]
    #[arg(value_name = "NODE")]
    pub(crate) names: Vec<String>,
}
