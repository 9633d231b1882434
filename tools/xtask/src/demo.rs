//! `cargo xtask demo`: what README promises, by the commands that a person would type.

use crate::binaries;
use crate::interrupt;
use crate::run::output;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "demo";
const NODES: usize = 3;
const CALLS_PER_NODE: &str = "6";
/// How long tasks may take to move; it takes seconds.
const MOVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Builds, then shows.
pub(crate) fn run() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes hosts of network namespaces: run it as root");
    }
    say("Building swarmd, swarmctl and the sample server");
    let demo = Demo { swarmctl: binaries::build()?.join("swarmctl") };
    interrupt::catch()?;
    demo.run()
}

struct Demo {
    swarmctl: PathBuf,
}

/// A task as `service ps --format json` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    id: String,
    node: String,
    state: String,
    wanted: String,
}

impl Demo {
    /// Shows everything and takes it down, whatever happens in between.
    fn run(&self) -> Result<()> {
        // Of a demo that could not take itself down.
        self.down()?;
        let shown = self.show();
        say("Taking everything down");
        let down = self.down();
        shown.and(down)
    }

    fn show(&self) -> Result<()> {
        let started = Instant::now();
        say(&format!("A playground: {NODES} hosts on this machine, joined to one swarm"));
        self.playground(&["up", "--name", NAME, "--nodes", &NODES.to_string()])?;
        self.print(&["node", "ls"])?;

        say("An overlay network, and a web service of 3 replicas on it");
        self.print(&["network", "create", "-d", "overlay", "demo"])?;
        self.print(&[
            "service",
            "create",
            "-d",
            "--name",
            "client",
            "--network",
            "demo",
            "--replicas",
            "3",
            "whoami",
        ])?;
        self.print(&[
            "service",
            "create",
            "--name",
            "web",
            "--network",
            "demo",
            "--replicas",
            "3",
            "whoami",
        ])?;
        self.print(&["service", "ps", "web"])?;
        let clients = self.wait_running("client", NODES)?;

        say("Names, asked from inside a task: one address for the service, and one for each task");
        let first = clients.first().context("no client task runs")?;
        self.in_task(first, &["/whoami", "resolve", "web", "tasks.web"])?;

        say("The service's address, called from every node");
        for client in &clients {
            self.call_web(client)?;
        }

        say("Twice as many");
        self.print(&["service", "scale", "web=6"])?;
        self.call_web(first)?;

        self.lose_a_node()?;
        println!("\nThat took {:.0} s", started.elapsed().as_secs_f64());
        Ok(())
    }

    fn lose_a_node(&self) -> Result<()> {
        let lost = format!("{NAME}-{NODES}");
        say(&format!("The power of {lost} fails: its tasks move"));
        let cut = Instant::now();
        self.playground(&["kill", &lost])?;
        let moved = self.wait_tasks("web", 6, |task| task.node != lost)?;
        println!(
            "{} tasks run on the other nodes {:.1} s after the cut",
            moved.len(),
            cut.elapsed().as_secs_f64()
        );
        self.print(&["node", "ls"])?;
        self.print(&["service", "ps", "web"])?;
        let clients = self.wait_tasks("client", NODES, |task| task.node != lost)?;
        self.call_web(clients.first().context("no client task runs")?)
    }

    /// Calls the service from inside `client` and shows who answered, and which client address they saw.
    fn call_web(&self, client: &Task) -> Result<()> {
        let call = ["/whoami", "get", "-n", CALLS_PER_NODE, "http://web/"];
        let words: Vec<&str> = ["task", "exec", &client.id].into_iter().chain(call).collect();
        let text = self.ctl(&words)?;
        let summary: Value =
            serde_json::from_str(&text).with_context(|| format!("no summary of calls: {text}"))?;
        println!(
            "{:<8} {} calls, {} failed; answered by {}; the caller seen as {}",
            client.node,
            summary["calls"],
            summary["failed"],
            counts(&summary["hosts"]),
            counts(&summary["clients"]),
        );
        Ok(())
    }

    fn in_task(&self, task: &Task, words: &[&str]) -> Result<()> {
        let words: Vec<&str> = ["task", "exec", &task.id].iter().chain(words).copied().collect();
        self.print(&words)
    }

    fn wait_running(&self, service: &str, count: usize) -> Result<Vec<Task>> {
        self.wait_tasks(service, count, |_| true)
    }

