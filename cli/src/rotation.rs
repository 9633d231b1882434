//! How far a rotation of the root is: bars on a terminal, lines of what changed elsewhere. On stderr, so that stdout has
//! the certificate alone.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarm_proto::control::RootStatus;

use crate::display::{self, Display};
use crate::output;

const CERTIFICATES: &str = "  rotated TLS certificates:";
const ROOTS: &str = "  rotated CA certificates: ";

impl Display<Bars> {
    /// Leaves what is shown.
    pub(crate) fn finish(&mut self) {
        if let Display::Bars(bars) = self {
            bars.finish();
        }
    }
}

fn digest(status: &RootStatus) -> String {
    format!("desired root digest: {}", status.digest)
}

/// A node that is merely not there yet is not worth a word; one that says why is.
fn waiting(status: &RootStatus) -> String {
    let late: Vec<&str> = status.waiting.iter().map(String::as_str).collect();
    match late.iter().any(|node| node.contains(" (")) {
        true => format!("  waiting for: {}", late.join(", ")),
        false => String::new(),
    }
}

/// A line for the digest, a bar for the certificates, one for the roots, a line for those that are waited for.
pub(crate) struct Bars {
    digest: ProgressBar,
    certificates: ProgressBar,
    roots: ProgressBar,
    waiting: ProgressBar,
}

impl display::Bars for Bars {
    type Message = RootStatus;

    fn new() -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let add = |template: &str| {
            let bar = all.add(ProgressBar::new(1));
            // The templates are the literals below.
            let style = ProgressStyle::with_template(template).expect("a valid template");
            bar.set_style(style.progress_chars("=> "));
            bar
        };
        let bar = "{prefix} [{bar:50}] {pos}/{len} nodes";
        let bars = Bars {
            digest: add("{wide_msg}"),
            certificates: add(bar),
            roots: add(bar),
            waiting: add("{wide_msg}"),
        };
        bars.certificates.set_prefix(CERTIFICATES);
        bars.roots.set_prefix(ROOTS);
        bars
    }

    fn show(&mut self, status: &RootStatus) {
        self.digest.set_message(digest(status));
        for (bar, there) in
            [(&self.certificates, status.certificates), (&self.roots, status.trusting)]
        {
            bar.set_length(status.nodes);
            bar.set_position(there);
        }
        self.waiting.set_message(output::printable(&waiting(status)));
    }

    fn lines(status: &RootStatus) -> Vec<String> {
        let RootStatus { certificates, trusting, nodes, .. } = status;
        let mut lines = vec![
            digest(status),
            format!("{CERTIFICATES} {certificates}/{nodes} nodes"),
            format!("{ROOTS} {trusting}/{nodes} nodes"),
        ];
        lines.extend(Some(waiting(status)).filter(|line| !line.is_empty()));
        lines
    }
}

impl Bars {
    fn finish(&self) {
        for bar in [&self.digest, &self.certificates, &self.roots] {
            bar.abandon();
        }
        self.waiting.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Bars;
    use crate::display::Bars as _;
    use swarm_proto::control::RootStatus;

    fn status(waiting: &[&str]) -> RootStatus {
        RootStatus {
            digest: "sha256:ab".into(),
            rotating: true,
            nodes: 5,
            certificates: 3,
            waiting: waiting.iter().map(ToString::to_string).collect(),
            ..RootStatus::default()
        }
    }

    #[test]
    fn lines_are_dockers_and_name_who_is_waited_for_if_that_may_take_a_while() {
        let mut expected = vec![
            "desired root digest: sha256:ab",
            "  rotated TLS certificates: 3/5 nodes",
            "  rotated CA certificates:  0/5 nodes",
        ];
        assert_eq!(Bars::lines(&status(&["a", "b"])), expected);
        expected.push("  waiting for: a, b (it is down)");
        assert_eq!(Bars::lines(&status(&["a", "b (it is down)"])), expected);
    }

    #[test]
    fn bars_follow() {
        let mut bars = Bars::new();
        bars.show(&status(&["a"]));
        assert_eq!((bars.certificates.position(), bars.certificates.length()), (3, Some(5)));
        bars.finish();
    }
}
