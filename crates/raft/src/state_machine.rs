//! The replicated state: what the application implements, and its adapter to openraft.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};

use crate::{
    blocking::blocking,
    halt::Halt,
    snapshot::{SnapshotFile, SnapshotStore},
    types::{
        Entry, LogId, Payload, Response, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
    },
};

/// The most commands given to the application at once...
const MAX_BATCH: usize = 512;
/// ...and no further one when these have so many bytes: the runtime's other tasks wait meanwhile.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// A command that a quorum has stored: it will be applied on every manager, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The command's place in the log. Revisions grow, with gaps where Raft has entries of its own.
    pub revision: u64,
    /// The command, as it was proposed.
    pub command: Bytes,
}

/// The application's state, in memory. All managers' copies see the same calls of `apply` and must
/// come to the same state and answers: no clock, no random numbers.
pub trait StateMachine: Send + 'static {
    /// Applies commands in order and returns one answer for each. Called on the async runtime, so it
    /// must not block.
    ///
    /// # Errors
    /// Why a command cannot be read, in words for the user. This manager's Raft ends then, as after a failed disk: the
    /// others may have applied the command. It is not called again.
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Bytes>, String>;

    /// Takes a view of the state as it is now, cheaply; the closure then encodes it on another thread
    /// while commands continue to be applied.
    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send>;

    /// Replaces the state by a snapshot that holds everything up to `revision`.
    ///
    /// # Errors
    /// Why the bytes cannot be read, in words for the user. This manager's Raft ends then, as with `apply`.
    fn restore(&mut self, revision: u64, bytes: &[u8]) -> Result<(), String>;
}

/// openraft's view of a [`StateMachine`].
pub(crate) struct Machine {
    /// Never locked but through `&mut`; the mutex makes it `Sync`.
    application: Mutex<Box<dyn StateMachine>>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<SnapshotStore>,
    halt: Halt,
}

impl Machine {
    pub(crate) fn new(
        application: Box<dyn StateMachine>,
        snapshots: Arc<SnapshotStore>,
        halt: Halt,
    ) -> Self {
        Self {
            application: Mutex::new(application),
            last_applied: None,
            membership: StoredMembership::default(),
            snapshots,
            halt,
        }
    }

    fn application(&mut self) -> &mut dyn StateMachine {
        self.application.get_mut().expect("nobody locks it").as_mut()
    }

    /// The application's answers; none once it has halted.
    fn answers(&mut self, commands: Vec<Committed>) -> io::Result<Vec<Bytes>> {
        self.halt.check()?;
        if commands.is_empty() || self.halt.reason().is_some() {
            return Ok(Vec::new());
        }
        let expected = commands.len();
        match self.application().apply(commands) {
            Ok(answers) if answers.len() == expected => Ok(answers),
            Ok(answers) => Err(io::Error::other(format!(
                "state machine gave {} answers to {expected} commands",
                answers.len()
            ))),
            Err(reason) => self.halt.set(reason).map(|()| Vec::new()),
        }
    }

    fn apply_batch(
        &mut self,
        batch: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>,
    ) -> io::Result<()> {
        let commands: Vec<Committed> = batch
            .iter()
            .filter_map(|(entry, _)| match &entry.payload {
                Payload::Normal(command) => {
                    Some(Committed { revision: entry.log_id.index, command: command.0.clone() })
                }
                Payload::Blank | Payload::Membership(_) => None,
            })
            .collect();
        let mut answers = self.answers(commands)?.into_iter();
        for (entry, responder) in batch {
            let answer = match entry.payload {
                Payload::Normal(_) => answers.next().unwrap_or_default(),
                Payload::Blank => Bytes::new(),
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Bytes::new()
                }
            };
            self.last_applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(Response(answer));
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut ready = entries.ready_chunks(MAX_BATCH);
        while let Some(chunk) = ready.next().await {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for entry in chunk {
                let (entry, responder) = entry?;
                if let Payload::Normal(command) = &entry.payload {
                    bytes += command.0.len();
                }
                batch.push((entry, responder));
                if bytes >= MAX_BATCH_BYTES {
                    self.apply_batch(std::mem::take(&mut batch))?;
                    bytes = 0;
                    tokio::task::yield_now().await;
                }
            }
            self.apply_batch(batch)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
        };
        // What has halted is no state to keep.
        let goes_on = self.halt.reason().is_none();
        let encode = Mutex::new(goes_on.then(|| self.application().snapshot()));
        Builder { meta, encode, snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        let new = Snapshot { meta: meta.clone(), snapshot };
        let state = blocking(move || {
            let state = new.snapshot.state()?;
            snapshots.publish(new)?;
            Ok(state)
        })
        .await?;
        let revision = meta.last_log_id.map_or(0, |id| id.index);
        self.halt.check()?;
        if let Err(reason) = self.application().restore(revision, &state) {
            self.halt.set(reason)?;
        }
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.current())
    }
}

/// Encodes and saves a view of the state, while the state moves on.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    /// None once it was used, or if there is no state.
    encode: Mutex<Option<Encode>>,
    snapshots: Arc<SnapshotStore>,
}

type Encode = Box<dyn FnOnce() -> Vec<u8> + Send>;

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let encode = self.encode.get_mut().expect("nobody locks it").take();
        let encode = encode.ok_or_else(|| io::Error::other("there is no state to save"))?;
        let (meta, snapshots) = (self.meta.clone(), self.snapshots.clone());
        blocking(move || snapshots.save(meta, &encode())).await
    }
}
