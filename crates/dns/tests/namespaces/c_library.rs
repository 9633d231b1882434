//! The C library's resolver as programs in tasks use it: `getent` in a namespace whose resolv.conf is a task's.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{collections::BTreeSet, fs};

use swarm_dns::{DnsServer, Options};

use crate::support::{Netns, on, tasks, web};

/// `/etc/netns/NAME`, whose files `ip netns exec` mounts over those of `/etc`; removed when dropped.
struct Etc(PathBuf);

impl Etc {
    fn new(netns: &Netns) -> Self {
        let folder = PathBuf::from("/etc/netns").join(netns.name());
        fs::create_dir_all(&folder).unwrap();
        let etc = Self(folder);
        fs::write(etc.0.join("resolv.conf"), "nameserver 127.0.0.11\noptions ndots:0\n").unwrap();
        fs::write(etc.0.join("nsswitch.conf"), "hosts: dns\n").unwrap();
        etc
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The addresses `getent DATABASE NAME` prints, and its exit code.
fn getent(netns: &Netns, database: &str, name: &str) -> (BTreeSet<IpAddr>, Option<i32>) {
    let output = Command::new("ip")
        .args(["netns", "exec", netns.name(), "getent", database, name])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    (words.map(|word| word.parse().unwrap()).collect(), output.status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_find_services_and_all_fifty_tasks() {
    let netns = Netns::new();
    let _etc = Etc::new(&netns);
    let server = DnsServer::new(Options::default());
    server.publish_network("net", web(1, 50));
    server.attach("a", &netns.path(), on(&["net"])).await.unwrap();

    let started = Instant::now();
    let vip = BTreeSet::from([IpAddr::from([10, 0, 1, 100])]);
    assert_eq!(getent(&netns, "ahosts", "web"), (vip, Some(0)));
    // 50 addresses do not fit 512 octets: the library comes back over TCP.
    let all = BTreeSet::from_iter(tasks(1, 50));
    assert_eq!(getent(&netns, "ahosts", "tasks.web"), (all, Some(0)));
    let task = BTreeSet::from([tasks(1, 50)[0]]);
    assert_eq!(getent(&netns, "hosts", "10.0.1.2"), (task, Some(0)));
    // 2: not found (getent(1)).
    assert_eq!(getent(&netns, "ahosts", "nothing"), (BTreeSet::new(), Some(2)));
    // No query was left to time out.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
