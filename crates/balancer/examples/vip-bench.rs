//! `vip-bench WHOAMI [ROUNDS [SECONDS]]`: ways from a client to a service's tasks on another node, side by side in one
//! run, as JSON. WHOAMI is the static `whoami`. Needs root and a kernel with IPVS: `cargo xtask vm bench`.
//!
//! Each way has two nodes of its own with a VXLAN between them, a client on one and three tasks on the other:
//! - `direct`: to a task's own address, with no balancer anywhere.
//! - `ipvs`, `nftables`: to the VIP, balanced in the network's namespace of the client's node.
//! - `docker`: to the VIP as Docker Swarm has it: a namespace on the network with an address of its own, one for each
//!   node, that balances by IPVS and masquerades, so that tasks see its address.

#[allow(dead_code, reason = "the tests' hosts; tests need more of them")]
#[path = "../tests/conformance/lab.rs"]
mod lab;

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Instant,
};

use lab::{ENDPOINT_A, ENDPOINT_B, Segment, Task, TwoNodes, VIP, eventually, many_services};
use serde_json::{Value, json};
use swarm_balancer::{Backend, Balancer};

/// Clients at once where the rate of new connections is measured.
const CONCURRENCY: u32 = 4;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let whoami = Path::new(arguments.first().expect("the path of whoami"));
    let number = |at: usize| arguments.get(at).map(|text| text.parse().expect("a number"));
    let (rounds, seconds): (u32, u32) = (number(1).unwrap_or(3), number(2).unwrap_or(3));

    let ways = [
        Way::direct(whoami),
        Way::balanced(whoami, "ipvs", &ipvs()).await,
        Way::balanced(whoami, "nftables", &nftables()).await,
        Way::docker(whoami),
    ];
    let mut measured: Vec<Value> = Vec::new();
    for round in 0..rounds {
        // Not always in the same order: what a machine does beside this comes and goes.
        for at in 0..ways.len() {
            let way = &ways[(at + round as usize) % ways.len()];
            measured.push(way.measure(whoami, round, seconds));
        }
    }
    let programming = [program("ipvs", &ipvs()).await, program("nftables", &nftables()).await];
    let machine = json!({ "kernel": kernel(), "rounds": rounds, "seconds": seconds });
    println!("{}", json!({ "machine": machine, "ways": measured, "programming": programming }));
}

fn ipvs() -> Arc<dyn Balancer> {
    swarm_balancer::ipvs().expect("nft is installed")
}

fn nftables() -> Arc<dyn Balancer> {
    swarm_balancer::nftables().expect("nft is installed")
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel").trim().to_owned()
}

/// Two nodes, a client and its target.
struct Way {
    name: &'static str,
    target: Ipv4Addr,
    client: Task,
    nodes: TwoNodes,
    tasks: [Task; 3],
    _servers: Servers,
    /// Docker's balancer; it goes with the way.
    _lb: Option<Task>,
}

/// They end when dropped.
struct Servers(Vec<Child>);

impl Way {
    fn new(whoami: &Path, name: &'static str, target: Option<Ipv4Addr>) -> Self {
        let nodes = TwoNodes::new();
        let client = nodes.a.task(10);
        let tasks = nodes.b.tasks([11, 12, 13]);
        tasks.iter().for_each(|task| nodes.a.remote(task, ENDPOINT_B));
        nodes.b.remote(&client, ENDPOINT_A);
        tasks.iter().for_each(|task| client.wait_for(task.addr));
        let servers = Servers(tasks.iter().map(|task| serve(task, whoami)).collect());
        let target = target.unwrap_or(tasks[0].addr);
        Self { name, target, client, nodes, tasks, _servers: servers, _lb: None }
    }

    fn direct(whoami: &Path) -> Self {
        Self::new(whoami, "direct", None)
    }

    async fn balanced(whoami: &Path, name: &'static str, engine: &Arc<dyn Balancer>) -> Self {
        let way = Self::new(whoami, name, Some(VIP));
        let far = |task: &Task| Backend { local: false, ..task.backend() };
        let backends = way.tasks.iter().map(far).collect();
        engine.program(&way.nodes.a.web(backends)).await.expect("a balancer");
        way
    }

