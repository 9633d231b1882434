//! Changing services, and waiting until changes are in force.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use swarm_model::TaskState;
use swarm_proto::control::{LogRecord, Progress, SlotProgress};
use tonic::Status;

use crate::fake::Fake;
use crate::lists::{node, service, task};
use crate::support::{finish, run, spawn, swarmctl, until, wait};

fn progress(running: u64, state: &str) -> Progress {
    Progress {
        desired: 1,
        running,
        nodes: 2,
        nodes_in_force: running,
        slots: vec![SlotProgress { slot: 1, state: state.into(), ..SlotProgress::default() }],
        ..Progress::default()
    }
}

fn converged() -> Progress {
    Progress { converged: true, nodes_in_force: 2, ..progress(1, "running") }
}

#[test]
fn create_detached_sends_the_spec_and_prints_the_id() {
    let fake = Fake::new();
    let line = "service create -d --name web --network net --replicas 3 -e A=1 nginx -g daemon";
    assert_eq!(run(&fake, line).ok(), "service-id\n");
    let world = fake.world();
    let spec = world.asked[0].strip_prefix("create_service ").unwrap();
    let spec: Value = serde_json::from_str(spec).unwrap();
    assert_eq!(spec["Name"], "web");
    assert_eq!(spec["Mode"]["Replicated"]["Replicas"], 3);
    assert_eq!(spec["TaskTemplate"]["Networks"][0]["Target"], "net");
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Args"][1], "daemon");
    assert_eq!(world.asked.len(), 1, "detached means that nothing is waited for");
}

#[test]
fn create_shows_how_far_it_is_and_returns_when_in_force() {
    let fake = Fake::new();
    let said = vec![Ok(progress(0, "starting")), Ok(progress(1, "running")), Ok(converged())];
    fake.world().watches.push_back(said);
    let ran = run(&fake, "service create --name web nginx");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "service-id\n"));
    assert_eq!(
        ran.stderr,
        "overall progress: 0 out of 1 tasks\n1/1: starting\n\
         overall progress: 1 out of 1 tasks\n1/1: running\nverify: in force on 1 of 2 nodes\n\
         verify: in force on 2 of 2 nodes\nverify: Service web converged\n"
    );
    assert_eq!(fake.world().asked[1], "watch_service service-id 7");
}

#[test]
fn a_change_of_leader_is_survived() {
    let fake = Fake::new();
    let lost = || Err(Status::unavailable("the swarm has no leader now: try again"));
    let watches =
        [vec![Ok(progress(0, "new")), lost()], vec![lost()], vec![], vec![Ok(converged())]];
    fake.world().watches.extend(watches);
    let ran = run(&fake, "service create -q nginx");
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "service-id\n", ""));
}

#[test]
fn a_restart_of_swarmd_is_survived() {
    let mut fake = Fake::new();
    let mut child = spawn(swarmctl(&fake, "service create --name web nginx").stdin(Stdio::null()));
    until("watch", || fake.world().asked.len() == 2);
    fake.world().watches.push_back(vec![Ok(converged())]);
    fake.restart();
    let status = wait(&mut child);
    assert_eq!(status.code(), Some(0));
    let ran = finish(child);
    assert!(ran.stderr.ends_with("verify: Service web converged\n"), "{ran:?}");
    assert_eq!(fake.world().asked[2], "watch_service service-id 7");
}

#[test]
fn a_failure_is_an_error() {
    let fake = Fake::new();
    let failure = "task web.1.x failed: no such image".to_owned();
    fake.world().watches.push_back(vec![Ok(Progress { failure, ..progress(0, "rejected") })]);
    let ran = run(&fake, "service create -q --name web nginx");
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr, "error: service web: task web.1.x failed: no such image\n");

    fake.world().watches.push_back(vec![Err(Status::not_found("service web not found"))]);
    let ran = run(&fake, "service create -q --name web nginx");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "error: service web not found\n"));
}

