//! The words of the command line: one file per command group.

mod host;
mod image;
mod list;
mod network;
mod node;
mod service;
mod swarm;
mod task;
mod update;

pub(crate) use host::Host;
pub(crate) use image::ImageCommand;
pub(crate) use list::{Format, ListArgs, PsArgs};
pub(crate) use network::{CreateNetwork, NetworkCommand};
pub(crate) use node::{NodeCommand, NodePs, UpdateNode};
pub(crate) use service::{
    CreateService, EndpointModeArg, NetworkFlag, RestartConditionArg, ServiceCommand, WaitArgs,
};
pub(crate) use swarm::{
    Ca, Info, Init, Join, JoinToken, Role, SwarmCommand, UnlockKey, UpdateSwarm,
};
pub(crate) use task::{Exec, Logs, TaskCommand};
pub(crate) use update::UpdateService;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

/// Commands a swarm of machines: networks, services, tasks
#[derive(Debug, Parser)]
#[command(
    name = "swarmctl",
    version,
    max_term_width = 100,
    after_help = "Examples:
  swarmctl init --advertise-addr 192.0.2.1
  swarmctl network create net
  swarmctl service create --name web --network net --replicas 3 nginx
  swarmctl service ps web
  swarmctl playground up          # three hosts on this machine, to try all of it"
)]
pub(crate) struct Cli {
    /// Socket of the swarmd to talk to
    #[arg(
        hide_env_values = true,
        short = 'H',
        long,
        global = true,
        env = "SWARM_HOST",
        value_name = "unix://PATH",
        default_value = "unix:///run/swarmd/swarmd.sock"
    )]
    pub(crate) host: Host,
    /// What to do
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Something to ask of swarmd.
    #[command(flatten)]
    Ask(Command),
    /// Several hosts on this machine, to try a swarm
    #[command(disable_help_flag = true)]
    Playground {
        /// What to do with them, which is another program's to know: see `swarmctl playground --help`
        #[arg(
            value_name = "WORDS",
            trailing_var_arg = true,
            allow_hyphen_values = true,
            num_args = 0..
        )]
        words: Vec<OsString>,
    },
}

/// What to ask of swarmd.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The commands of `swarm`, without that word.
    #[command(flatten)]
    Short(SwarmCommand),
    /// Manage the swarm: what the commands of these names do without the word swarm
    #[command(subcommand)]
    Swarm(SwarmCommand),
    /// Show this node and its swarm
    Info(Info),
    /// Save all that the swarm is, to begin it anew from with `swarmd restore`
    Backup {
        /// The file to write; it holds the swarm's keys
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
    },
    /// Manage nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Manage overlay networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Manage services
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Manage tasks, the containers of services
    #[command(subcommand)]
    Task(TaskCommand),
    /// Manage the images of this node
    #[command(subcommand)]
    Image(ImageCommand),
}

