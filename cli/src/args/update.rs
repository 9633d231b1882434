//! `swarmctl service update`.

use clap::Args;

use super::{EndpointModeArg, NetworkFlag, RestartConditionArg, WaitArgs};
use crate::units::{self, Words};

/// Flags of `service update`: what is not given stays.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  swarmctl service update --image nginx:1.27 web
  swarmctl service update --env-add LEVEL=debug --env-rm OLD web
  swarmctl service update --force web          # replace all tasks")]
pub(crate) struct UpdateService {
    /// Image
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Arguments, split as a shell would
    #[arg(long, value_name = "COMMAND", value_parser = units::shell_words, allow_hyphen_values = true)]
    pub(crate) args: Option<Words>,
    /// Command instead of the image's entry point, split as a shell would; empty: the image's
    #[arg(long, value_name = "COMMAND", value_parser = units::shell_words)]
    pub(crate) entrypoint: Option<Words>,
    /// Number of tasks
    #[arg(long, value_name = "N", value_parser = units::replicas, allow_negative_numbers = true)]
    pub(crate) replicas: Option<u64>,
    /// Set an environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = units::variable)]
    pub(crate) env_add: Vec<Option<String>>,
    /// Remove an environment variable; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) env_rm: Vec<String>,
    /// Set a label of the service; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::key_value)]
    pub(crate) label_add: Vec<(String, String)>,
    /// Remove a label of the service; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
    /// Attach to a network, or name=NETWORK,alias=NAME,...; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network_add: Vec<NetworkFlag>,
    /// Detach from a network; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network_rm: Vec<String>,
    /// Replace the tasks even if nothing changed
    #[arg(long)]
    pub(crate) force: bool,
    /// How the name resolves: to one virtual address, or to the tasks' addresses
    #[arg(long, value_enum, value_name = "vip|dnsrr", hide_possible_values = true)]
    pub(crate) endpoint_mode: Option<EndpointModeArg>,
    /// Working directory; empty: the image's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, and group; empty: the image's
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Most CPU time a task may use, in CPUs; 0: no limit
    #[arg(long, value_name = "CPUS", value_parser = units::nano_cpus)]
    pub(crate) limit_cpu: Option<u64>,
    /// Most memory a task may use, such as 64m; 0: no limit
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    pub(crate) limit_memory: Option<u64>,
    /// When a task that ended is replaced
    #[arg(long, value_enum, value_name = "none|on-failure|any", hide_possible_values = true)]
    pub(crate) restart_condition: Option<RestartConditionArg>,
    /// How long to wait before a task is replaced, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = units::nanoseconds)]
    pub(crate) restart_delay: Option<u64>,
    /// Time a task has to stop before it is killed
    #[arg(long, value_name = "DURATION", value_parser = units::nanoseconds)]
    pub(crate) stop_grace_period: Option<u64>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// Name or id
    #[arg(value_name = "SERVICE")]
    pub(crate) name: String,
}
