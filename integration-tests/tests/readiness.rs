//! A task counts as running once it can serve: what is seen of one that listens late, elsewhere or never.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use swarm_integration_tests::{
    Calls, Client, Cluster, Task, calls_while, checks, eventually, kernel,
};
use swarm_playground::Node;

#[test]
fn readiness() {
    let cluster = Cluster::up("ready");
    cluster.create_network("", "net");
    cluster.create_service("client", "--network net --replicas 3");
    checks!(
        &cluster,
        before_it_listens_a_task_is_in_no_name_and_no_balancer,
        no_call_fails_while_late_servers_are_added,
        a_listener_on_another_port_counts_and_one_on_loopback_does_not,
        a_task_that_never_listens_runs_after_a_while_and_the_next_ones_at_once,
        with_a_timeout_of_zero_nothing_is_waited_for,
        a_task_that_ends_or_is_to_stop_is_waited_for_no_longer,
        a_restarted_daemon_waits_on_and_not_for_what_runs,
    );
}

/// Makes a service of the sample image that runs a command, without waiting for it.
fn create(c: &Cluster, name: &str, flags: &str, command: &str) {
    c.ctl(&format!("service create -d --name {name} --network net {flags} whoami {command}"));
}

fn message(task: &Task) -> &str {
    task.document["Status"]["Message"].as_str().unwrap_or_default()
}

fn readiness_of(task: &Task) -> &str {
    task.document["Status"]["Readiness"].as_str().unwrap_or_default()
}

fn is_waiting(task: &Task) -> bool {
    task.state == "starting" && readiness_of(task) == "waiting"
}

/// Waits until all tasks of a service are so.
#[track_caller]
fn all(
    c: &Client,
    what: &str,
    service: &str,
    count: usize,
    is_so: impl Fn(&Task) -> bool,
) -> Vec<Task> {
    eventually(what, || {
        let tasks: Vec<Task> =
            c.all_tasks(service).into_iter().filter(|task| task.desired == "running").collect();
        let seen = |t: &Task| format!("{} {} {:?} {:?}", t.name, t.state, message(t), t.error);
        match tasks.len() == count && tasks.iter().all(&is_so) {
            true => Ok(tasks),
            false => Err(tasks.iter().map(seen).collect::<Vec<_>>().join("; ")),
        }
    })
}

/// Who is sent to, by the balancers of all nodes and by the DNS of all clients.
fn used(c: &Cluster, service: &str) -> BTreeSet<Ipv4Addr> {
    let (vip, network) = (c.vip(service), c.network_id("net"));
    let balanced = c
        .nodes()
        .into_iter()
        .flat_map(|node| kernel::balancer(&node, &network).remove(&vip).unwrap_or_default());
    let name = format!("tasks.{service}");
    let named =
        c.tasks("client").into_iter().flat_map(|client| c.resolve(&client, &name).addresses());
    balanced.chain(named).collect()
}

fn before_it_listens_a_task_is_in_no_name_and_no_balancer(c: &Cluster) {
    create(c, "late", "--replicas 3", "serve --after 8");
    let mut looks = 0;
    let waiting = all(c, "tasks that are waited for", "late", 3, is_waiting);
    assert!(waiting.iter().all(|task| message(task) == "waiting for port 80"), "{waiting:?}");
    let shown = c.ctl("service ps --no-trunc late");
    assert_eq!(shown.matches("(waiting for port 80)").count(), 3, "{shown}");
    let logged = c.ctl_output("service logs late").stderr;
    let logged = String::from_utf8_lossy(&logged);
    assert_eq!(logged.matches("listening in 8s").count(), 3, "{logged}");
    loop {
        let used = used(c, "late");
        // Looked at afterwards: what still waits now did so then.
        let tasks = c.all_tasks("late");
        let waiting = tasks.iter().filter(|task| is_waiting(task));
        let waiting: BTreeSet<Ipv4Addr> = waiting.map(Task::address).collect();
        assert!(used.is_disjoint(&waiting), "{used:?} are used, of which {waiting:?} wait");
        if waiting.is_empty() {
            break;
        }
        looks += 1;
    }
    assert!(looks > 0, "they were never seen waiting");
    let tasks = all(c, "tasks that run", "late", 3, |task| task.state == "running");
    assert!(tasks.iter().all(|t| (message(t), readiness_of(t)) == ("started", "listening")));
    let addresses: BTreeSet<Ipv4Addr> = tasks.iter().map(Task::address).collect();
    eventually("all of them in use", || match used(c, "late") {
        used if used == addresses => Ok(()),
        used => Err(format!("{used:?}, not {addresses:?}")),
    });
}

fn no_call_fails_while_late_servers_are_added(c: &Cluster) {
    create(c, "web", "--replicas 1", "serve --after 2");
    all(c, "the first task", "web", 1, Task::is_up);
    let short = "/whoami get --summary -n 40 -c 2 --interval 10 http://web/";
    let kept = "/whoami get --summary -n 40 -c 2 --interval 10 --keep-alive http://web/";
    let made = calls_while(c, &c.tasks("client"), &[short, kept], || {
        c.ctl("service scale -q web=6");
    });
    made.iter().for_each(Calls::assert_none_failed);
    let answered: BTreeSet<&String> = made.iter().flat_map(|calls| calls.hosts.keys()).collect();
    assert_eq!(answered.len(), 6, "{answered:?}");
}