    /// Waits until `count` tasks that `fits` are wanted and run.
    fn wait_tasks(
        &self,
        service: &str,
        count: usize,
        fits: impl Fn(&Task) -> bool,
    ) -> Result<Vec<Task>> {
        let deadline = Instant::now() + MOVE_TIMEOUT;
        loop {
            let text = self.ctl(&["service", "ps", service, "--format", "json"])?;
            let mut running: Vec<Task> = parse_tasks(&text)?;
            running.retain(|task| task.is_running() && fits(task));
            if running.len() == count {
                running.sort_by(|a, b| a.node.cmp(&b.node));
                return Ok(running);
            }
            if Instant::now() > deadline {
                bail!(
                    "{} of {count} tasks of {service} run after {MOVE_TIMEOUT:?}:\n{text}",
                    running.len()
                );
            }
            interrupt::check()?;
            // Between two looks at a state that swarmctl only shows.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Shows a command as it could be typed on the first host, and its output.
    fn print(&self, words: &[&str]) -> Result<()> {
        println!("\n$ swarmctl {}", words.join(" "));
        let text = self.ctl(words)?;
        print!("{text}");
        Ok(())
    }

    /// `swarmctl` on the first host.
    fn ctl(&self, words: &[&str]) -> Result<String> {
        let first = format!("{NAME}-1");
        let program = path_text(&self.swarmctl)?;
        let all: Vec<&str> = ["exec", &first, "--", program].iter().chain(words).copied().collect();
        self.playground(&all)
    }

    fn playground(&self, words: &[&str]) -> Result<String> {
        interrupt::check()?;
        output(Command::new(&self.swarmctl).arg("playground").args(words))
    }

    fn down(&self) -> Result<()> {
        output(Command::new(&self.swarmctl).args(["playground", "down", "--name", NAME])).map(drop)
    }
}

impl Task {
    fn is_running(&self) -> bool {
        self.wanted == "Running" && self.state.starts_with("Running")
    }
}

/// One JSON object a line, with Docker's field names.
fn parse_tasks(text: &str) -> Result<Vec<Task>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let object: Value =
                serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            let field = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
            Ok(Task {
                id: field("ID"),
                node: field("Node"),
                state: field("CurrentState"),
                wanted: field("DesiredState"),
            })
        })
        .collect()
}

/// `{"a":2,"b":1}` as `a (2), b (1)`.
fn counts(object: &Value) -> String {
    let entries = object.as_object().into_iter().flatten();
    entries.map(|(key, count)| format!("{key} ({count})")).collect::<Vec<_>>().join(", ")
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}

fn say(text: &str) {
    println!("\n== {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_from_service_ps() {
        let text = concat!(
            r#"{"ID":"abc","Name":"web.1","Node":"demo-1","DesiredState":"Running","CurrentState":"Running 3 seconds ago"}"#,
            "\n",
            r#"{"ID":"def","Name":"web.2","Node":"demo-2","DesiredState":"Shutdown","CurrentState":"Running 3 seconds ago"}"#,
            "\n",
        );
        let tasks = parse_tasks(text).unwrap();
        assert_eq!(tasks.iter().map(Task::is_running).collect::<Vec<_>>(), [true, false]);
        assert_eq!((tasks[0].id.as_str(), tasks[0].node.as_str()), ("abc", "demo-1"));
        assert!(parse_tasks("ID NAME").is_err());
    }

    /// A `swarmctl` that logs what it is asked and fails at the command that contains `failing`.
    fn stand_in(dir: &Path, failing: &str) -> Demo {
        use std::os::unix::fs::PermissionsExt;
        let swarmctl = dir.join("swarmctl");
        let task = r#"{"ID":"t1","Node":"demo-1","DesiredState":"Running","CurrentState":"Running 1 second ago"}"#;
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> {log}\ncase \"$*\" in *'{failing}'*) echo 'out of luck' >&2; exit 1;; esac\n\
             case \"$*\" in *' json') n=3; case \"$*\" in *web*) n=6;; esac; while [ $n -gt 0 ]; do echo '{task}'; n=$((n-1)); done;;\n\
             *'whoami get'*) echo '{{\"calls\":6,\"failed\":0,\"hosts\":{{\"a\":6}},\"clients\":{{\"10.0.0.2\":6}}}}';; esac\n",
            log = dir.join("log").display(),
        );
        std::fs::write(&swarmctl, script).unwrap();
        std::fs::set_permissions(&swarmctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        Demo { swarmctl }
    }

    fn log(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn everything_that_is_promised_is_shown_and_taken_down() {
        let dir = tempfile::tempdir().unwrap();
        stand_in(dir.path(), "no such command").run().unwrap();
        let log = log(dir.path());
        for promised in [
            "network create",
            "resolve web tasks.web",
            "service scale web=6",
            "playground kill demo-3",
        ] {
            assert!(log.iter().any(|line| line.contains(promised)), "{promised}: {log:#?}");
        }
        let calls = log.iter().filter(|line| line.contains("whoami get")).count();
        assert!(calls > NODES, "from every node, and again later: {calls}");
        assert_eq!(log.last().unwrap(), "playground down --name demo");
    }

    #[test]
    fn a_failure_is_told_after_everything_was_taken_down() {
        let dir = tempfile::tempdir().unwrap();
        let error = stand_in(dir.path(), "service scale").run().unwrap_err().to_string();
        assert!(error.contains("service scale web=6") && error.ends_with("out of luck"), "{error}");
        assert_eq!(log(dir.path()).last().unwrap(), "playground down --name demo");
    }

    #[test]
    fn counts_are_readable() {
        assert_eq!(counts(&serde_json::json!({"a": 2, "b": 1})), "a (2), b (1)");
    }
}
