//! `swarmctl service`, but for `update`.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use swarm_model::{EndpointMode, NetworkAttachmentConfig, NetworkId, RestartCondition};

use super::{ListArgs, Logs, PsArgs, UpdateService};
use crate::units::{self, Words};

/// What to do with services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Make a service: tasks of an image, spread over the nodes
    Create(Box<CreateService>),
    /// Change a service; its tasks are replaced one at a time
    Update(Box<UpdateService>),
    /// Change the number of tasks of services
    #[command(after_help = "Examples:\n  swarmctl service scale web=3 worker=5")]
    Scale {
        #[command(flatten)]
        wait: WaitArgs,
        /// Services, each with the number of tasks wanted
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = units::scale)]
        services: Vec<(String, u64)>,
    },
    /// List services
    #[command(visible_alias = "list", after_help = "Filters: id, label, mode, name")]
    Ls(ListArgs),
    /// List the tasks of services, with why they failed
    #[command(after_help = "Filters: desired-state, id, name, node")]
    Ps {
        #[command(flatten)]
        ps: PsArgs,
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        names: Vec<String>,
    },
    /// Show services as JSON
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        names: Vec<String>,
    },
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        names: Vec<String>,
    },
    /// Print what the tasks of a service, or one task, wrote
    Logs(Logs),
}

/// Whether to wait until a change is in force.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct WaitArgs {
    /// Return at once, not only when the change is in force on every node
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not show progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Flags of `service create`.
#[derive(Debug, Args)]
#[command(
    override_usage = "swarmctl service create [OPTIONS] IMAGE [ARG]...",
    after_help = "Examples:
  swarmctl service create --name web --network net --replicas 3 nginx
  swarmctl service create --name db --network name=net,alias=database --limit-memory 512m redis
  swarmctl service create --name job --restart-condition none --entrypoint 'sh -c' busybox 'echo hi'"
)]
pub(crate) struct CreateService {
    /// Name of the service, and its name in DNS [default: made up]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Network to attach to, or name=NETWORK,alias=NAME,...; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Vec<NetworkFlag>,
    /// Number of tasks
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::replicas, allow_negative_numbers = true)]
    pub(crate) replicas: u64,
    /// How the name resolves: to one virtual address, or to the tasks' addresses
    #[arg(
        long,
        value_enum,
        default_value = "vip",
        value_name = "vip|dnsrr",
        hide_possible_values = true
    )]
    pub(crate) endpoint_mode: EndpointModeArg,
    /// Environment variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = units::variable)]
    pub(crate) env: Vec<Option<String>>,
    /// Label of the service; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = units::key_value)]
    pub(crate) label: Vec<(String, String)>,
    /// Working directory [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User, and group [default: the image's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Command instead of the image's entry point, split as a shell would
    #[arg(long, value_name = "COMMAND", value_parser = units::shell_words)]
    pub(crate) entrypoint: Option<Words>,
    /// Most CPU time a task may use, in CPUs, such as 0.5
    #[arg(long, value_name = "CPUS", value_parser = units::nano_cpus)]
    pub(crate) limit_cpu: Option<u64>,
    /// Most memory a task may use, such as 64m
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    pub(crate) limit_memory: Option<u64>,
    /// When a task that ended is replaced [default: any]
    #[arg(long, value_enum, value_name = "none|on-failure|any", hide_possible_values = true)]
    pub(crate) restart_condition: Option<RestartConditionArg>,
    /// How long to wait before a task is replaced, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = units::nanoseconds)]
    pub(crate) restart_delay: Option<u64>,
    /// Time a task has to stop before it is killed [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = units::nanoseconds)]
    pub(crate) stop_grace_period: Option<u64>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// Image, and arguments instead of the image's
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    pub(crate) image_and_args: Vec<String>,
}

/// A network to attach to: `NET`, or `name=NET,alias=NAME,...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkFlag {
    /// Name or id.
    pub(crate) target: String,
    /// More names for the service there.
    pub(crate) aliases: Vec<String>,
}

impl NetworkFlag {
    /// As it is in a spec; the target may be a name there.
    pub(crate) fn attachment(&self) -> NetworkAttachmentConfig {
        NetworkAttachmentConfig {
            target: NetworkId::from(self.target.as_str()),
            aliases: self.aliases.clone(),
        }
    }
}

impl FromStr for NetworkFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<NetworkFlag, String> {
        let usage = || "use NETWORK or name=NETWORK,alias=NAME".to_owned();
        let mut flag = NetworkFlag { target: String::new(), aliases: Vec::new() };
        if !text.contains('=') {
            flag.target = text.to_owned();
        } else {
            for field in text.split(',') {
                match field.split_once('=') {
                    Some(("name", name)) => flag.target = name.to_owned(),
                    Some(("alias", alias)) if !alias.is_empty() => {
                        flag.aliases.push(alias.to_owned())
                    }
                    _ => return Err(usage()),
                }
            }
        }
        if flag.target.is_empty() { Err(usage()) } else { Ok(flag) }
    }
}

/// How a service's name resolves.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum EndpointModeArg {
    /// To one virtual address, balanced over the tasks.
    Vip,
    /// To the tasks' addresses.
    Dnsrr,
}

impl From<EndpointModeArg> for EndpointMode {
    fn from(mode: EndpointModeArg) -> EndpointMode {
        match mode {
            EndpointModeArg::Vip => EndpointMode::Vip,
            EndpointModeArg::Dnsrr => EndpointMode::Dnsrr,
        }
    }
}

/// When a task that ended is replaced.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RestartConditionArg {
    /// Never.
    None,
    /// When it failed.
    OnFailure,
    /// Always.
    Any,
}

impl From<RestartConditionArg> for RestartCondition {
    fn from(condition: RestartConditionArg) -> RestartCondition {
        match condition {
            RestartConditionArg::None => RestartCondition::None,
            RestartConditionArg::OnFailure => RestartCondition::OnFailure,
            RestartConditionArg::Any => RestartCondition::Any,
        }
    }
}