fn a_listener_on_another_port_counts_and_one_on_loopback_does_not(c: &Cluster) {
    let started = Instant::now();
    c.ctl("service create -q --name other --network net whoami serve --port 8080");
    assert!(started.elapsed() >= Duration::from_secs(1), "port 80 might have followed");
    let task = c.task("other");
    assert_eq!((message(&task), readiness_of(&task)), ("started", "listening"));
    // The DNS server of every task listens on 127.0.0.11, TCP as well.
    create(c, "deaf", "", "serve --after 10000");
    all(c, "a task that is waited for", "deaf", 1, is_waiting);
}

fn a_task_that_never_listens_runs_after_a_while_and_the_next_ones_at_once(c: &Cluster) {
    let started = Instant::now();
    let line = "service create --name deaf --network net whoami serve --after 10000";
    let output = c.ctl_output(line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && started.elapsed() >= Duration::from_secs(10), "{said}");
    for line in
        ["1/1: starting: waiting for port 80", "1/1: running: started; nothing listens on port 80"]
    {
        assert!(said.lines().any(|said| said == line), "{line:?} is not in: {said}");
    }
    let first = c.task("deaf");
    assert_eq!(
        (message(&first), readiness_of(&first)),
        ("started; nothing listens on port 80", "silent")
    );
    let shown = c.ctl("service ps --no-trunc deaf");
    assert!(shown.contains("(started; nothing listens on port 80)"), "{shown}");

    // On whatever node.
    c.ctl("service scale -q deaf=4");
    let next: Vec<Task> = c.tasks("deaf").into_iter().filter(|task| task.id != first.id).collect();
    assert_eq!(next.len(), 3);
    for task in &next {
        assert_eq!((message(task), readiness_of(task)), ("started", "unchecked"), "{}", task.name);
    }
    // Another version of the service may listen.
    c.ctl("service update -d --env-add A=1 deaf");
    eventually("a task of the new version that is waited for", || {
        let tasks = c.all_tasks("deaf");
        tasks.iter().any(is_waiting).then_some(()).ok_or(format!("{tasks:?}"))
    });
}

fn with_a_timeout_of_zero_nothing_is_waited_for(c: &Cluster) {
    let label = "--label swarm.ready-timeout";
    let command = "whoami serve --after 10000";
    c.ctl(&format!("service create -q --name hasty --network net {label}=0 {command}"));
    let task = c.task("hasty");
    assert_eq!((message(&task), readiness_of(&task)), ("started", "unchecked"));
    let started = Instant::now();
    c.ctl(&format!("service create -q --name brief --network net {label}=1s {command}"));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(readiness_of(&c.task("brief")), "silent");
    let said = c.refused(&format!("service create --name bad {label}=soon {command}"), 1);
    assert!(
        said.contains("invalid label swarm.ready-timeout: \"soon\" is not a duration"),
        "{said}"
    );
}

fn a_task_that_ends_or_is_to_stop_is_waited_for_no_longer(c: &Cluster) {
    // Longer than any patience here: nothing below comes about because that time is over.
    let patient = "--label swarm.ready-timeout=1h --restart-condition none";
    create(c, "ends", patient, "get --timeout 2 http://192.0.2.1/");
    eventually("a task that failed", || {
        let tasks = c.all_tasks("ends");
        let failed = |t: &Task| t.state == "failed" && t.error == "task: non-zero exit (1)";
        tasks.iter().any(failed).then_some(()).ok_or(format!("{tasks:?}"))
    });
    create(c, "stops", &format!("{patient} --replicas 2"), "serve --after 10000");
    all(c, "tasks that are waited for", "stops", 2, is_waiting);
    // Returns once they have ended.
    c.ctl("service scale -q stops=0");
}

fn a_restarted_daemon_waits_on_and_not_for_what_runs(c: &Cluster) {
    let timeout = Duration::from_secs(25);
    let label = format!("--label swarm.ready-timeout={}s", timeout.as_secs());
    create(c, "deaf", &label, "serve --after 10000");
    let created = Instant::now();
    let waiting = all(c, "a task that is waited for", "deaf", 1, is_waiting).remove(0);
    let node = c.node_called(&waiting.node);
    c.create_service("web", "--network net --replicas 3");
    let before = on(&c.tasks("web"), &node);
    node.kill_daemon().expect("the daemon's end");
    node.start_daemon().expect("the daemon");
    let restarted = Instant::now();
    let asked = c.client_beside(&node);
    eventually("the daemon's word", || {
        let output = asked.ctl_output("node ls");
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let ready = listed.lines().filter(|line| line.contains("Ready")).count();
        if ready == 3 { Ok(()) } else { Err(listed) }
    });
    // Not anew: it has had its time since it was started, most of which the first daemon saw.
    let silent = all(&asked, "a task that waited in vain", "deaf", 1, |task| {
        task.state == "running" && readiness_of(task) == "silent"
    });
    assert_eq!(silent[0].id, waiting.id, "it was replaced");
    let waited = created.elapsed();
    assert!(waited >= timeout, "given up too early, after {waited:?}");
    let waited = restarted.elapsed();
    assert!(waited < timeout, "waited for anew, for {waited:?}");
    let after = on(&asked.tasks("web"), &node);
    let since = |task: &Task| task.document["Status"]["Timestamp"].to_string();
    assert_eq!((&after.id, since(&after)), (&before.id, since(&before)), "it runs as it did");
    assert_eq!(readiness_of(&after), "listening");
}

fn on(tasks: &[Task], node: &Node) -> Task {
    let task = tasks.iter().find(|task| task.node == node.name());
    task.unwrap_or_else(|| panic!("no task on {}: {tasks:?}", node.name())).clone()
}