    /// As `docker network inspect` shows it: `lb-NETWORK`, with an address on each node.
    fn docker(whoami: &Path) -> Self {
        let way = Self::new(whoami, "docker", Some(VIP));
        let node = &way.nodes.a;
        let lb = node.task(250);
        way.nodes.b.remote(&lb, ENDPOINT_A);
        node.ns.ip(&format!("addr del {VIP}/32 dev br0"));
        lb.ns.ip(&format!("addr add {VIP}/32 dev eth0"));
        let commands = [
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0"
                .to_owned(),
            "ipvsadm -A -f 256 -s rr".to_owned(),
            "sysctl -qw net.ipv4.vs.conntrack=1".to_owned(),
            "nft add table ip lb".to_owned(),
            "nft add chain ip lb entry { type filter hook prerouting priority mangle ; }".to_owned(),
            format!("nft add rule ip lb entry ip daddr {VIP} meta mark set 256"),
            "nft add chain ip lb leave { type nat hook postrouting priority srcnat ; }".to_owned(),
            format!("nft add rule ip lb leave ip saddr 10.0.1.0/24 snat to {}", lb.addr),
        ];
        let backends =
            way.tasks.iter().map(|task| format!("ipvsadm -a -f 256 -r {} -m", task.addr));
        for command in commands.into_iter().chain(backends) {
            lb.ns.command(&command.split(' ').collect::<Vec<_>>());
        }
        Self { _lb: Some(lb), ..way }
    }

    fn measure(&self, whoami: &Path, round: u32, seconds: u32) -> Value {
        let url = format!("http://{}/", self.target);
        let run = |line: String| -> Value {
            let whoami = whoami.to_str().expect("a path in UTF-8");
            let words: Vec<&str> = [whoami].into_iter().chain(line.split(' ')).collect();
            serde_json::from_str(&self.client.ns.command(&words)).expect("a summary")
        };
        let load = run(format!("tcp-load -c {CONCURRENCY} --duration {seconds} {url}"));
        let calls = run(format!("get --summary -c {CONCURRENCY} --duration {seconds} {url}"));
        let requests = run(format!("get --summary --keep-alive --duration {seconds} {url}"));
        json!({
            "way": self.name,
            "round": round,
            "gbit_per_s": load["gbit_per_s"],
            "connections_per_s": calls["rate"],
            "answered_by": calls["hosts"].as_object().map_or(0, serde_json::Map::len),
            "request_p50_us": requests["latency_us"]["p50"],
            "request_p99_us": requests["latency_us"]["p99"],
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            // One that ended before is no less gone.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A server with a host name of its own, by which it says who answered.
fn serve(task: &Task, whoami: &Path) -> Child {
    let script = "echo \"$0\" >/proc/sys/kernel/hostname; exec \"$1\"";
    let mut server = Command::new("unshare");
    server.args(["--uts", "sh", "-c", script, &task.addr.to_string()]).arg(whoami);
    let server = task
        .ns
        .enter(|| server.stdout(Stdio::null()).stderr(Stdio::null()).spawn())
        .expect("unshare runs");
    let target = SocketAddrV4::new(task.addr, 80);
    task.ns.enter(|| eventually("the server answers", || TcpStream::connect(target).is_ok()));
    server
}

/// 1000 services with 10 backends each: all at once, and one backend more.
async fn program(name: &str, engine: &Arc<dyn Balancer>) -> Value {
    let segment = Segment::new(name);
    let mut network = many_services(&segment, 1000);
    let started = Instant::now();
    let first = engine.program(&network).await.expect("1000 services");
    let all = started.elapsed();
    network.services[500].backends.pop();
    let started = Instant::now();
    let change = engine.program(&network).await.expect("one change");
    let one = started.elapsed();
    let started = Instant::now();
    engine.audit(&network).await.expect("an audit");
    json!({
        "engine": name,
        "all_s": all.as_secs_f64(),
        "operations": first.operations,
        "one_change_ms": one.as_secs_f64() * 1e3,
        "one_change_operations": change.operations,
        "audit_ms": started.elapsed().as_secs_f64() * 1e3,
    })
}