#[cfg(test)]
impl Cli {
    /// The command of a line.
    pub(crate) fn command_of(line: &str) -> Result<Command, clap::Error> {
        let words = shlex::split(line).expect("a line of words");
        match Cli::try_parse_from(words)?.action {
            Action::Ask(command) => Ok(command),
            Action::Playground { words } => panic!("a playground's {words:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn rejected(line: &str) -> String {
        let error = Cli::command_of(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        error.to_string()
    }

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn visit(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no description");
                for argument in sub.get_arguments() {
                    assert!(
                        argument.get_help().is_some(),
                        "{path}: {} has no help",
                        argument.get_id()
                    );
                }
                visit(sub, &path);
            }
        }
        visit(&Cli::command(), "swarmctl");
    }

    #[test]
    fn the_host_may_come_before_or_after_the_command() {
        for line in
            ["swarmctl -H unix:///x/s.sock node ls", "swarmctl node ls --host unix:///x/s.sock"]
        {
            let cli = Cli::try_parse_from(shlex::split(line).unwrap()).unwrap();
            assert_eq!(cli.host.path(), std::path::Path::new("/x/s.sock"));
        }
        assert!(rejected("swarmctl -H tcp://x:1 node ls").contains("unix://PATH"));
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_command() {
        let Ok(Command::Service(ServiceCommand::Create(create))) = Cli::command_of(
            "swarmctl service create --name web -d --network name=net,alias=a,alias=b --network other \
             --env A=1 -e B= --label x=y --limit-cpu 0.5 --limit-memory 64m --restart-condition on-failure \
             --restart-delay 1m30s --stop-grace-period 500ms --endpoint-mode dnsrr --entrypoint \"sh -c 'a b'\" \
             whoami --name not-mine -d",
        ) else {
            panic!("not a service create");
        };
        assert_eq!(create.image_and_args, ["whoami", "--name", "not-mine", "-d"]);
        assert_eq!(create.name.as_deref(), Some("web"));
        assert!(create.wait.detach);
        assert_eq!(create.network[0].target, "net");
        assert_eq!(create.network[0].aliases, ["a", "b"]);
        assert_eq!(create.network[1].target, "other");
        assert_eq!(create.restart_delay, Some(90_000_000_000));
        assert_eq!(create.entrypoint.unwrap().0, ["sh", "-c", "a b"]);
    }

    #[test]
    fn bad_values_are_usage_errors() {
        for (line, part) in [
            ("swarmctl service create --replicas -1 x", "whole number"),
            ("swarmctl service create --network name= x", "name"),
            ("swarmctl service create --network alias=a x", "name"),
            ("swarmctl service create --network name=a,speed=fast x", "speed"),
            ("swarmctl service create --restart-condition sometimes x", "on-failure"),
            ("swarmctl service create --restart-delay 10 x", "unit"),
            ("swarmctl service create", "required"),
            ("swarmctl service scale web", "SERVICE=REPLICAS"),
            ("swarmctl service scale web=-1", "whole number"),
            ("swarmctl network create --subnet everywhere n", "10.9.0.0/24"),
            ("swarmctl network create --subnet fe80::/64 n", "fe80::/64 is IPv6"),
            ("swarmctl network create --gateway somewhere n", "somewhere"),
            ("swarmctl join-token boss", "worker"),
            ("swarmctl node ls --format yaml", "json"),
            ("swarmctl node ls --filter name", "KEY=VALUE"),
            ("swarmctl service logs --tail few web", "all"),
            ("swarmctl task exec web.1", "CMD"),
            ("swarmctl init --data-path-port 70000", "70000"),
            ("swarmctl update", "--autolock"),
            ("swarmctl update --autolock=perhaps", "perhaps"),
            ("swarmctl unlock SWMKEY-1-x", "SWMKEY"),
            ("swarmctl ca --detach", "--rotate"),
            ("swarmctl ca --rotate --rotate-network-keys", "--rotate-network-keys"),
            ("swarmctl ca --rotate-network-keys now", "now"),
            ("swarmctl network create --opt =x n", "KEY=VALUE"),
        ] {
            let text = rejected(line);
            assert!(text.contains(part), "{line}: {text}");
        }
    }

    #[test]
    fn the_other_groups_parse() {
        for line in [
            "swarmctl init --advertise-addr eth0:2377 --default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 26",
            "swarmctl join --token T 192.0.2.1:2377",
            "swarmctl join-token -q --rotate manager",
            "swarmctl leave --force",
            "swarmctl info --format json",
            "swarmctl node ps",
            "swarmctl node rm --force a b",
            "swarmctl node ls -q --filter role=manager --filter name=a --no-trunc",
            "swarmctl network create -d overlay --subnet 10.9.0.0/24 --gateway 10.9.0.9 --ip-range 10.9.0.128/25 \
             --internal --label a=b --opt com.docker.network.driver.mtu=1400 net",
            "swarmctl network create --opt encrypted net",
            "swarmctl network inspect --verbose a b",
            "swarmctl ca",
            "swarmctl ca --rotate -d -q",
            "swarmctl ca --rotate-network-keys",
            "swarmctl network prune -f",
            "swarmctl service scale a=3 b=0",
            "swarmctl service update --image x --env-add A=1 --env-rm B --network-add n --network-rm m --force web",
            "swarmctl service logs -f -t --tail 10 web",
            "swarmctl service rm a b",
            "swarmctl task exec -it -e A=1 -u 0 -w / web.1 ls -l",
            "swarmctl task logs --tail all web.1",
            "swarmctl image load -i x.tar",
            "swarmctl image rm a",
        ] {
            if let Err(error) = Cli::command_of(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn every_word_after_playground_is_the_playground_s() {
        for rest in [
            "",
            "--help",
            "up --nodes 3",
            "exec pg-1 -- swarmctl -H unix:///x node ls --help",
            "exec pg-1 -- sh -c 'a -- b' --",
            "ls -H x --host y",
        ] {
            let line = format!("swarmctl -H unix:///s playground {rest}");
            let cli = Cli::try_parse_from(shlex::split(&line).unwrap()).unwrap();
            let Action::Playground { words } = cli.action else { panic!("{line}: {cli:?}") };
            let rest: Vec<OsString> =
                shlex::split(rest).unwrap().into_iter().map(OsString::from).collect();
            assert_eq!(words, rest, "{line}");
        }
    }

    /// The help of a command, but for the line that says how it is called.
    fn help(command: &clap::Command) -> String {
        let help = command.clone().render_long_help().to_string();
        help.lines().filter(|line| !line.starts_with("Usage:")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn swarm_has_the_short_commands_under_docker_s_names() {
        let cli = Cli::command();
        let swarm = cli.find_subcommand("swarm").unwrap();
        let names: Vec<&str> = swarm.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(
            names,
            ["init", "join", "join-token", "ca", "update", "unlock", "unlock-key", "leave"]
        );
        for long in swarm.get_subcommands() {
            let short = cli.find_subcommand(long.get_name()).unwrap();
            assert_eq!(help(long), help(short));
            assert_eq!(long.get_about(), short.get_about());
        }
    }
}
