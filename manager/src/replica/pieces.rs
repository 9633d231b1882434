//! Cuts changes into commands of a bounded size: so that other proposals get in between, and replicas apply them in small
//! steps.

use swarm_model::codec;
use swarm_raft::MAX_COMMAND;
use swarm_state::Change;

/// The size of a command that is cut, in bytes, as far as single changes allow.
const PIECE: usize = 256 << 10;
/// The largest change that fits into a command, with what a command has beside it.
const LARGEST: usize = MAX_COMMAND - 1024;
/// What the log shows of a change that does not fit, in characters.
const SHOWN: usize = 200;

/// Cuts changes into commands, in order. A change that fits into no command is dropped, with an error in the log: it does
/// not hold up the others.
pub(crate) fn pieces(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut pieces: Vec<Vec<Change>> = Vec::new();
    let mut room = 0;
    for change in changes {
        let size = codec::encode(&change).len();
        if size > LARGEST {
            let shown: String = format!("{change:?}").chars().take(SHOWN).collect();
            tracing::error!("dropped a change of {size} bytes, which no command can hold: {shown}");
            continue;
        }
        match pieces.last_mut() {
            Some(piece) if size <= room => piece.push(change),
            _ => {
                pieces.push(vec![change]);
                room = PIECE;
            }
        }
        room = room.saturating_sub(size);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(length: usize) -> Change {
        Change::ExplainTask { id: "task".into(), err: "x".repeat(length) }
    }

    #[test]
    fn many_changes_become_commands_that_are_small_and_in_order() {
        let lengths: Vec<usize> = (0..2000).map(|n| n % 700).collect();
        let pieces = pieces(lengths.iter().map(|length| explain(*length)).collect());
        assert!(pieces.len() > 1);
        let sizes = pieces.iter().map(|piece| codec::encode(piece).len());
        let sizes: Vec<usize> = sizes.collect();
        assert!(sizes.iter().all(|size| *size <= PIECE + 1024), "{sizes:?}");
        assert!(sizes.iter().rev().skip(1).all(|size| *size > PIECE / 2), "{sizes:?}");
        let length = |change: &Change| match change {
            Change::ExplainTask { err, .. } => err.len(),
            other => panic!("{other:?}"),
        };
        assert!(pieces.iter().flatten().map(length).eq(lengths));
    }

    #[test]
    fn a_change_that_no_command_can_hold_does_not_hold_up_the_others() {
        let large = explain(PIECE * 2);
        let pieces = pieces(vec![explain(1), explain(MAX_COMMAND), large, explain(2), explain(3)]);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(pieces.iter().all(|piece| codec::encode(piece).len() < MAX_COMMAND));
    }
}
