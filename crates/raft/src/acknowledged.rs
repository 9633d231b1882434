//! A small file beside the database that says how far its log was acknowledged.
//!
//! Storage engines recover from a torn tail by cutting it off, silently. This file makes a loss
//! visible: when the log or the vote found at start is behind what it says, acknowledged data is gone
//! and the manager must not vote or lead with what is left. It is rewritten after each group commit
//! without a sync of its own: after a crash it is exact, after a loss of power it may be some seconds
//! old, which only makes the check weaker. Before the log is cut it is lowered, with a sync.

use std::io;

use bytes::Bytes;

use crate::{
    disk::Sector,
    record::{decode_log_id, decode_vote, encode_log_id, encode_vote},
    types::{LogId, Vote, log_id},
};

const VOTE_LEN: usize = 22;
const LOG_ID_LEN: usize = 29;

/// What was acknowledged last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The end of the log, stored or purged.
    pub(crate) last: Option<LogId>,
    pub(crate) vote: Option<Vote>,
}

/// The file.
pub(crate) struct AcknowledgedFile(Box<dyn Sector>);

impl AcknowledgedFile {
    /// Reads the file; writes it first if the database is new.
    pub(crate) fn open(sector: Box<dyn Sector>) -> io::Result<(Self, Option<Acknowledged>)> {
        let this = Self(sector);
        let bytes = this.0.read().map_err(|error| this.named("read", &error))?;
        if bytes.is_empty() {
            this.write(&Acknowledged { last: None, vote: None })?;
            this.sync()?;
            return Ok((this, None));
        }
        let mut bytes = Bytes::from(bytes);
        if bytes.len() < VOTE_LEN + LOG_ID_LEN {
            return Err(this.corrupt(format!("{} bytes are too few", bytes.len())));
        }
        let vote = decode_vote(bytes.split_to(VOTE_LEN)).map_err(|error| this.corrupt(error))?;
        let last =
            decode_log_id(bytes.split_to(LOG_ID_LEN)).map_err(|error| this.corrupt(error))?;
        let found = Acknowledged {
            last: (last.index != u64::MAX).then_some(last),
            vote: (vote.leader_id.term != u64::MAX).then_some(vote),
        };
        Ok((this, Some(found)))
    }

    /// Rewrites the file.
    pub(crate) fn write(&self, value: &Acknowledged) -> io::Result<()> {
        let none = log_id(0, 0, u64::MAX);
        let mut bytes = encode_vote(&value.vote.unwrap_or(Vote::new(u64::MAX, 0))).to_vec();
        bytes.extend_from_slice(&encode_log_id(&value.last.unwrap_or(none)));
        self.0.write(&bytes).map_err(|error| self.named("write", &error))
    }

    /// Makes the last write durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync().map_err(|error| self.named("sync", &error))
    }

    fn named(&self, action: &str, error: &io::Error) -> io::Error {
        let path = self.0.path().display();
        io::Error::new(error.kind(), format!("cannot {action} {path}: {error}"))
    }

    fn corrupt(&self, error: impl std::fmt::Display) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is corrupt: {error}", self.0.path().display()),
        )
    }
}
