//! What commands and snapshots travel and are kept in: outside of what an older version may not decode, it says which
//! feature level is needed, and who wrote it.
//!
//! `level (4, LE) | length of the version (1) | version (UTF-8) | content`. Whole and unchanged it is by the checksums
//! of the log and of snapshots.

use swarm_model::{EngineDescription, FeatureLevel, codec};

use crate::command::Command;
use crate::tables::State;

/// The longest version that is kept; the rest is cut off.
const LONGEST_VERSION: usize = u8::MAX as usize;

/// The outside of what is in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The level that is needed to read it.
    pub level: FeatureLevel,
    /// The version of `swarmd` that wrote it.
    pub version: &'a str,
    /// What is in it: a command or a state, encoded.
    pub content: &'a [u8],
}

/// What an envelope is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// A command that is proposed.
    Proposal,
    /// A command in the log, at this revision.
    Command(u64),
    /// A snapshot.
    Snapshot,
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Written::Proposal => f.write_str("proposal"),
            Written::Command(revision) => write!(f, "log (at revision {revision})"),
            Written::Snapshot => f.write_str("snapshot"),
        }
    }
}

/// Why an envelope's content cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is of a newer version.
    #[error(
        "this manager speaks feature level {speaks}, the swarm's {what} needs {needs} (written by swarmd {version}): upgrade swarmd on this node"
    )]
    TooNew {
        /// What it is.
        what: Written,
        /// The newest level that is understood here.
        speaks: FeatureLevel,
        /// The level that is needed.
        needs: FeatureLevel,
        /// Who wrote it.
        version: String,
    },
    /// Its level is understood, but not all of its content is: another build of that level wrote it.
    #[error(
        "this manager cannot read the swarm's {what}, though it is of feature level {level} (written by swarmd {version}): run that version on this node: {reason}"
    )]
    Unreadable {
        /// What it is.
        what: Written,
        /// The level it says.
        level: FeatureLevel,
        /// Who wrote it.
        version: String,
        /// What is wrong.
        reason: String,
    },
    /// It is no envelope.
    #[error("the swarm's {0} on this manager is damaged: it does not begin with a feature level")]
    NoEnvelope(Written),
}

impl<'a> Envelope<'a> {
    /// The envelope with what is in it, as bytes.
    pub fn seal(level: FeatureLevel, version: &str, content: &[u8]) -> Vec<u8> {
        let version = &version[..version.floor_char_boundary(LONGEST_VERSION)];
        let mut bytes = Vec::with_capacity(4 + 1 + version.len() + content.len());
        bytes.extend_from_slice(&level.number().to_le_bytes());
        bytes.push(u8::try_from(version.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(version.as_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    /// Reads the outside, which every version can.
    pub fn read(bytes: &'a [u8]) -> Option<Envelope<'a>> {
        let (level, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first()?;
        let (version, content) = rest.split_at_checked(usize::from(*length))?;
        Some(Envelope {
            level: FeatureLevel::new(u32::from_le_bytes(*level))?,
            version: std::str::from_utf8(version).ok()?,
            content,
        })
    }

    /// Reads the outside of what a manager that speaks up to `speaks` may go on to decode.
    fn open(
        what: Written,
        bytes: &'a [u8],
        speaks: FeatureLevel,
    ) -> Result<Envelope<'a>, OpenError> {
        let envelope = Envelope::read(bytes).ok_or(OpenError::NoEnvelope(what))?;
        let Envelope { level: needs, version, .. } = envelope;
        if needs > speaks {
            return Err(OpenError::TooNew { what, speaks, needs, version: version.to_owned() });
        }
        Ok(envelope)
    }

    fn unreadable(&self, what: Written, reason: String) -> OpenError {
        OpenError::Unreadable { what, level: self.level, version: self.version.to_owned(), reason }
    }
}

impl Command {
    /// The command in an envelope of this level.
    pub fn seal(&self, level: FeatureLevel, version: &str) -> Vec<u8> {
        Envelope::seal(level, version, &codec::encode(self))
    }

    /// Reads a sealed command, all of it, and its level.
    ///
    /// # Errors
    /// Who can read it, or that nobody can.
    pub fn open(
        what: Written,
        bytes: &[u8],
        speaks: FeatureLevel,
    ) -> Result<(FeatureLevel, Command), OpenError> {
        let envelope = Envelope::open(what, bytes, speaks)?;
        let command = codec::decode_whole(envelope.content);
        let command = command.map_err(|e| envelope.unreadable(what, e.to_string()))?;
        Ok((envelope.level, command))
    }
}

impl State {
    /// The state as a snapshot, in an envelope of the swarm's level.
    pub fn seal(&self, version: &str) -> Vec<u8> {
        Envelope::seal(self.feature_level(), version, &self.to_snapshot())
    }

    /// Reads a sealed snapshot, all of it.
    ///
    /// # Errors
    /// Who can read it, or that nobody can.
    pub fn open(bytes: &[u8], engine: &EngineDescription) -> Result<State, OpenError> {
        let what = Written::Snapshot;
        let envelope = Envelope::open(what, bytes, engine.feature_level)?;
        State::from_snapshot(envelope.content).map_err(|e| envelope.unreadable(what, e.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::Timestamp;

    use super::*;
    use crate::command::Change;

    fn level(number: u32) -> FeatureLevel {
        FeatureLevel::new(number).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_read(number in 1u32.., version in ".{0,90}", content: Vec<u8>) {
            let sealed = Envelope::seal(level(number), &version, &content);
            let read = Envelope::read(&sealed).unwrap();
            prop_assert_eq!((read.level, read.content), (level(number), &*content));
            prop_assert!(version.starts_with(read.version));
        }

        #[test]
        fn anything_else_is_refused_and_no_panic(bytes: Vec<u8>) {
            if let Some(read) = Envelope::read(&bytes) {
                let sealed = Envelope::seal(read.level, read.version, read.content);
                prop_assert_eq!(sealed, bytes);
            }
        }
    }

    #[test]
    fn a_level_above_ours_is_refused_before_anything_is_decoded() {
        let sealed = Envelope::seal(level(2), "0.2.0", b"what no version knows");
        let error = Command::open(Written::Command(7), &sealed, level(1)).unwrap_err().to_string();
        assert_eq!(
            error,
            "this manager speaks feature level 1, the swarm's log (at revision 7) needs 2 (written by swarmd 0.2.0): upgrade swarmd on this node"
        );
        let error = Command::open(Written::Command(7), &sealed, level(2)).unwrap_err().to_string();
        assert!(
            error.contains("though it is of feature level 2 (written by swarmd 0.2.0)"),
            "{error}"
        );
        let error = Command::open(Written::Command(7), b"", level(2)).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }

    #[test]
    fn a_command_of_a_level_that_is_spoken_must_be_known_whole() {
        let changes = vec![Change::DropManager { id: "n".into() }];
        let command = Command { now: Timestamp(1), changes };
        let (needs, opened) =
            Command::open(Written::Proposal, &command.seal(level(1), "v"), level(1)).unwrap();
        assert_eq!((needs, format!("{opened:?}")), (level(1), format!("{command:?}")));

        // As a version encodes it that has one more field, and forgot to raise its level.
        #[derive(serde::Serialize)]
        enum Newer {
            DropManager { id: &'static str, gently: bool },
        }
        let newer = codec::encode(&(1i64, vec![Newer::DropManager { id: "n", gently: true }]));
        let newer = Envelope::seal(level(1), "0.1.1", &newer);
        let error = Command::open(Written::Proposal, &newer, level(1)).unwrap_err().to_string();
        assert!(error.contains("gently is not known here"), "{error}");
    }
}
