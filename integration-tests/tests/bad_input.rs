//! Bad input: one clear line, exit status 1 (2 for wrong usage), and nothing changed.
//!
//! Not tested: a kernel without VXLAN, which a test cannot take away from its own (`swarm_overlay::Error::NoVxlan`).

use std::fs;
use std::process::{Command, Output};

use swarm_images::Platform;
use swarm_images::archive::{Builder, Layer};
use swarm_integration_tests::{Cluster, checks, eventually};
use swarm_playground::{Binaries, Node};

#[test]
fn bad_input_is_refused_in_one_line_and_changes_nothing() {
    let cluster = Cluster::with("badinput", |options| options.managers = Some(1));
    cluster.create_network("--subnet 10.77.0.0/24", "net");
    cluster.create_service("web", "--network net --replicas 3");
    checks!(
        &cluster,
        names_and_references,
        subnets,
        images,
        usage,
        archives,
        an_exhausted_subnet_is_told_by_the_tasks,
        privileges_and_sockets,
        a_second_daemon,
    );
}

/// Everything that a refused command could have changed.
fn state(cluster: &Cluster) -> String {
    ["network ls", "service ls", "task ls -q", "node ls", "image ls", "service inspect web"]
        .map(|line| cluster.ctl(line))
        .join("\n")
}

