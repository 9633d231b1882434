//! Lists and `inspect`.

use serde_json::{Value, json};
use swarm_model::{
    Endpoint, ManagerStatus, Meta, Node, NodeDescription, NodeRole, NodeSpec, NodeState,
    NodeStatus, Reachability, Service, ServiceSpec, Task, TaskSpec, TaskState, TaskStatus,
    Timestamp,
};

use crate::fake::Fake;
use crate::support::{finish, run, spawn, swarmctl};

pub(crate) fn node(id: &str, hostname: &str, leader: bool) -> Value {
    let node = Node {
        id: id.into(),
        meta: Meta::default(),
        spec: NodeSpec { role: NodeRole::Manager, ..NodeSpec::default() },
        description: NodeDescription { hostname: hostname.into(), ..NodeDescription::default() },
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager_status: Some(ManagerStatus {
            leader,
            reachability: Reachability::Reachable,
            addr: String::new(),
            raft_id: 1,
        }),
        ordinal: 0,
    };
    serde_json::to_value(node).unwrap()
}

pub(crate) fn service(name: &str) -> Value {
    let mut spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "nginx:1@sha256:ab".into();
    let service = Service {
        id: format!("{name}0123456789abcdef").into(),
        meta: Meta::created(41, Timestamp(0)),
        spec,
        previous_spec: None,
        endpoint: Endpoint::default(),
        update_status: None,
        pending_delete: false,
        silent: false,
    };
    let mut value = serde_json::to_value(service).unwrap();
    value["ServiceStatus"] = json!({"RunningTasks": 3, "DesiredTasks": 3});
    value
}

pub(crate) fn task(id: &str, slot: u64, state: TaskState, created: i64) -> Value {
    let task = Task {
        id: id.into(),
        meta: Meta::created(1, Timestamp(created)),
        spec: TaskSpec::default().into(),
        service_id: "s1".into(),
        service_name: "web".into(),
        slot,
        node_id: Some("n1".into()),
        status: TaskStatus { state, timestamp: Timestamp(created), ..TaskStatus::default() },
        desired_state: TaskState::Running,
        networks_attachments: vec![],
        withdrawn: None,
        superseded: None,
        ready_timeout: 0,
    };
    serde_json::to_value(task).unwrap()
}

#[test]
fn nodes_are_listed_in_each_form() {
    let fake = Fake::new();
    fake.world().nodes = vec![node("id2", "pg-10", false), node("id1", "pg-2", true)];
    fake.world().info = json!({"Swarm": {"NodeID": "id2"}});
    assert_eq!(
        run(&fake, "node ls").ok(),
        "ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION   FEATURE LEVEL\n\
         id1       pg-2       Ready     Active         Leader                            1\n\
         id2 *     pg-10      Ready     Active         Reachable                         1\n"
    );
    assert_eq!(run(&fake, "node ls -q").ok(), "id1\nid2\n");
    assert_eq!(run(&fake, "node ls -q --filter name=pg-1").ok(), "id2\n");
    let lines = run(&fake, "node ls --format json").ok();
    let own: Vec<bool> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["Self"].as_bool().unwrap())
        .collect();
    assert_eq!(own, [false, true]);
}

#[test]
fn a_stale_list_says_so_on_stderr() {
    let fake = Fake::new();
    fake.world().stale = "no quorum".to_owned();
    let ran = run(&fake, "service ls");
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stdout, "ID        NAME      MODE      REPLICAS   IMAGE\n");
    assert_eq!(ran.stderr, "warning: this list may be out of date: no quorum\n");
}

#[test]
fn services_and_networks_are_listed() {
    let fake = Fake::new();
    fake.world().services = vec![service("web")];
    fake.world().networks =
        vec![json!({"Id": "0123456789abcdef", "Name": "net", "Created": "2024-05-01T12:00:00Z",
        "Driver": "overlay", "Scope": "swarm", "Internal": false, "Labels": {}})];
    assert_eq!(
        run(&fake, "service ls").ok(),
        "ID             NAME      MODE         REPLICAS   IMAGE\n\
         web012345678   web       replicated   3/3        nginx:1\n"
    );
    assert_eq!(
        run(&fake, "network ls").ok(),
        "NETWORK ID     NAME      DRIVER    SCOPE\n0123456789ab   net       overlay   swarm\n"
    );
    assert_eq!(run(&fake, "network ls -q --no-trunc").ok(), "0123456789abcdef\n");
}

#[test]
fn tasks_are_listed_with_node_names() {
    let fake = Fake::new();
    fake.world().nodes = vec![node("n1", "pg-1", true)];
    fake.world().tasks =
        vec![task("old", 1, TaskState::Failed, 1), task("new", 1, TaskState::Running, 2)];
    let text = run(&fake, "service ps web --filter node=pg-1").ok();
    let columns: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(columns[1][..3], ["new", "web.1", "pg-1"]);
    assert_eq!(columns[2][..4], ["old", "\\_", "web.1", "pg-1"]);
    assert_eq!(run(&fake, "node ps").code, Some(0));
    assert_eq!(fake.world().asked, [r#"list_tasks ["web"] ["pg-1"]"#, r#"list_tasks [] ["self"]"#]);
}

#[test]
fn inspect_prints_what_is_found_and_names_the_rest() {
    let fake = Fake::new();
    fake.world().networks = vec![json!({"Id": "i", "Name": "net"})];
    let ran = run(&fake, "network inspect net none other");
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.stdout,
        "[\n    {\n        \"Id\": \"i\",\n        \"Name\": \"net\"\n    }\n]\n"
    );
    assert_eq!(ran.stderr, "error: network none not found\nerror: network other not found\n");
    assert_eq!(run(&fake, "task inspect x").stdout, "[]\n");
}

#[test]
fn a_closed_pipe_ends_a_list_quietly() {
    let fake = Fake::new();
    fake.world().tasks =
        (0..5000).map(|i| task(&format!("t{i}"), i, TaskState::Running, 1)).collect();
    let mut child = spawn(&mut swarmctl(&fake, "task ls"));
    drop(child.stdout.take());
    let ran = finish(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_broken_document_is_an_error() {
    let fake = Fake::new();
    fake.world().services = vec![json!({"ID": 7})];
    let ran = run(&fake, "service ls");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr.starts_with("error: swarmd sent an unreadable service document: "),
        "{ran:?}"
    );
}
