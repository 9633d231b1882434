//! How far a rotation of the root is: a line for its digest, one for the certificates, one for the roots, and one for
//! those that are waited for.

use swarm_proto::control::RootStatus;

use crate::display::Report;
use crate::screen::Line;

const CERTIFICATES: &str = "  rotated TLS certificates:";
const ROOTS: &str = "  rotated CA certificates: ";

impl Report for RootStatus {
    fn picture(&self) -> Vec<Line> {
        let nodes = self.nodes;
        let bar = |head: &str, done: u64| Line::Bar {
            head: head.to_owned(),
            done,
            of: nodes,
            tail: format!("{done}/{nodes} nodes"),
        };
        let mut lines = vec![
            Line::Text(digest(self)),
            bar(CERTIFICATES, self.certificates),
            bar(ROOTS, self.trusting),
        ];
        lines.extend(waiting(self).map(Line::Text));
        lines
    }

    fn lines(&self) -> Vec<String> {
        let RootStatus { certificates, trusting, nodes, .. } = self;
        let mut lines = vec![
            digest(self),
            format!("{CERTIFICATES} {certificates}/{nodes} nodes"),
            format!("{ROOTS} {trusting}/{nodes} nodes"),
        ];
        lines.extend(waiting(self));
        lines
    }
}

fn digest(status: &RootStatus) -> String {
    format!("desired root digest: {}", status.digest)
}

/// A node that is merely not there yet is not worth a word; one that says why is.
fn waiting(status: &RootStatus) -> Option<String> {
    let late: Vec<&str> = status.waiting.iter().map(String::as_str).collect();
    let worth = late.iter().any(|node| node.contains(" ("));
    worth.then(|| format!("  waiting for: {}", late.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(status(&["a", "b"]).lines(), expected);
        expected.push("  waiting for: a, b (it is down)");
        assert_eq!(status(&["a", "b (it is down)"]).lines(), expected);
    }

    #[test]
    fn bars_have_the_numbers_too() {
        let tail = "3/5 nodes".to_owned();
        let bar = Line::Bar { head: CERTIFICATES.to_owned(), done: 3, of: 5, tail };
        assert_eq!(status(&["a"]).picture()[1], bar);
        assert_eq!(status(&["a"]).picture().len(), 3);
        assert_eq!(status(&["a (it is down)"]).picture().len(), 4);
    }
}
