//! `service logs` and `task logs`: lines of several tasks, each marked with where it comes from.

use std::io::Write;

use swarm_model::{Task, Timestamp};
use swarm_proto::control::{ListTasksRequest, LogRecord, LogsRequest};

use super::tasks::hostnames;
use crate::args::Logs;
use crate::client::Client;
use crate::client::ask;
use crate::error::Error;
use crate::output::{self, json, short, time};

pub(super) async fn show(mut client: Client, flags: Logs) -> Result<(), Error> {
    let mut format = LineFormat {
        timestamps: flags.timestamps,
        raw: flags.raw,
        no_trunc: flags.no_trunc,
        width: if flags.raw { 0 } else { widest(&mut client, &flags).await },
    };
    let request =
        LogsRequest { name: flags.name.clone(), follow: flags.follow, tail: flags.tail.0 };
    let mut records = client.control.logs(request).await?.into_inner();
    let mut incomplete = false;
    while let Some(record) = records.message().await? {
        if !record.err.is_empty() {
            incomplete = true;
            let LogRecord { task_name, task_id, err, .. } = &record;
            output::warn(&format!("no log of task {task_name}.{}: {err}", short(task_id, false)));
            continue;
        }
        let line = format.line(&record);
        if record.stream == "stderr" {
            // There is no other place to complain to.
            let _ = std::io::stderr().lock().write_all(&line);
        } else {
            output::raw(&line)?;
        }
    }
    if incomplete { Err(Error::Exit(1)) } else { Ok(()) }
}

/// The width of the longest prefix, so that lines are aligned from the first. Only looks depend on it: where the
/// name is a task's, or swarmd does not say, the prefixes seen so far decide.
async fn widest(client: &mut Client, flags: &Logs) -> usize {
    let request = ListTasksRequest { services: vec![flags.name.clone()], nodes: vec![] };
    let Ok(answer) = client.control.list_tasks(ask(request)).await else { return 0 };
    let documents = answer.into_inner().json;
    let Ok(tasks) = json::parse_all::<Task>("task", &documents) else { return 0 };
    let Ok(hostnames) = hostnames(client).await else { return 0 };
    let prefixes = tasks.iter().filter(|task| task.has_log()).map(|task| {
        let node = task.node_id.as_ref().and_then(|id| hostnames.get(id));
        let node = node.map(String::as_str).unwrap_or_default();
        let name = format!("{}.{}", task.service_name, task.slot);
        prefix(&name, task.id.as_str(), node, flags.no_trunc).chars().count()
    });
    prefixes.max().unwrap_or(0)
}

/// `web.1.0123456789ab@node`.
fn prefix(name: &str, id: &str, node: &str, no_trunc: bool) -> String {
    format!("{name}.{}@{node}", short(id, no_trunc))
}

/// How lines are printed.
struct LineFormat {
    timestamps: bool,
    raw: bool,
    no_trunc: bool,
    /// The widest prefix so far, in characters.
    width: usize,
}

impl LineFormat {
    /// A line with its end. Bytes that are no text stay as they are.
    fn line(&mut self, record: &LogRecord) -> Vec<u8> {
        let mut line = Vec::with_capacity(record.line.len() + 64);
        if self.timestamps {
            line.extend_from_slice(time::log_stamp(Timestamp(record.time)).as_bytes());
            line.push(b' ');
        }
        if !self.raw {
            let prefix = prefix(&record.task_name, &record.task_id, &record.node, self.no_trunc);
            self.width = self.width.max(prefix.chars().count());
            line.extend_from_slice(format!("{prefix:<0$}    | ", self.width).as_bytes());
        }
        line.extend_from_slice(&record.line);
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::{LineFormat, LogRecord};

    fn record(name: &str, node: &str) -> LogRecord {
        LogRecord {
            task_id: "0123456789abcdefghijklmno".into(),
            task_name: name.into(),
            node: node.into(),
            time: 1_714_564_800_123_000_000,
            stream: "stdout".into(),
            line: "hello".as_bytes().to_vec().into(),
            err: String::new(),
        }
    }

    #[test]
    fn lines_are_aligned() {
        let mut format = LineFormat { timestamps: false, raw: false, no_trunc: false, width: 0 };
        let mut line = |name, node| String::from_utf8(format.line(&record(name, node))).unwrap();
        assert_eq!(line("web.10", "pg-1"), "web.10.0123456789ab@pg-1    | hello\n");
        assert_eq!(line("web.1", "pg-1"), "web.1.0123456789ab@pg-1     | hello\n");
    }

    #[test]
    fn raw_lines_may_still_have_times() {
        let mut format = LineFormat { timestamps: true, raw: true, no_trunc: false, width: 0 };
        let line = String::from_utf8(format.line(&record("web.1", "n"))).unwrap();
        assert_eq!(line, "2024-05-01T12:00:00.123000000Z hello\n");
    }
}
