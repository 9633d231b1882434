//! What may be asked of this host, by what it is: pure.

use crate::daemon::Order;
use crate::vault::LOCKED;

/// What this host is, or what it is becoming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Nothing,
    Joining,
    /// Its node starts, or starts again.
    Starting,
    Locked,
    Node,
    /// The node becomes a manager, or ceases to be one.
    NewRole,
    Leaving,
    Failed(String),
}

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Init,
    GoOnAlone,
    Join,
    Leave { force: bool },
    Unlock,
    Move,
}

impl Asked {
    pub(super) fn of(order: &Order) -> Asked {
        match order {
            Order::Init(request, _) if request.force_new_cluster => Asked::GoOnAlone,
            Order::Init(..) => Asked::Init,
            Order::Join(..) => Asked::Join,
            Order::Leave { force, .. } => Asked::Leave { force: *force },
            Order::Unlock(..) => Asked::Unlock,
            Order::Move => Asked::Move,
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It is begun.
    Go,
    /// It is for the node that is there in a moment.
    Wait,
    /// No, and why.
    Refuse(String),
}

/// Whether what is asked can be begun.
pub(super) fn rule(phase: &Phase, asked: Asked) -> Ruling {
    let refuse = |text: &str| Ruling::Refuse(text.to_owned());
    match (phase, asked) {
        (Phase::Node, Asked::GoOnAlone | Asked::Leave { .. } | Asked::Move) => Ruling::Go,
        (Phase::Nothing, Asked::Init | Asked::Join) => Ruling::Go,
        (Phase::Locked, Asked::Unlock | Asked::Leave { force: true }) => Ruling::Go,

        (Phase::NewRole, _) => Ruling::Wait,
        // A node that starts looks itself where it is.
        (_, Asked::Move) => refuse("no node is running here"),
        (Phase::Starting, _) => Ruling::Wait,
        (Phase::Joining, _) => refuse("this node is joining a swarm: wait until it has"),
        (Phase::Leaving, _) => refuse("this node is leaving its swarm: wait until it has"),
        (Phase::Failed(why), _) => Ruling::Refuse(cannot_start(why)),

        (Phase::Node, Asked::Init | Asked::Join) => {
            refuse("this node is already part of a swarm: use \"swarmctl leave\" to leave it first")
        }
        (Phase::Node, Asked::Unlock) => refuse("swarm is not locked"),
        (Phase::Locked, Asked::Leave { force: false }) => refuse(
            "Swarm is encrypted and locked. Please unlock it first or use \"--force\" to ignore this message.",
        ),
        (Phase::Locked, Asked::Init | Asked::GoOnAlone | Asked::Join) => refuse(LOCKED),
        (Phase::Nothing, Asked::GoOnAlone) => refuse(
            "this node is not part of a swarm: --force-new-cluster goes on with the state of a manager that is left",
        ),
        (Phase::Nothing, Asked::Leave { .. } | Asked::Unlock) => {
            refuse("this node is not part of a swarm")
        }
    }
}

/// What is said of a node that is tried again and again.
pub(crate) fn cannot_start(why: &str) -> String {
    format!("this node is part of a swarm, but cannot start: {why}; it goes on trying")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: [Asked; 6] = [
        Asked::Init,
        Asked::GoOnAlone,
        Asked::Join,
        Asked::Leave { force: false },
        Asked::Leave { force: true },
        Asked::Unlock,
    ];

    /// A letter for each of what can be asked: goes, waits, or is refused.
    fn row(phase: &Phase) -> String {
        let letter = |asked| match rule(phase, asked) {
            Ruling::Go => 'g',
            Ruling::Wait => 'w',
            Ruling::Refuse(_) => '-',
        };
        ASKED.into_iter().map(letter).collect()
    }

    #[test]
    fn what_may_be_asked_when() {
        for (phase, expected) in [
            (Phase::Nothing, "g-g---"),
            (Phase::Joining, "------"),
            (Phase::Starting, "wwwwww"),
            (Phase::Locked, "----gg"),
            (Phase::Node, "-g-gg-"),
            (Phase::NewRole, "wwwwww"),
            (Phase::Leaving, "------"),
            (Phase::Failed("no disk".into()), "------"),
        ] {
            assert_eq!(row(&phase), expected, "{phase:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_going_on() {
        let why = |phase, asked| match rule(&phase, asked) {
            Ruling::Refuse(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(Phase::Joining, Asked::Join).contains("joining"));
        assert!(why(Phase::Leaving, Asked::Init).contains("leaving"));
        assert!(
            why(Phase::Failed("no disk".into()), Asked::Init).contains("cannot start: no disk")
        );
        assert!(why(Phase::Node, Asked::Init).contains("already part of a swarm"));
        assert!(why(Phase::Nothing, Asked::Leave { force: true }).contains("not part of a swarm"));
    }

    #[test]
    fn only_a_running_node_moves() {
        let moves = |phase: &Phase| rule(phase, Asked::Move) == Ruling::Go;
        assert!(moves(&Phase::Node));
        assert!(![Phase::Nothing, Phase::Locked, Phase::Leaving, Phase::Joining].iter().any(moves));
        assert_eq!(rule(&Phase::NewRole, Asked::Move), Ruling::Wait);
    }
}
