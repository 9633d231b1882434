//! `service ps`, `node ps` and `task ls`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use swarm_model::{NodeId, Task, TaskState, Timestamp};

use super::service::shown_image;
use crate::args::ListArgs;
use crate::filter::Filters;
use crate::natural;
use crate::output::{Row, capitalized, short, time};

/// Filters that all lists of tasks have; `node` and `service` are swarmd's to resolve.
pub(crate) const TASK_FILTERS: &[&str] = &["desired-state", "id", "name"];
/// Errors are cut to this many characters.
const LONGEST_ERROR: usize = 30;
/// Earlier tasks of the same slot stand below it, marked so.
const HISTORY: &str = " \\_ ";

/// What a list of tasks is made with.
pub(crate) struct TaskList<'a> {
    /// The flags.
    pub(crate) list: &'a ListArgs,
    /// The filters, checked.
    pub(crate) filters: &'a Filters,
    /// Host names of nodes.
    pub(crate) hostnames: &'a BTreeMap<NodeId, String>,
    /// The present.
    pub(crate) now: Timestamp,
}

/// A task in a list.
#[derive(Debug)]
pub(crate) struct TaskRow {
    id: String,
    name: String,
    image: String,
    node: String,
    desired_state: String,
    current_state: String,
    error: String,
}

/// The rows of a list of tasks: by slot, the newest first.
pub(crate) fn tasks(mut tasks: Vec<Task>, how: &TaskList<'_>) -> Vec<TaskRow> {
    tasks.retain(|task| matches(task, how.filters));
    tasks.sort_by(|a, b| {
        natural::compare(&a.service_name, &b.service_name)
            .then_with(|| a.service_id.cmp(&b.service_id))
            .then_with(|| a.slot.cmp(&b.slot))
            .then_with(|| b.meta.created_at.cmp(&a.meta.created_at))
            .then_with(|| a.id.cmp(&b.id))
    });
    let mut rows = Vec::with_capacity(tasks.len());
    let mut above = None;
    for task in &tasks {
        let slot = (&task.service_id, task.slot);
        let mark = if above == Some(slot) { HISTORY } else { "" };
        rows.push(row(task, mark, how));
        above = Some(slot);
    }
    rows
}

fn name(task: &Task) -> String {
    format!("{}.{}", task.service_name, task.slot)
}

fn matches(task: &Task, filters: &Filters) -> bool {
    // What is to be removed is shown as what it was told before: to shut down.
    let desired = task.desired_state.min(TaskState::Shutdown).to_string();
    filters.any("desired-state", |state| desired == state)
        && filters.any("id", |id| task.id.as_str().starts_with(id))
        && filters
            .any("name", |wanted| name(task).starts_with(wanted) || task.name().starts_with(wanted))
}

fn row(task: &Task, mark: &str, how: &TaskList<'_>) -> TaskRow {
    let no_trunc = how.list.no_trunc;
    let node = task.node_id.as_ref();
    let hostname = node.and_then(|id| how.hostnames.get(id)).cloned();
    let ago = time::ago(task.status.timestamp, how.now).to_lowercase();
    TaskRow {
        id: short(task.id.as_str(), no_trunc),
        name: format!("{mark}{}", name(task)),
        image: shown_image(&task.spec.container_spec.image, no_trunc),
        node: hostname.or_else(|| node.map(NodeId::to_string)).unwrap_or_default(),
        desired_state: capitalized(&task.desired_state.to_string()),
        current_state: current_state(task, &ago),
        error: shown_error(&task.status.err, no_trunc),
    }
}

/// As `docker ps` adds the health.
fn current_state(task: &Task, ago: &str) -> String {
    let state = capitalized(&task.status.state.to_string());
    match task.status.remark() {
        Some(remark) => format!("{state} {ago} ({remark})"),
        None => format!("{state} {ago}"),
    }
}

fn shown_error(error: &str, no_trunc: bool) -> String {
    if error.is_empty() {
        return String::new();
    }
    if no_trunc || error.chars().count() <= LONGEST_ERROR {
        return format!("\"{error}\"");
    }
    let cut: String = error.chars().take(LONGEST_ERROR - 1).collect();
    format!("\"{cut}…\"")
}

