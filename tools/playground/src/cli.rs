//! The words of `swarm-playground`, and what each does.

use crate::{Binaries, Cut, Node, NodeState, Options, Playground, Result};
use clap::{Args, Subcommand, ValueEnum};
use ipnet::Ipv4Net;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Several hosts on this machine, to try a swarm
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make hosts on this machine and join them to one swarm
    Up(Up),
    /// List playgrounds and their hosts
    Ls,
    /// Remove a playground and everything on it, also after a crash
    Down {
        /// Name of the playground
        #[arg(long, default_value = "pg")]
        name: String,
    },
    /// Run a command on a host, with SWARM_HOST set to its swarmd
    Exec {
        /// Hostname, such as pg-1
        node: String,
        /// Command and arguments
        #[arg(required = true, last = true)]
        command: Vec<OsString>,
    },
    /// Cut the power of a host
    Kill {
        /// Hostname
        node: String,
    },
    /// Boot a host again after a power cut
    Start {
        /// Hostname
        node: String,
    },
    /// Stop every process of a host
    Pause {
        /// Hostname
        node: String,
    },
    /// Let the processes of a paused host go on
    Resume {
        /// Hostname
        node: String,
    },
    /// Cut a host off the network
    Cut {
        /// Hostname
        node: String,
        /// Lose only what the host sends (out) or only what is sent to it (in)
        #[arg(long, value_name = "DIRECTION")]
        one_way: Option<OneWay>,
    },
    /// Give a host its network back
    Heal {
        /// Hostname
        node: String,
    },
}

/// Options of `playground up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Name of the playground; its hosts are NAME-1, NAME-2, ...
    #[arg(long, default_value = "pg")]
    name: String,
    /// Number of hosts
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many of them are managers [default: 1 of fewer than 3 hosts, else 3]
    #[arg(long)]
    managers: Option<usize>,
    /// Network of the hosts [default: a free /24 of 10.123.0.0/16]
    #[arg(long, value_name = "CIDR")]
    subnet: Option<Ipv4Net>,
    /// A registry that the hosts talk to in clear text
    #[arg(long = "insecure-registry", value_name = "HOST:PORT")]
    insecure_registries: Vec<String>,
    /// The daemon to run on the hosts [default: swarmd beside swarm-playground]
    #[arg(long, value_name = "PATH")]
    swarmd: Option<PathBuf>,
    /// Start the hosts and their daemons, but make no swarm of them
    #[arg(long)]
    no_swarm: bool,
}

/// Direction of a one-way cut, as the host sees it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OneWay {
    /// What is sent to the host is lost.
    In,
    /// What the host sends is lost.
    Out,
}

/// What a command came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The exit status that the process shall have.
    pub status: u8,
    /// What to print.
    pub text: String,
}

/// Runs one command.
///
/// # Errors
/// What the operation of [`Playground`] or [`Node`] says.
pub fn run(command: Command) -> Result<Done> {
    match command {
        Command::Up(up) => return bring_up(up),
        Command::Ls => return list(),
        Command::Down { name } => Playground::down(&name)?,
        Command::Exec { node, command } => return exec(&Playground::find_node(&node)?, &command),
        Command::Kill { node } => Playground::find_node(&node)?.kill()?,
        Command::Start { node } => Playground::find_node(&node)?.start()?,
        Command::Pause { node } => Playground::find_node(&node)?.pause()?,
        Command::Resume { node } => Playground::find_node(&node)?.resume()?,
        Command::Cut { node, one_way } => Playground::find_node(&node)?.cut(match one_way {
            None => Cut::Both,
            Some(OneWay::In) => Cut::ToHost,
            Some(OneWay::Out) => Cut::FromHost,
        })?,
        Command::Heal { node } => Playground::find_node(&node)?.heal()?,
    }
    Ok(Done::default())
}

fn bring_up(up: Up) -> Result<Done> {
    let binaries = Binaries::locate()?;
    let mut options = Options::new(up.name, &binaries);
    options.nodes = up.nodes;
    options.managers = up.managers;
    options.subnet = up.subnet;
    options.insecure_registries = up.insecure_registries;
    if let Some(swarmd) = up.swarmd {
        options.swarmd = swarmd;
    }
    if up.no_swarm {
        options.form_swarm = false;
        options.whoami = None;
    }
    let playground = Playground::up(&options)?;
    let first = playground.node(1);
    let hosts = playground.nodes();
    let hosts = hosts.iter().map(|node| format!("{}\t{}\n", node.name(), node.address()));
    let hint = format!("\nTry: swarmctl playground exec {} -- swarmctl node ls\n", first.name());
    Ok(Done { status: 0, text: hosts.collect::<String>() + &hint })
}

fn list() -> Result<Done> {
    let mut text =
        format!("{:<16}{:<20}{:<18}{:<10}NETWORK\n", "PLAYGROUND", "NODE", "ADDRESS", "STATE");
    for playground in Playground::list()? {
        for node in playground.nodes() {
            let network = if node.is_cut()? { "cut" } else { "ok" };
            let state: NodeState = node.state()?;
            let (name, address) = (node.name(), node.address().to_string());
            let playground = playground.name();
            text += &format!("{playground:<16}{name:<20}{address:<18}{state:<10}{network}\n");
        }
    }
    Ok(Done { status: 0, text })
}

fn exec(node: &Node, command: &[OsString]) -> Result<Done> {
    let mut process = node.command(&command[0])?;
    process.args(&command[1..]);
    // `swarmctl` on the host is the one beside this program, wherever that was built.
    if let Some(path) = path_with_own_directory() {
        process.env("PATH", path);
    }
    use crate::error::IoContext;
    let status = process.status().io("run a command on", node.name())?;
    Ok(Done { status: exit_code(status), text: String::new() })
}

fn path_with_own_directory() -> Option<OsString> {
    let exe = std::env::current_exe().ok()?;
    let path = std::env::var_os("PATH")?;
    let own = exe.parent()?.to_owned();
    std::env::join_paths([own].into_iter().chain(std::env::split_paths(&path))).ok()
}

/// As a shell does: 128 + signal for a process that a signal ended.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
