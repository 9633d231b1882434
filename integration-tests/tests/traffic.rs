//! Nothing is refused, reset or left hanging while a service changes: calls on new connections and on kept ones, all the
//! time, through everything that is done to a service in a day.
//!
//! `SWARM_RUNS=30` has each change made so many times: `cargo xtask test --long` does that, with nftables here and with
//! IPVS in the VM. `SWARM_PAUSE` is how many milliseconds a connection pauses between its calls. The VM pauses longer:
//! where calls take all of an emulated CPU, nodes are silent for so long that they are given up.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;

use swarm_integration_tests::outage::whoami_output;
use swarm_integration_tests::{Calls, Cluster, Task, calls_by_while, eventually};

/// New connections, requests that take their time, and connections that are kept.
fn lines(vip: Ipv4Addr, pause: u64) -> [String; 3] {
    [
        format!("get --summary --duration 2 -c 4 --interval {pause} http://{vip}/"),
        format!("get --summary -n 4 -c 2 http://{vip}/slow?ms=400"),
        format!("get --summary --duration 2 -c 4 --interval {pause} --keep-alive http://{vip}/"),
    ]
}

/// A change of the service `web`, and what puts it back.
type Change = fn(&Lab);

#[test]
fn no_call_fails_whatever_is_done_to_the_service() {
    let (runs, pause) = (number("SWARM_RUNS", 1), number("SWARM_PAUSE", 5));
    let lab = Lab::up(pause);
    let changes: [(&str, Change, Change); 5] = [
        ("scale up", |lab| lab.scale(10), |lab| lab.scale(4)),
        ("scale down", |lab| lab.scale(1), |lab| lab.scale(4)),
        ("rolling update", Lab::update, |_| {}),
        ("drain", Lab::drain, Lab::undrain),
        ("leader change", Lab::change_leader, Lab::regain_manager),
    ];
    // Far fewer than are made.
    let least = 2500 * runs / pause;
    let mut failed = BTreeMap::new();
    for (name, change, put_back) in changes {
        let (mut calls, mut errors) = (0, BTreeMap::new());
        for _ in 0..runs {
            for made in lab.calls_while(|| change(&lab)) {
                calls += made.calls;
                for (error, count) in made.errors {
                    *errors.entry(error).or_insert(0) += count;
                }
            }
            put_back(&lab);
        }
        eprintln!("{name}: {runs} runs, {calls} calls, failed: {errors:?}");
        assert!(calls > least, "{name}: only {calls} calls");
        failed.extend((!errors.is_empty()).then_some((name, errors)));
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// What the environment says, or what is usual.
fn number(variable: &str, usual: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return usual };
    let number: Option<NonZeroU64> = text.parse().ok();
    number.unwrap_or_else(|| panic!("{variable} is {text:?}, not a number above 0")).get()
}

/// Three managers; `web`, and a client on each node that nothing is done to.
struct Lab {
    cluster: Cluster,
    clients: Vec<Task>,
    lines: [String; 3],
}

impl Lab {
    fn up(pause: u64) -> Self {
        let cluster = Cluster::up("traffic");
        cluster.create_network("", "net");
        cluster.create_service("client", "--network net --replicas 3");
        cluster.create_service("web", "--network net --replicas 4");
        let mut clients = cluster.tasks("client");
        // The node that is drained takes its client along.
        clients.retain(|client| client.node != cluster.node(3).name());
        let lines = lines(cluster.vip("web"), pause);
        let node = cluster.inspect_all(&format!("node inspect {}", cluster.node(1).name()));
        eprintln!("balanced by {}", node[0]["Description"]["Balancer"]);
        Self { cluster, clients, lines }
    }

    fn calls_while(&self, change: impl FnOnce()) -> Vec<Calls> {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        calls_by_while(|task, line| self.call(task, line), &self.clients, &lines, change)
    }

    /// Past `task exec`, which may hang on the manager that is to lead no more.
    fn call(&self, from: &Task, line: &str) -> Calls {
        let node = self.cluster.node_called(&from.node);
        let output = whoami_output(&node, from, line).expect("calls");
        let mut calls: Calls = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{line}: {e}: {}", String::from_utf8_lossy(&output.stderr)));
        let errors = std::mem::take(&mut calls.errors).into_iter();
        calls.errors = errors.map(|(error, count)| (format!("{line}: {error}"), count)).collect();
        calls
    }

    fn scale(&self, replicas: usize) {
        self.cluster.ctl(&format!("service scale -q web={replicas}"));
    }

    fn update(&self) {
        self.cluster.ctl("service update -q --force web");
    }

    fn drain(&self) {
        let drained = self.cluster.node(3).name().to_owned();
        self.cluster.ctl(&format!("node update --availability drain {drained}"));
        eventually("a drained node without tasks", || {
            let tasks = self.cluster.tasks("web");
            let there = tasks.iter().filter(|task| task.node == drained).count();
            if (there, tasks.len()) == (0, 4) { Ok(()) } else { Err(format!("{tasks:?}")) }
        });
    }

    /// Gives the node its share again, for the next time.
    fn undrain(&self) {
        let name = self.cluster.node(3).name().to_owned();
        self.cluster.ctl(&format!("node update --availability active {name}"));
        self.scale(1);
        self.scale(4);
    }

    /// The leader hands over and is a manager no more.
    fn change_leader(&self) {
        let seen = |number| self.cluster.client_of(number).leader();
        let leader = eventually("a leader", || seen(1).or_else(|_| seen(2)));
        let asked = self.cluster.client_beside(&self.cluster.node_called(&leader));
        eventually("the leader to hand over", || {
            let demoted = asked.ctl_output(&format!("node demote {leader}"));
            let said = String::from_utf8_lossy(&demoted.stderr).into_owned();
            // A hand-over that takes too long is given up, and asked for again. Nothing else may fail.
            let late = said.contains("leadership was not transferred");
            assert!(demoted.status.success() || late, "{said}");
            if late { Err(said) } else { Ok(()) }
        });
        eventually("another leader", || match asked.leader()? {
            now if now == leader => Err(format!("{now} still leads")),
            _ => Ok(()),
        });
        // What is done under the new one goes on as before.
        asked.ctl("service scale -q web=6");
    }

    fn regain_manager(&self) {
        let managers = (1..=3).map(|number| self.cluster.client_of(number));
        let client =
            managers.into_iter().find(|client| client.leader().is_ok()).expect("a manager");
        for node in client.list("node ls") {
            if node["ManagerStatus"] == "" {
                client.ctl(&format!("node promote {}", node["Hostname"].as_str().expect("a name")));
            }
        }
        client.ctl("service scale -q web=4");
    }
}
