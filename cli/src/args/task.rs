//! `swarmctl task`, and `logs`.

use std::str::FromStr;

use clap::{Args, Subcommand};

use super::PsArgs;
use crate::units;

/// What to do with tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List the tasks of all services
    #[command(
        visible_alias = "list",
        after_help = "Filters: desired-state, id, name, node, service"
    )]
    Ls(PsArgs),
    /// Show tasks as JSON
    Inspect {
        /// Ids, beginnings of ids, or names such as web.1
        #[arg(required = true, value_name = "TASK")]
        names: Vec<String>,
    },
    /// Print what a task wrote
    Logs(Logs),
    /// Run a command in a task, wherever it runs
    Exec(Exec),
}

/// Flags of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarmctl service logs -f --tail 10 web
  swarmctl task logs --timestamps web.1")]
pub(crate) struct Logs {
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Lines to show from the end of each task's log, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    pub(crate) tail: Tail,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Do not shorten ids of tasks
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print the lines as they are, without names of tasks
    #[arg(long)]
    pub(crate) raw: bool,
    /// Name or id of a service or task, such as web or web.1
    #[arg(value_name = "SERVICE|TASK")]
    pub(crate) name: String,
}

/// Lines from the end; none means all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(pub(crate) Option<u64>);

impl FromStr for Tail {
    type Err = String;

    fn from_str(text: &str) -> Result<Tail, String> {
        if text == "all" {
            return Ok(Tail(None));
        }
        let lines = text.parse().map_err(|_| "use a number of lines, or all")?;
        Ok(Tail(Some(lines)))
    }
}

/// Flags of `exec`.
#[derive(Debug, Args)]
#[command(
    override_usage = "swarmctl task exec [OPTIONS] TASK CMD [ARG]...",
    after_help = "Examples:
  swarmctl task exec web.1 cat /etc/hosts
  swarmctl task exec -it web.1 sh"
)]
pub(crate) struct Exec {
    /// Hand our standard input to the command
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Environment variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = units::variable)]
    pub(crate) env: Vec<Option<String>>,
    /// User, and group [default: the task's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Working directory [default: the task's]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Task (id, beginning of an id, or name such as web.1), command and arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["TASK", "CMD"])]
    pub(crate) task_and_command: Vec<String>,
}