/// Commands, and what their line must contain.
#[track_caller]
fn assert_refused(cluster: &Cluster, code: i32, table: &[(&str, &[&str])]) {
    let before = state(cluster);
    let mut wrong = Vec::new();
    for (line, parts) in table {
        // `~` stands for an empty word.
        let words: Vec<&str> =
            line.split_whitespace().map(|word| if word == "~" { "" } else { word }).collect();
        let output = cluster.ctl_output_words(&words);
        if let Err(reason) = one_line(&output, code, parts) {
            wrong.push(format!("swarmctl {line}: {reason}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(state(cluster), before, "a refused command changed something");
}

fn one_line(output: &Output, code: i32, parts: &[&str]) -> Result<(), String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim_end();
    let missing: Vec<_> = parts.iter().filter(|part| !said.contains(**part)).collect();
    let panicked = said.contains("panicked") || said.contains("backtrace");
    let sound = output.status.code() == Some(code) && said.lines().count() == 1;
    if sound && missing.is_empty() && !panicked {
        return Ok(());
    }
    Err(format!("{}, without {missing:?}: {said}", output.status))
}

fn names_and_references(cluster: &Cluster) {
    let long = format!("service create --name {} whoami", "x".repeat(64));
    assert_refused(
        cluster,
        1,
        &[
            ("service create --network nope whoami", &["network nope not found"]),
            ("service create --network net --network net whoami", &["net"]),
            ("service create --name web whoami", &["service web already exists"]),
            ("network create net", &["network net already exists"]),
            ("network create --opt encrypted=no bad", &["encrypted", "give it none"]),
            ("network create --opt secure bad", &["unknown network option", "secure"]),
            ("ca --rotate-network-keys", &["no network was encrypted"]),
            (&long, &["invalid service name", "63"]),
            ("service create --name a/b whoami", &["invalid service name", "a/b"]),
            ("network create -- -bad", &["invalid network name", "-bad"]),
            ("network create ~", &["invalid network name"]),
            ("network create -d bridge x", &["bridge", "overlay"]),
            ("network create --opt no.such=1 x", &["no.such"]),
            ("network create --opt com.docker.network.driver.mtu=12 x", &["MTU", "12"]),
            ("network rm net", &["network net is in use by web"]),
            ("network rm nope", &["network nope not found"]),
            ("network inspect nope", &["network nope not found"]),
            ("service rm nope", &["service nope not found"]),
            ("service ps nope", &["service nope not found"]),
            ("service inspect nope", &["service nope not found"]),
            ("service scale nope=2", &["service nope not found"]),
            ("service scale web=1=2", &["web=1"]),
            ("service update nope", &["service nope not found"]),
            ("service update --network-add nope web", &["network nope not found"]),
            ("service update --network-rm nope web", &["nope"]),
            ("service logs nope", &["nope not found"]),
            ("task logs nope", &["nope not found"]),
            ("task inspect nope", &["task nope not found"]),
            ("task exec nope ls", &["task nope not found"]),
            ("node inspect nope", &["node nope not found"]),
            ("node ps nope", &["node nope not found"]),
            ("node rm nope", &["node nope not found"]),
            ("node update --availability drain nope", &["node nope not found"]),
            ("node update --label-rm nope self", &["label nope of node"]),
            ("node promote nope", &["node nope not found"]),
            ("node demote nope", &["node nope not found"]),
            ("node demote self", &["demote the last manager of the swarm"]),
            ("image rm nope", &["nope"]),
            ("service create --limit-memory 1 whoami", &["memory"]),
            ("service create --replicas 99999999 whoami", &["99999999"]),
        ],
    );
}

fn subnets(cluster: &Cluster) {
    assert_refused(
        cluster,
        1,
        &[
            ("network create --subnet 10.77.0.0/25 x", &["overlaps", "network net"]),
            ("network create --subnet 10.77.0.0/16 x", &["overlaps", "network net"]),
            ("network create --subnet 10.78.0.0/31 x", &["too small"]),
            ("network create --subnet 10.78.0.0/32 x", &["too small"]),
            ("network create --subnet 10.78.0.5/24 x", &["10.78.0.0/24"]),
            ("network create --subnet 127.0.0.0/24 x", &["127.0.0.0/24"]),
            ("network create --subnet 224.0.0.0/24 x", &["224.0.0.0/24"]),
            ("network create --subnet 10.78.0.0/24 --gateway 10.79.0.1 x", &["gateway 10.79.0.1"]),
            ("network create --subnet 10.78.0.0/24 --gateway 10.78.0.255 x", &["10.78.0.255"]),
            ("network create --subnet 10.78.0.0/24 --ip-range 10.79.0.0/25 x", &["10.79.0.0/25"]),
            ("network create --gateway 10.78.0.1 x", &["--subnet"]),
        ],
    );
}

fn images(cluster: &Cluster) {
    // No registry listens on the discard port. Names without a host are those of Docker Hub, which a test does not ask.
    assert_refused(
        cluster,
        1,
        &[
            ("service create 127.0.0.1:9/x:1", &["127.0.0.1:9/x:1", "unreachable"]),
            ("service update --image 127.0.0.1:9/x web", &["127.0.0.1:9/x", "unreachable"]),
            ("service create Upper", &["invalid image reference", "Upper"]),
            ("service create ~", &["invalid image reference"]),
            ("service create whoami:~tag!", &["invalid image reference"]),
        ],
    );
}

fn usage(cluster: &Cluster) {
    assert_refused(
        cluster,
        2,
        &[
            ("service create --replicas -1 whoami", &["--replicas", "-1", "0 or more"]),
            ("service scale web=-1", &["web=-1", "0 or more"]),
            ("service scale web", &["SERVICE=REPLICAS"]),
            ("service scale web=x", &["web=x"]),
            ("service scale web=", &["web="]),
            ("service scale", &["SERVICE=REPLICAS"]),
            ("service create", &["IMAGE"]),
            ("service create --env =x whoami", &["NAME=VALUE"]),
            ("network create --subnet 10.1.2.0/99 x", &["10.1.2.0/99"]),
            ("network create --subnet fe80::/64 x", &["fe80::/64 is IPv6", "not served yet"]),
            ("network create --gateway here x", &["here"]),
            ("service ls --filter foo=bar", &["foo", "label"]),
            ("network ls --filter foo=bar", &["foo", "driver"]),
            ("node ls --filter foo=bar", &["foo", "role"]),
            ("task ls --filter foo=bar", &["foo", "desired-state"]),
            ("service ps --filter foo=bar web", &["foo", "desired-state"]),
            ("service ls --filter foo", &["KEY=VALUE"]),
            ("service ls --format yaml", &["yaml", "json"]),
            ("nonsense", &["nonsense", "--help"]),
            ("service create --no-such-flag whoami", &["--no-such-flag"]),
            ("join-token boss", &["boss", "worker"]),
        ],
    );
}

/// A header whose names are written as they are: the `tar` crate refuses to store malicious ones.
fn entry(kind: u8, path: &str, link: &str) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header.set_entry_type(tar::EntryType::new(kind));
    let bytes = header.as_mut_bytes();
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

fn archive_of(entries: &[(u8, &str, &str)]) -> Vec<u8> {
    let layer = entries.iter().fold(Layer::new(), |layer, (kind, path, link)| {
        layer.entry(&entry(*kind, path, link), b"").expect("an entry in memory")
    });
    let image = Builder::new().name("evil").layer(layer).build().expect("an image");
    let mut archive = Vec::new();
    image.write_docker_archive(&mut archive).expect("an archive in memory");
    archive
}

fn archives(cluster: &Cluster) {
    let node = cluster.node(1);
    let victim = node.state_dir().join("victim");
    fs::write(&victim, "untouched").expect("a file on the host");
    let outside = node.state_dir().to_string_lossy().into_owned();
    let absolute = victim.to_string_lossy().into_owned();
    let sound = archive_of(&[(b'0', "file", "")]);
    let foreign = if Platform::host().architecture == "arm64" { "amd64" } else { "arm64" };
    let mut other_platform = Vec::new();
    Builder::new()
        .name("foreign")
        .platform(Platform::linux(foreign))
        .layer(Layer::new().file("x", 0o755, b"x").expect("a file in memory"))
        .build()
        .and_then(|image| image.write_oci_archive(&mut other_platform))
        .expect("an archive in memory");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["archive"]),
        ("text", b"no archive at all\n".repeat(100), &["not a tar archive"]),
        ("truncated", sound[..sound.len() / 2].to_vec(), &["archive"]),
        ("parent", archive_of(&[(b'0', "../victim", "")]), &["../victim", ".."]),
        (
            "symbolic-link",
            archive_of(&[(b'2', "esc", &outside), (b'0', "esc/victim", "")]),
            &["esc/victim", "symbolic link"],
        ),
        ("hard-link", archive_of(&[(b'1', "h", &absolute)]), &["is not in the layer"]),
        ("device", archive_of(&[(b'4', "../sda", "")]), &["../sda", ".."]),
        ("platform", other_platform, &["linux/"]),
    ];
    let before = state(cluster);
    let mut wrong = Vec::new();
    for (name, content, parts) in cases {
        let path = node.state_dir().join(format!("{name}.tar"));
        fs::write(&path, content).expect("an archive on the host");
        let words = ["image", "load", "-i", &path.to_string_lossy()].map(str::to_owned);
        let output = node.swarmctl_output(&words).expect("swarmctl runs");
        wrong.extend(one_line(&output, 1, parts).err().map(|reason| format!("{name}: {reason}")));
    }
    for (path, part) in [("/no/such/archive", "/no/such/archive"), ("/etc", "directory")] {
        let output = cluster.ctl_output(&format!("image load -i {path}"));
        wrong.extend(one_line(&output, 1, &[part]).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(state(cluster), before, "a refused archive left something");
    assert_eq!(fs::read_to_string(&victim).expect("the file on the host"), "untouched");
}

fn an_exhausted_subnet_is_told_by_the_tasks(cluster: &Cluster) {
    // A /29 has 6 hosts: gateway, VIP and 4 tasks.
    cluster.create_network("--subnet 10.79.0.0/29", "tiny");
    cluster.ctl("service create -d --name many --network tiny --replicas 6 whoami");
    eventually("four tasks that run and two that say why not", || {
        let listed = cluster.ctl("service ps --no-trunc many");
        let running = cluster.tasks("many").len();
        let says = |line: &&str| line.contains("address") && line.contains("tiny");
        let told = listed.lines().filter(says).count();
        if (running, told) == (4, 2) { Ok(()) } else { Err(format!("{running}, {told}: {listed}")) }
    });
    // Room for the others.
    cluster.ctl("service scale many=4");
}

/// `words` as nobody, on a host.
fn as_nobody(node: &Node, words: &[&str]) -> Output {
    let setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command: Command = node.command(setpriv[0]).expect("a command");
    command.args(&setpriv[1..]).args(words).output().expect("setpriv runs")
}

fn privileges_and_sockets(cluster: &Cluster) {
    let node = cluster.node(1);
    let binaries = Binaries::locate().expect("built programs");
    let (swarmctl, swarmd) =
        (binaries.swarmctl.to_string_lossy(), binaries.swarmd.to_string_lossy());
    let cases: [(&[&str], &[&str]); 3] = [
        (&[&swarmctl, "node", "ls"], &["permission denied", "root"]),
        (&[&swarmd, "--state-dir", "/tmp/s", "--run-dir", "/tmp/r"], &["root"]),
        (&[&swarmctl, "playground", "up", "--name", "nobodys"], &["root"]),
    ];
    for (words, parts) in cases {
        one_line(&as_nobody(&node, words), 1, parts).unwrap_or_else(|e| panic!("{words:?}: {e}"));
    }
    let dead = ["/no/such/swarmd.sock", "/run/dead.sock"];
    // A socket that nobody listens on any more.
    let path = node.path_of(dead[1]).expect("a path on the host");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket on the host"));
    for socket in dead {
        let output = cluster.ctl_output(&format!("-H unix://{socket} node ls"));
        one_line(&output, 1, &[socket, "swarmd", "start"]).unwrap_or_else(|e| panic!("{e}"));
    }
    let output = cluster.ctl_output("-H tcp://127.0.0.1:2377 node ls");
    one_line(&output, 2, &["unix://"]).unwrap_or_else(|e| panic!("{e}"));
}

fn a_second_daemon(cluster: &Cluster) {
    let node = cluster.node(1);
    let swarmd = Binaries::locate().expect("built programs").swarmd;
    let swarmd = swarmd.to_string_lossy();
    let own = node.state_dir().to_string_lossy().into_owned();
    let other = node.state_dir().join("other").to_string_lossy().into_owned();
    let cases: [(&[&str], &[&str]); 3] = [
        (&["--state-dir", &own], &["another swarmd"]),
        (&["--state-dir", &other], &["another swarmd", "swarmd.sock"]),
        (&["--state-dir", &own, "--run-dir", &other], &["in use", "another"]),
    ];
    let before = state(cluster);
    for (args, parts) in cases {
        let words = ["timeout", "20", &swarmd].into_iter().chain(args.iter().copied());
        let output = node.exec(words).expect("swarmd runs");
        one_line(&output, 1, parts).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    }
    let output = node.exec([&*swarmd, "--no-such-flag"]).expect("swarmd runs");
    one_line(&output, 2, &["--no-such-flag"]).unwrap_or_else(|e| panic!("{e}"));
    let registry =
        ["timeout", "20", &swarmd, "--insecure-registry", "http://x", "--run-dir", &other];
    let output = node.exec(registry).expect("swarmd runs");
    one_line(&output, 2, &["http://x", "HOST:PORT"]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(state(cluster), before, "the second daemon changed something");
    cluster.ctl("service scale web=4");
    cluster.ctl("service scale web=3");
}