#[test]
fn ctrl_c_says_that_the_work_goes_on() {
    let fake = Fake::new();
    let mut command = swarmctl(&fake, "service create --name web nginx");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    stderr.read_line(&mut text).unwrap();
    assert_eq!(text, "overall progress: 0 out of 3 tasks\n");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = wait(&mut child);
    text.clear();
    while stderr.read_line(&mut text).unwrap() > 0 {}
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("goes on in the background"), "{text}");
    assert!(text.contains("swarmctl service ps web"), "{text}");
}

#[test]
fn scale_sends_all_before_it_waits_for_any() {
    let fake = Fake::new();
    fake.world().watches.extend([vec![Ok(converged())], vec![Ok(converged())]]);
    let ran = run(&fake, "service scale -q a=3 none=1 b=5");
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stdout, "a scaled to 3\nb scaled to 5\n");
    assert_eq!(ran.stderr, "error: service none not found\n");
    let asked = &fake.world().asked;
    assert_eq!(
        asked[..],
        ["scale_service a 3", "scale_service b 5", "watch_service a 7", "watch_service b 7"]
    );
}

#[test]
fn update_begins_anew_when_it_was_out_of_date() {
    let fake = Fake::new();
    fake.world().services = vec![service("web")];
    fake.world().networks = vec![serde_json::json!({"Id": "net-id", "Name": "net"})];
    fake.world().out_of_date = 2;
    let line =
        "service update -d --image nginx:2 --network-add name=net,alias=www --env-add A=1 web";
    assert_eq!(run(&fake, line).ok(), "web\n");
    let world = fake.world();
    let rest = world.asked[0].strip_prefix("update_service web0123456789abcdef 43 ").unwrap();
    let spec: Value = serde_json::from_str(rest).unwrap();
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Image"], "nginx:2");
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Env"][0], "A=1");
    assert_eq!(spec["TaskTemplate"]["Networks"][0]["Target"], "net-id");
    assert_eq!(spec["TaskTemplate"]["Networks"][0]["Aliases"][0], "www");
}

#[test]
fn update_with_an_unknown_network_changes_nothing() {
    let fake = Fake::new();
    fake.world().services = vec![service("web")];
    run(&fake, "service update --network-add none web").failed("error: network none not found");
    assert!(fake.world().asked.is_empty());
}

#[test]
fn rm_removes_what_it_can() {
    let fake = Fake::new();
    let ran = run(&fake, "service rm a none b");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "a\nb\n"));
    assert_eq!(ran.stderr, "error: service none not found\n");
}

#[test]
fn logs_go_where_they_came_from() {
    let fake = Fake::new();
    let record = |slot: u64, stream: &str, line: &str| LogRecord {
        task_id: "0123456789abcdef".into(),
        task_name: format!("web.{slot}"),
        node: "pg-1".into(),
        stream: stream.into(),
        line: line.as_bytes().to_vec().into(),
        ..LogRecord::default()
    };
    let lost = LogRecord { err: "node pg-2 is down".into(), ..record(3, "", "") };
    let records = vec![record(1, "stdout", "one"), record(10, "stderr", "two"), lost];
    {
        let mut world = fake.world();
        world.logs = records;
        world.nodes = vec![node("n1", "pg-1", true)];
        world.tasks = vec![task("0123456789abcdef", 10, TaskState::Running, 1)];
    }
    let ran = run(&fake, "service logs --tail 5 web");
    assert_eq!(ran.code, Some(1), "a log is missing");
    assert_eq!(ran.stdout, "web.1.0123456789ab@pg-1     | one\n");
    assert_eq!(
        ran.stderr,
        "web.10.0123456789ab@pg-1    | two\n\
         warning: no log of task web.3.0123456789ab: node pg-2 is down\n"
    );
    assert_eq!(fake.world().asked.last().unwrap(), "logs web false Some(5)");
}
