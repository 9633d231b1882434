//! Containers as their owners see them: what runs in them, exec, logs, limits, restarts.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Output, Stdio};
use swarm_integration_tests::{Cluster, PATIENCE, Task, checks, eventually, image};
use swarm_playground::Binaries;

#[test]
fn tasks() {
    let cluster = Cluster::up("tasks");
    image::load_busybox(&cluster);
    cluster.create_network("", "net");
    cluster.ctl(&format!(
        "service create -q --name box --network net --replicas 3 {}",
        image::BUSYBOX
    ));
    checks!(
        &cluster,
        environment_directory_user_and_entry_point_are_as_asked,
        exec_reaches_any_task_from_any_manager_and_gives_exit_codes,
        exec_hands_on_input_and_a_terminal,
        logs_are_tailed_and_followed,
        limits_are_set_and_an_oom_kill_is_told,
        tasks_are_restarted_as_the_policy_says,
        a_command_that_cannot_be_run_is_told,
        tasks_are_asked_to_end_and_killed_after_the_grace_period,
    );
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a service of busybox that runs a script, without waiting for it.
fn run_script(c: &Cluster, name: &str, flags: &str, script: &str) {
    let line = format!("service create -d --name {name} --network net {flags} {}", image::BUSYBOX);
    let words: Vec<&str> = line.split_whitespace().chain(["sh", "-c", script]).collect();
    c.ctl_words(&words);
}

/// Waits until a service has tasks, which it may not have when `service create --detach` returns, and they are as wanted.
#[track_caller]
fn wait_for(c: &Cluster, what: &str, service: &str, wanted: impl Fn(&[Task]) -> bool) -> Vec<Task> {
    eventually(what, || {
        let tasks = c.all_tasks(service);
        let shown = |t: &Task| format!("{} {} {} {:?}", t.name, t.state, t.desired, t.error);
        if !tasks.is_empty() && wanted(&tasks) {
            Ok(tasks)
        } else {
            Err(format!("{:#?}", tasks.iter().map(shown).collect::<Vec<_>>()))
        }
    })
}

fn environment_directory_user_and_entry_point_are_as_asked(c: &Cluster) {
    let flags = "--network net --env A=1 --env EMPTY= --workdir /bin --user worker";
    let line =
        format!("service create -q --name app {flags} --entrypoint sleep {} 1234", image::BUSYBOX);
    c.ctl(&line);
    let task = c.task("app");
    let run = |line: &str| {
        let output = c.exec(&task, line);
        assert!(output.status.success(), "{line}: {output:?}");
        out(&output)
    };
    assert_eq!(run("cat /proc/1/cmdline"), "sleep\x001234\0");
    assert_eq!(run("pwd").trim(), "/bin");
    assert_eq!((run("id -u").trim(), run("id -g").trim()), ("1234", "2345"));
    assert!(run("id -G").split_whitespace().any(|group| group == "77"), "{}", run("id"));
    let environment = run("cat /proc/1/environ");
    let variables: Vec<&str> = environment.split('\0').collect();
    let hostname = format!("HOSTNAME={}", task.hostname());
    for expected in ["A=1", "EMPTY=", "FROM_IMAGE=yes", "PATH=/bin", &hostname] {
        assert!(variables.contains(&expected), "{expected} is missing: {variables:?}");
    }
    assert_eq!(run("cat /etc/hostname").trim(), task.hostname());
    let own = format!("{}\t{}", task.address(), task.hostname());
    assert!(run("cat /etc/hosts").contains(&own), "{}", run("cat /etc/hosts"));
    assert!(run("cat /etc/resolv.conf").contains("nameserver 127.0.0.11"));
    // An unprivileged user stays so.
    assert!(!c.exec(&task, "cat /proc/1/mem").status.success());
    assert_eq!(out(&c.exec(&task, "sh -c id")), run("id"));
    let root = c.ctl(&format!("task exec -u 0 -w / -e X=y {} sh -c pwd;id", task.id));
    assert!(root.starts_with("/\n"), "{root}");
}

fn exec_reaches_any_task_from_any_manager_and_gives_exit_codes(c: &Cluster) {
    for number in 1..=c.nodes().len() {
        let client = c.client_of(number);
        for task in client.tasks("box") {
            let output =
                client.exec_words(&task, &["sh", "-c", "cat /etc/hostname; echo no >&2; exit 7"]);
            assert_eq!(output.status.code(), Some(7), "{output:?}");
            assert_eq!(out(&output).trim(), task.hostname());
            assert_eq!(String::from_utf8_lossy(&output.stderr), "no\n");
        }
    }
    let task = &c.tasks("box")[0];
    let code = |words: &[&str]| c.exec_words(task, words).status.code();
    assert_eq!(code(&["echo"]), Some(0));
    assert_eq!(code(&["/no/such"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    // By name, and a name that means nothing.
    assert_eq!(c.ctl("task exec box.1 echo hello"), "hello\n");
    assert!(c.refused("task exec box.99 echo", 1).contains("box.99"));
}

fn exec_hands_on_input_and_a_terminal(c: &Cluster) {
    let task = c.tasks("box").into_iter().find(|task| task.node != c.node(1).name()).unwrap();
    let swarmctl = Binaries::locate().unwrap().swarmctl;
    let input: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut command = c.node(1).command(&swarmctl).unwrap();
    command.args(["task", "exec", "-i", &task.id, "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    // Without -t there is no terminal; with it there is, of the size of ours, and the exit code comes through.
    assert!(!c.exec(&task, "tty").status.success());
    let line = format!(
        "stty rows 33 cols 99; {} task exec -it {} sh -c 'tty; busybox stty size; exit 5'",
        swarmctl.display(),
        task.id
    );
    let output = c.node(1).exec(["script", "-qec", &line, "/dev/null"]).unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(out(&output).contains("/dev/") && out(&output).contains("33 99"), "{output:?}");
}

fn logs_are_tailed_and_followed(c: &Cluster) {
    let script = "i=0; while true; do i=$((i+1)); echo line $i; [ $i -lt 100 ] || sleep 0.1; done";
    run_script(c, "talker", "--replicas 2", script);
    wait_for(c, "two tasks", "talker", |tasks| tasks.iter().filter(|t| t.is_up()).count() == 2);
    eventually("a hundred lines", || {
        let text = c.ctl("service logs talker");
        if text.matches("| line 100\n").count() == 2 { Ok(()) } else { Err(text) }
    });
    assert_eq!(c.ctl("service logs --tail 3 talker").lines().count(), 6);
    for task in c.tasks("talker") {
        let text = c.ctl(&format!("task logs --tail 2 --raw {}", task.id));
        let numbers: Vec<u32> = text.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert_eq!(numbers[1], numbers[0] + 1, "{text}");
        let prefix = format!("{}.{}@{}", task.name, task.hostname(), task.node);
        assert!(c.ctl("service logs --tail 1 talker").contains(&prefix));
    }
    let talkers = c.tasks("talker");
    let mut follower = Follower::start(c, &["--tail", "0", "talker"]);
    let mut followed: Vec<String> = Vec::new();
    let of = |lines: &[String], task: &Task| -> Vec<u32> {
        let lines = lines.iter().filter(|line| line.contains(task.hostname()));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    // Nodes do not begin at the same time.
    while talkers.iter().any(|task| of(&followed, task).len() < 5) {
        followed.push(follower.next().unwrap_or_else(|| panic!("it ends: {followed:?}")));
    }
    for numbers in talkers.iter().map(|task| of(&followed, task)) {
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "lines are lost: {numbers:?}"
        );
    }
}

/// `service logs --follow`.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(c: &Cluster, words: &[&str]) -> Self {
        let swarmctl = Binaries::locate().unwrap().swarmctl;
        let mut command = c.node(1).command("timeout").unwrap();
        command.arg(PATIENCE.as_secs().to_string()).arg(swarmctl);
        command.args(["service", "logs", "-f"]).args(words).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line; none once it has ended, at the latest when patience does.
    fn next(&mut self) -> Option<String> {
        self.lines.next().map(Result::unwrap)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended; what it was to tell is told already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn limits_are_set_and_an_oom_kill_is_told(c: &Cluster) {
    let flags = "--limit-memory 64m --limit-cpu 0.5";
    c.ctl(&format!("service create -q --name bounded --network net {flags} {}", image::BUSYBOX));
    let script = "cd /sys/fs/cgroup; if [ -e memory.max ]; then cat memory.max cpu.max; \
                  else cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us; fi";
    let output = c.exec_words(&c.task("bounded"), &["sh", "-c", script]);
    let words: Vec<u64> =
        out(&output).split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(words[0], 64 << 20, "{output:?}");
    assert_eq!(words[1] * 2, words[2], "{output:?}");

    run_script(c, "hungry", "--limit-memory 16m --restart-condition none", "exec tail /dev/zero");
    let tasks = wait_for(c, "an OOM kill", "hungry", |tasks| tasks[0].state == "failed");
    assert!(tasks[0].error.contains("137"), "{:?}", tasks[0]);
    let shown = c.ctl("service ps --no-trunc hungry").to_lowercase();
    assert!(shown.contains("memory") || shown.contains("oom"), "{shown}");
}

fn tasks_are_restarted_as_the_policy_says(c: &Cluster) {
    let of_slot = |tasks: &[Task]| tasks.iter().all(|task| task.slot == 1);
    let flags = |condition: &str| format!("--restart-condition {condition} --restart-delay 200ms");
    run_script(c, "never", &flags("none"), "exit 3");
    run_script(c, "well", &flags("on-failure"), "exit 0");
    run_script(c, "failing", &flags("on-failure"), "exit 3");
    run_script(c, "always", &flags("any"), "exit 0");

    let replaced = |tasks: &[Task]| tasks.len() > 2 && of_slot(tasks);
    let failing = wait_for(c, "replacements", "failing", replaced);
    let ended = failing.iter().filter(|task| task.state == "failed");
    assert!(ended.clone().all(|task| task.error.contains("non-zero exit (3)")), "{failing:?}");
    assert!(ended.count() >= 2);
    let always = wait_for(c, "replacements", "always", replaced);
    assert!(always.iter().filter(|task| task.state == "complete").count() >= 2, "{always:?}");
    // These had as much time.
    let never = wait_for(c, "a failure", "never", |tasks| tasks[0].state == "failed");
    assert_eq!((never.len(), never[0].error.contains("exit (3)")), (1, true), "{never:?}");
    let well = wait_for(c, "completion", "well", |tasks| tasks[0].state == "complete");
    assert_eq!(well.len(), 1, "{well:?}");
}

fn a_command_that_cannot_be_run_is_told(c: &Cluster) {
    let line = "service create -d --name wrong --network net --restart-condition none";
    c.ctl(&format!("{line} {} /no/such/program", image::BUSYBOX));
    let tasks = wait_for(c, "a failure", "wrong", |tasks| {
        ["failed", "rejected"].contains(&tasks[0].state.as_str())
    });
    assert!(tasks[0].error.contains("/no/such/program"), "{:?}", tasks[0].error);
    assert!(c.ctl("service ps --no-trunc wrong").contains("/no/such/program"));
}

fn tasks_are_asked_to_end_and_killed_after_the_grace_period(c: &Cluster) {
    let polite = "trap 'echo asked; exit 0' TERM; echo ready; while true; do sleep 0.1; done";
    let deaf = "trap '' TERM; echo ready; while true; do sleep 0.1; done";
    run_script(c, "polite", "", polite);
    run_script(c, "deaf", "--stop-grace-period 1s", deaf);
    for (service, script, last_words) in [("polite", polite, Some("asked")), ("deaf", deaf, None)] {
        eventually("the script", || {
            let said = c.ctl(&format!("service logs --raw {service}"));
            if said == "ready\n" { Ok(()) } else { Err(said) }
        });
        // Two for a moment, when the shell has forked and its child not yet become sleep.
        eventually("one process of the script", || match running(c, script) {
            1 => Ok(()),
            other => Err(format!("{other} run")),
        });
        // It has begun before the task ends: there is no log of a task that is gone.
        let mut follower = Follower::start(c, &["--tail", "all", "--raw", service]);
        assert_eq!(follower.next().as_deref(), Some("ready"));
        c.ctl(&format!("service scale -q {service}=0"));
        if let Some(last_words) = last_words {
            assert_eq!(follower.next().as_deref(), Some(last_words));
        }
        eventually("the end of the script", || match running(c, script) {
            0 => Ok(()),
            left => Err(format!("{left} run")),
        });
    }
}

/// Processes of a script on any node.
fn running(c: &Cluster, script: &str) -> usize {
    let command_line = format!("sh\0-c\0{script}\0");
    let runs = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line == command_line.as_bytes())
    };
    c.nodes()
        .iter()
        .map(|node| node.processes().unwrap().iter().filter(|pid| runs(pid)).count())
        .sum()
}
