//! The file that `swarmctl backup` writes and `swarmd restore` reads: the replicated state as of one revision,
//! checksummed. The certificate authority is in it, so it is as secret as a manager's disk.
//!
//! `magic (8) | revision (8, LE) | time in ns (8, LE) | length (8, LE) | state | crc32 (4, LE)`; the CRC-32 (IEEE)
//! covers all before it. The state is a snapshot as Raft has them.

use swarm_model::{EngineDescription, Timestamp};
use swarm_state::State;

const MAGIC: &[u8; 8] = b"SWRMBAK1";
const HEAD: usize = 32;
const CRC: usize = 4;

/// What a backup holds.
#[derive(Debug)]
pub struct Backup {
    /// The revision of the state.
    pub revision: u64,
    /// When it was made.
    pub made_at: Timestamp,
    /// The state, as Raft's snapshots hold it.
    pub snapshot: Vec<u8>,
    /// The same, read.
    pub state: State,
}

/// Why a file is no backup.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It does not begin as one.
    #[error("it is no backup of a swarm, or of a newer version")]
    Foreign,
    /// It ends too early.
    #[error("it is cut off: {found} of {expected} bytes are there")]
    CutOff {
        /// Its length.
        found: usize,
        /// As it says itself.
        expected: u64,
    },
    /// Something in it was changed.
    #[error("it is damaged: its checksum is {found:08x}, not {expected:08x}")]
    Damaged {
        /// Of what is there.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// The state in it cannot be read.
    #[error("its state cannot be read: {0}")]
    State(String),
}

/// Makes a backup of a state, as a daemon of this version.
pub fn encode(state: &State, made_at: Timestamp, version: &str) -> Vec<u8> {
    let snapshot = state.seal(version);
    let mut file = Vec::with_capacity(HEAD + snapshot.len() + CRC);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&state.revision().to_le_bytes());
    file.extend_from_slice(&made_at.0.to_le_bytes());
    file.extend_from_slice(&(snapshot.len() as u64).to_le_bytes());
    file.extend_from_slice(&snapshot);
    let crc = crc32fast::hash(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    file
}

/// Reads a backup.
///
/// # Errors
/// What is wrong with it.
pub fn decode(file: &[u8]) -> Result<Backup, BackupError> {
    let magic = file.get(..MAGIC.len()).unwrap_or(file);
    if !MAGIC.starts_with(magic) || magic.is_empty() {
        return Err(BackupError::Foreign);
    }
    let found = file.len();
    let cut_off = |expected: u64| BackupError::CutOff { found, expected };
    let number = |at: usize| {
        let bytes = file.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or(cut_off((HEAD + CRC) as u64))
    };
    let (revision, made_at, length) = (number(8)?, number(16)?, number(24)?);
    let expected = length.saturating_add((HEAD + CRC) as u64);
    if (found as u64) < expected {
        return Err(cut_off(expected));
    }
    let (body, crc) = file.split_at(found - CRC);
    let expected = u32::from_le_bytes(crc.try_into().expect("four bytes"));
    let found = crc32fast::hash(body);
    if found != expected {
        return Err(BackupError::Damaged { found, expected });
    }
    let snapshot = body[HEAD..].to_vec();
    let state = State::open(&snapshot, &EngineDescription::of_this_build())
        .map_err(|error| BackupError::State(error.to_string()))?;
    let made_at = Timestamp(i64::from_le_bytes(made_at.to_le_bytes()));
    Ok(Backup { revision, made_at, snapshot, state })
}

#[cfg(test)]
mod tests {
    use swarm_model::NodeRole;
    use swarm_state::{Change, Command};

    use super::*;

    fn file() -> Vec<u8> {
        let mut state = State::new();
        let add = Change::AddNode {
            id: "n".into(),
            role: NodeRole::Manager,
            hostname: "host".into(),
            addr: "192.0.2.1:2377".into(),
            engine: Default::default(),
        };
        state.apply(41, Command { now: Timestamp(1), changes: vec![add] });
        encode(&state, Timestamp(-7), "0.0.1")
    }

    #[test]
    fn what_is_written_is_read() {
        let backup = decode(&file()).unwrap();
        assert_eq!((backup.revision, backup.made_at), (41, Timestamp(-7)));
        assert_eq!(backup.state.node(&"n".into()).unwrap().description.hostname, "host");
        assert_eq!(backup.state.revision(), 41);
    }

    #[test]
    fn no_part_of_it_is_taken_for_all() {
        let file = file();
        for length in 1..file.len() {
            let error = decode(&file[..length]).unwrap_err();
            assert!(matches!(error, BackupError::CutOff { .. }), "{length} bytes: {error}");
        }
        assert_eq!(decode(&[]).unwrap_err(), BackupError::Foreign);
        assert_eq!(decode(b"#!/bin/sh, which is long enough").unwrap_err(), BackupError::Foreign);
    }

    #[test]
    fn no_changed_bit_goes_unnoticed() {
        let file = file();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(decode(&damaged).is_err(), "byte {at}");
        }
        let longer: Vec<u8> = file.iter().copied().chain([0]).collect();
        assert!(matches!(decode(&longer).unwrap_err(), BackupError::Damaged { .. }));
    }
}
