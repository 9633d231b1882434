//! How far a service is: bars on a terminal, lines of what changed elsewhere. On stderr, so that stdout has the id alone.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarm_proto::control::{Progress, SlotProgress};

use crate::display::{self, Display};
use crate::output;

/// More slots than these get no line each.
const MOST_BARS: usize = 20;
/// The states a task goes through, in order.
const STATES: [&str; 8] =
    ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];

impl Display<Bars> {
    /// All is as wanted.
    pub(crate) fn converged(&mut self, name: &str) {
        let text = format!("verify: Service {name} converged");
        match self {
            Display::Quiet => {}
            Display::Plain(_) => output::note(&text),
            Display::Bars(bars) => bars.finish(Some(text)),
        }
    }

    /// It will not become as wanted; why is said elsewhere.
    pub(crate) fn abandon(&mut self) {
        if let Display::Bars(bars) = self {
            bars.finish(None);
        }
    }
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
    let SlotProgress { slot: number, state, err } = slot;
    let why = if err.is_empty() { String::new() } else { format!(": {err}") };
    format!("{number}/{desired}: {state}{why}")
}

/// A line for all, a bar for each slot, a line for the nodes.
pub(crate) struct Bars {
    all: MultiProgress,
    overall: ProgressBar,
    slots: BTreeMap<u64, ProgressBar>,
    verify: ProgressBar,
}

impl display::Bars for Bars {
    type Message = Progress;

    fn new() -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let (overall, verify) = (text_line(), text_line());
        let overall = all.add(overall);
        let verify = all.add(verify);
        Bars { all, overall, slots: BTreeMap::new(), verify }
    }

    fn show(&mut self, progress: &Progress) {
        self.overall.set_message(overall(progress));
        let shown = if progress.slots.len() <= MOST_BARS { &progress.slots[..] } else { &[] };
        self.remove_all_but(shown);
        for slot in shown {
            self.show_slot(slot, progress.desired);
        }
        self.verify.set_message(match progress.nodes {
            0 => String::new(),
            _ => verify(progress),
        });
    }

    fn lines(progress: &Progress) -> Vec<String> {
        let mut lines = vec![overall(progress)];
        if progress.slots.len() <= MOST_BARS {
            lines.extend(progress.slots.iter().map(|slot| slot_line(slot, progress.desired)));
        }
        if progress.running == progress.desired && progress.nodes > 0 {
            lines.push(verify(progress));
        }
        lines
    }
}

impl Bars {
    fn remove_all_but(&mut self, shown: &[SlotProgress]) {
        self.slots.retain(|number, bar| {
            let stays = shown.iter().any(|slot| slot.slot == *number);
            if !stays {
                self.all.remove(bar);
            }
            stays
        });
    }

    fn show_slot(&mut self, slot: &SlotProgress, desired: u64) {
        let Bars { all, slots, verify, .. } = self;
        if !slots.contains_key(&slot.slot) {
            let next = slots.range(slot.slot..).next().map_or(&*verify, |(_, bar)| bar);
            let bar = all.insert_before(next, ProgressBar::new(STATES.len() as u64));
            slots.insert(slot.slot, bar);
        }
        let bar = &slots[&slot.slot];
        let reached = STATES.iter().position(|state| *state == slot.state).map_or(0, |at| at + 1);
        bar.set_style(if slot.err.is_empty() { bar_style() } else { error_style() });
        bar.set_prefix(format!("{}/{desired}: {:<9}", slot.slot, slot.state));
        bar.set_message(output::printable(&slot.err));
        bar.set_position(reached as u64);
    }

    fn finish(&mut self, text: Option<String>) {
        self.overall.abandon();
        self.slots.values().for_each(ProgressBar::abandon);
        match text {
            Some(text) => self.verify.abandon_with_message(text),
            None => self.verify.abandon(),
        }
    }
}

fn text_line() -> ProgressBar {
    let bar = ProgressBar::new(1);
    bar.set_style(style("{wide_msg}"));
    bar
}

fn bar_style() -> ProgressStyle {
    style("{prefix} [{bar:50}]").progress_chars("=> ")
}

/// Why it does not go on, cut to the terminal's width, where the bar would be.
fn error_style() -> ProgressStyle {
    style("{prefix} {wide_msg}")
}

fn style(template: &str) -> ProgressStyle {
    // The templates are the literals above.
    ProgressStyle::with_template(template).expect("a valid template")
}

#[cfg(test)]
mod tests {
    use super::Bars;
    use crate::display::Bars as _;
    use swarm_proto::control::{Progress, SlotProgress};

    fn progress(running: u64, states: &[&str]) -> Progress {
        let slot = |(at, state): (usize, &&str)| SlotProgress {
            slot: at as u64 + 1,
            state: (*state).to_owned(),
            err: if *state == "failed" { "no such file".to_owned() } else { String::new() },
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
            Bars::lines(&progress(1, &["running", "failed"])),
            ["overall progress: 1 out of 2 tasks", "1/2: running", "2/2: failed: no such file"]
        );
        assert_eq!(
            Bars::lines(&progress(1, &["running"])),
            [
                "overall progress: 1 out of 1 tasks",
                "1/1: running",
                "verify: in force on 2 of 3 nodes"
            ]
        );
        assert_eq!(
            Bars::lines(&progress(0, &["new"; 21])),
            ["overall progress: 0 out of 21 tasks"]
        );
    }

    #[test]
    fn bars_follow_the_slots() {
        let mut bars = Bars::new();
        bars.show(&progress(1, &["running", "preparing"]));
        assert_eq!(bars.slots.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(bars.slots[&2].position(), 5);
        bars.show(&progress(0, &["failed"]));
        assert_eq!(bars.slots.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(bars.slots[&1].position(), 0);
    }
}