impl Row for TaskRow {
    const HEADERS: &'static [&'static str] =
        &["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR"];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        let cells = [
            &self.id,
            &self.name,
            &self.image,
            &self.node,
            &self.desired_state,
            &self.current_state,
            &self.error,
        ];
        cells.map(String::clone).into()
    }

    fn json(&self) -> Value {
        json!({
            "ID": self.id,
            "Name": self.name.trim_start_matches(HISTORY),
            "Image": self.image,
            "Node": self.node,
            "DesiredState": self.desired_state,
            "CurrentState": self.current_state,
            "Error": self.error,
            "Ports": "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{TASK_FILTERS, TaskList, TaskRow, tasks};
    use crate::args::ListArgs;
    use crate::filter::Filters;
    use crate::output::Row;
    use std::collections::BTreeMap;
    use swarm_model::*;

    const NOW: Timestamp = Timestamp(100_000_000_000);

    fn task(slot: u64, created: i64, state: TaskState) -> Task {
        let moment = Timestamp(created * 1_000_000_000);
        Task {
            id: TaskId::from(format!("task{slot}{created}")),
            meta: Meta::created(1, moment),
            spec: TaskSpec::default().into(),
            service_id: ServiceId::from("s"),
            service_name: "web".into(),
            slot,
            node_id: Some(NodeId::from("n1")),
            status: TaskStatus { timestamp: moment, state, ..TaskStatus::default() },
            desired_state: if state == TaskState::Running { state } else { TaskState::Shutdown },
            networks_attachments: vec![],
            withdrawn: None,
            superseded: None,
            ready_timeout: 0,
        }
    }

    fn list(all: Vec<Task>, filter: &[(&str, &str)]) -> Vec<TaskRow> {
        let given: Vec<_> = filter.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let filters = Filters::new(&given, TASK_FILTERS).unwrap();
        let hostnames = BTreeMap::from([(NodeId::from("n1"), "pg-1".to_owned())]);
        let list = ListArgs::default();
        let how = TaskList { list: &list, filters: &filters, hostnames: &hostnames, now: NOW };
        tasks(all, &how)
    }

    #[test]
    fn history_stands_below_its_slot() {
        let mut failed = task(1, 10, TaskState::Failed);
        failed.status.err = "task: non-zero exit (1) and some more words".into();
        let all = vec![task(10, 90, TaskState::Running), failed, task(1, 97, TaskState::Running)];
        let rows = list(all, &[]);
        let cells: Vec<_> = rows.iter().map(|row| row.cells().join("|")).collect();
        assert_eq!(
            cells,
            [
                "task197|web.1||pg-1|Running|Running 3 seconds ago|",
                "task110| \\_ web.1||pg-1|Shutdown|Failed about a minute ago|\"task: non-zero exit (1) and s…\"",
                "task1090|web.10||pg-1|Running|Running 10 seconds ago|",
            ]
        );
        assert_eq!(rows[1].json()["Name"], "web.1");
    }

    #[test]
    fn a_task_that_is_waited_for_says_so() {
        let mut waiting = task(1, 97, TaskState::Starting);
        waiting.status.readiness = Some(Readiness::Waiting);
        waiting.status.message = "waiting for port 80".into();
        let mut silent = task(2, 90, TaskState::Running);
        silent.status.readiness = Some(Readiness::Silent);
        silent.status.message = "started; nothing listens on port 80".into();
        let rows = list(vec![waiting, silent], &[]);
        let states: Vec<_> = rows.iter().map(|row| row.current_state.as_str()).collect();
        assert_eq!(
            states,
            [
                "Starting 3 seconds ago (waiting for port 80)",
                "Running 10 seconds ago (started; nothing listens on port 80)",
            ]
        );
    }

    #[test]
    fn filtered_by_desired_state_and_name() {
        let all = || vec![task(1, 1, TaskState::Running), task(2, 1, TaskState::Failed)];
        assert_eq!(list(all(), &[("desired-state", "running")]).len(), 1);
        assert_eq!(list(all(), &[("name", "web.2")])[0].name, "web.2");
        assert_eq!(list(all(), &[("name", "web")]).len(), 2);
        assert_eq!(list(all(), &[("id", "task21")]).len(), 1);
    }
}
