//! `swarmctl node`.

use clap::{Args, Subcommand};

use super::{ListArgs, PsArgs};

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

/// Flags of `node ps`.
#[derive(Debug, Args)]
pub(crate) struct NodePs {
    #[command(flatten)]
    pub(crate) ps: PsArgs,
    /// Names or ids [default: this node]
    #[arg(value_name = "NODE")]
    pub(crate) names: Vec<String>,
}
