//! How far a service is: a line for all, one for each slot, one for the nodes.

use swarm_proto::control::{Progress, SlotProgress};

use crate::display::Report;
use crate::screen::Line;

/// More slots than these get no line each.
const MOST_SLOTS: usize = 20;
/// The states a task goes through, in order.
const STATES: [&str; 8] =
    ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];

impl Report for Progress {
    fn picture(&self) -> Vec<Line> {
        let mut lines = vec![Line::Text(overall(self))];
        lines.extend(slots(self).iter().map(|slot| slot_picture(slot, self.desired)));
        lines.push(Line::Text(if self.nodes == 0 { String::new() } else { verify(self) }));
        lines
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![overall(self)];
        lines.extend(slots(self).iter().map(|slot| slot_line(slot, self.desired)));
        if self.running == self.desired && self.nodes > 0 {
            lines.push(verify(self));
        }
        lines
    }
}

fn slots(progress: &Progress) -> &[SlotProgress] {
    if progress.slots.len() <= MOST_SLOTS { &progress.slots } else { &[] }
}

fn overall(progress: &Progress) -> String {
    let Progress { running, desired, stopping, .. } = progress;
    let leaving = if *stopping > 0 { format!(", {stopping} stopping") } else { String::new() };
    format!("overall progress: {running} out of {desired} tasks{leaving}")
}

fn verify(progress: &Progress) -> String {
    let Progress { nodes, nodes_in_force, lagging, .. } = progress;
    // A node that is merely not there yet is not worth a word; one that says why is.
    let reasons: Vec<&str> =
        lagging.iter().map(String::as_str).filter(|node| node.contains(": ")).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
    format!("verify: in force on {nodes_in_force} of {nodes} nodes{why}")
}

fn slot_line(slot: &SlotProgress, desired: u64) -> String {
    let SlotProgress { slot: number, state, .. } = slot;
    match remark(slot) {
        Some(remark) => format!("{number}/{desired}: {state}: {remark}"),
        None => format!("{number}/{desired}: {state}"),
    }
}

/// What there is to say of a slot beside its state: first what went wrong.
fn remark(slot: &SlotProgress) -> Option<&str> {
    [&slot.err, &slot.message].into_iter().find(|text| !text.is_empty()).map(String::as_str)
}

/// Why it does not go on is where the bar would be.
fn slot_picture(slot: &SlotProgress, desired: u64) -> Line {
    let SlotProgress { slot: number, state, .. } = slot;
    let head = format!("{number}/{desired}: {state:<9}");
    if let Some(remark) = remark(slot) {
        return Line::Text(format!("{head} {remark}"));
    }
    let reached = STATES.iter().position(|known| known == state).map_or(0, |at| at + 1);
    Line::Bar { head, done: reached as u64, of: STATES.len() as u64, tail: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(running: u64, states: &[&str]) -> Progress {
        let slot = |(at, state): (usize, &&str)| SlotProgress {
            slot: at as u64 + 1,
            state: (*state).to_owned(),
            err: if *state == "failed" { "no such file".to_owned() } else { String::new() },
            message: String::new(),
        };
        Progress {
            desired: states.len() as u64,
            running,
            nodes: 3,
            nodes_in_force: 2,
            slots: states.iter().enumerate().map(slot).collect(),
            ..Progress::default()
        }
    }

    #[test]
    fn lines_say_what_there_is() {
        assert_eq!(
            progress(1, &["running", "failed"]).lines(),
            ["overall progress: 1 out of 2 tasks", "1/2: running", "2/2: failed: no such file"]
        );
        assert_eq!(
            progress(1, &["running"]).lines(),
            [
                "overall progress: 1 out of 1 tasks",
                "1/1: running",
                "verify: in force on 2 of 3 nodes"
            ]
        );
        assert_eq!(progress(0, &["new"; 21]).lines(), ["overall progress: 0 out of 21 tasks"]);
    }

    #[test]
    fn what_is_waited_for_is_said_unless_there_is_an_error() {
        let mut waiting = progress(0, &["starting", "failed"]);
        for slot in &mut waiting.slots {
            slot.message = "waiting for port 80".to_owned();
        }
        assert_eq!(
            waiting.lines()[1..],
            ["1/2: starting: waiting for port 80", "2/2: failed: no such file"]
        );
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(
            waiting.picture()[1..3],
            [text("1/2: starting  waiting for port 80"), text("2/2: failed    no such file")]
        );
    }

    #[test]
    fn a_slot_has_a_bar_or_says_why_not() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(
            progress(0, &["preparing", "failed"]).picture(),
            [
                text("overall progress: 0 out of 2 tasks"),
                Line::Bar { head: "1/2: preparing".into(), done: 5, of: 8, tail: String::new() },
                text("2/2: failed    no such file"),
                text("verify: in force on 2 of 3 nodes"),
            ]
        );
        assert_eq!(progress(0, &["new"; 21]).picture().len(), 2);
    }
}
