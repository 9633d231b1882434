//! The handle: starting, proposing, reading, changing managers, ending.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    BasicNode,
    async_runtime::watch::WatchReceiver,
    errors::{InitializeError, RaftError},
};
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    blocking::blocking,
    error::{MembershipError, ProposeError, StartError, fatal, write_error},
    halt::Halt,
    log_store::LogStore,
    membership::{self, Change, Changer, leads},
    network::{Contacts, Missing, Network},
    options::{MAX_COMMAND, Options},
    peers::{Connector, Peers},
    service::{LastHeard, RaftService, Transport},
    snapshot::SnapshotStore,
    state_machine::{Machine, StateMachine},
    status::{Member, Status, Watcher},
    types::{Command, OpenRaft},
};

mod read;

/// Proposals in flight: this many KiB together, each counting one more than it has.
const IN_FLIGHT: usize = 16 * 1024;

/// How soon a proposal tries again whether the leader has its lease.
const LEASE_RETRY: Duration = Duration::from_millis(5);

/// How long the end of the storage thread is waited for.
const CLOSE: Duration = Duration::from_secs(10);

/// One manager's Raft. Clones share it.
#[derive(Clone)]
pub struct Raft {
    inner: Arc<Inner>,
}

struct Inner {
    raft: OpenRaft,
    peers: Peers,
    status: watch::Receiver<Status>,
    changes: mpsc::Sender<membership::Request>,
    in_flight: Semaphore,
    transport: Transport,
    timeout: Duration,
    /// How long a leader may be without an answer from a majority.
    lease: Duration,
    /// What [`Raft::shutdown`] ends, once.
    running: Mutex<Option<Running>>,
}

struct Running {
    watcher: JoinHandle<()>,
    changer: JoinHandle<()>,
    log_closed: oneshot::Receiver<()>,
}

impl Raft {
    /// Opens log and snapshot in `options.dir`, restores the state machine and takes up the part this
    /// manager had. A new manager does nothing until [`Raft::bootstrap`] or until a leader adds it. One whose state
    /// machine cannot read what is there takes no part: its role is [`crate::Role::Failed`] from the beginning.
    ///
    /// # Errors
    /// See [`StartError`]; damaged files are named.
    pub async fn start(
        options: Options,
        state_machine: impl StateMachine,
        connector: impl Connector,
    ) -> Result<Self, StartError> {
        let config = Arc::new(options.config()?);
        let (log, log_closed, snapshots) = open(&options).await?;
        let snapshots = Arc::new(snapshots);
        let peers = Peers::new(connector);
        let removed = Arc::new(AtomicBool::new(false));
        let lease = Duration::from_millis(config.election_timeout_max);
        let (without_quorum, contacts) = (Arc::new(AtomicBool::new(false)), Contacts::default());
        let missing = Missing::default();
        let network = Network {
            peers: peers.clone(),
            stall: lease,
            removed: removed.clone(),
            without_quorum: without_quorum.clone(),
            missing: missing.clone(),
            contacts: contacts.clone(),
        };
        let halt = Halt::default();
        let machine = Machine::new(Box::new(state_machine), snapshots.clone(), halt.clone());
        let raft = OpenRaft::new(options.id, config, network, log, machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        if halt.started() {
            raft.shutdown().await.map_err(|error| StartError::Raft(error.to_string()))?;
        }

        let last_heard = LastHeard::default();
        let watcher = Watcher {
            raft: raft.clone(),
            peers: peers.clone(),
            last_heard: last_heard.clone(),
            removed,
            halt,
            without_quorum,
            missing,
            contacts,
            lease,
            leads_since: None,
            started: Instant::now(),
        };
        let first = watcher.status(&raft.metrics().borrow_watched());
        let (status, status_receiver) = watch::channel(first);
        let (changes, requests) = mpsc::channel(membership::QUEUE);
        let changer = Changer {
            raft: raft.clone(),
            status: status_receiver.clone(),
            timeout: options.timeout,
            catch_up: options.catch_up,
        };
        let running = Running {
            watcher: tokio::spawn(watcher.run(status, options.heartbeat)),
            changer: tokio::spawn(changer.run(requests)),
            log_closed,
        };
        let receiving = Arc::new(Semaphore::new(1));
        let transport =
            Transport { id: options.id, raft: raft.clone(), snapshots, last_heard, receiving };
        let inner = Inner {
            raft,
            peers,
            status: status_receiver,
            changes,
            in_flight: Semaphore::new(IN_FLIGHT),
            transport,
            timeout: options.timeout,
            lease,
            running: Mutex::new(Some(running)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes this manager the first and only one of a new cluster, reached by later ones at `addr`,
    /// and waits until it leads and has committed its first entry.
    ///
    /// # Errors
    /// [`MembershipError::Initialized`] if it has been in a cluster before.
    pub async fn bootstrap(&self, addr: impl Into<String>) -> Result<(), MembershipError> {
        let raft = &self.inner.raft;
        let node = BasicNode { addr: addr.into() };
        match raft.initialize(std::collections::BTreeMap::from([(*raft.node_id(), node)])).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(MembershipError::Initialized);
            }
            Err(RaftError::APIError(error)) => {
                return Err(MembershipError::Refused(error.to_string()));
            }
            Err(RaftError::Fatal(error)) => return Err(fatal(error).into()),
        }
        let mut status = self.status();
        let leading = tokio::time::timeout(
            self.inner.timeout,
            status.wait_for(|status| leads(status) && status.committed >= Some(1)),
        )
        .await;
        match leading {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::ShutDown.into()),
            Err(_) => Err(ProposeError::Unconfirmed(self.inner.timeout).into()),
        }
    }

    /// Whether this manager is or was in a cluster.
    ///
    /// # Errors
    /// [`ProposeError::ShutDown`] or [`ProposeError::Storage`].
    pub async fn is_initialized(&self) -> Result<bool, ProposeError> {
        self.inner.raft.is_initialized().await.map_err(fatal)
    }

    /// Has a command committed by a majority and applied here; returns its revision and the state
    /// machine's answer. Concurrent proposals share their cost.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Bytes) -> Result<(u64, Bytes), ProposeError> {
        let inner = &*self.inner;
        let size = command.len();
        if size > MAX_COMMAND {
            return Err(ProposeError::TooLarge { size, max: MAX_COMMAND });
        }
        let weight = u32::try_from(1 + size / 1024).unwrap_or(u32::MAX);
        let work = async {
            let _permit =
                inner.in_flight.acquire_many(weight).await.map_err(|_| ProposeError::ShutDown)?;
            let grace = Instant::now() + inner.lease;
            loop {
                match self.write(command.clone()).await {
                    // A new leader has no lease before the first heartbeats are answered.
                    Err(ProposeError::NoQuorum { .. }) if Instant::now() < grace => {
                        tokio::time::sleep(LEASE_RETRY).await; // before the next try
                    }
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(inner.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(ProposeError::Unconfirmed(inner.timeout)),
        }
    }

    async fn write(&self, command: Bytes) -> Result<(u64, Bytes), ProposeError> {
        let inner = &*self.inner;
        match inner.raft.client_write(Command(command)).await {
            Ok(response) => Ok((response.log_id.index, response.data.0)),
            Err(error) => match write_error(error, inner.timeout, || no_quorum(&inner.status)) {
                MembershipError::Propose(error) => Err(self.newest_leader(error)),
                other => Err(ProposeError::Storage(other.to_string())),
            },
        }
    }

    /// Adds the manager `id`, reached at `addr`: it receives the log, and a vote when it has caught up.
    /// Leader only. Done already is no error.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_voter(&self, id: u64, addr: impl Into<String>) -> Result<(), MembershipError> {
        self.change(Change::AddVoter { id, addr: addr.into() }).await
    }

    /// Removes the manager `id` for good. Leader only; a leader that removes itself steps down.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        self.change(Change::Remove { id }).await
    }

    /// Tells the cluster that the manager `id` is now reached at `addr`. Leader only.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn update_addr(
        &self,
        id: u64,
        addr: impl Into<String>,
    ) -> Result<(), MembershipError> {
        self.change(Change::UpdateAddr { id, addr: addr.into() }).await
    }

    /// Hands leadership to the manager `to`, or to the most up-to-date one, and waits until it leads.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<(), MembershipError> {
        self.change(Change::Transfer { to }).await
    }

    async fn change(&self, change: Change) -> Result<(), MembershipError> {
        let (reply, answer) = oneshot::channel();
        self.inner.changes.send((change, reply)).await.map_err(|_| ProposeError::ShutDown)?;
        let result = answer.await.map_err(|_| ProposeError::ShutDown)?;
        result.map_err(|error| match error {
            MembershipError::Propose(error) => self.newest_leader(error).into(),
            other => other,
        })
    }

    /// This manager's view of the cluster, as it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// What the other managers call: to be added to this manager's gRPC server.
    pub fn service(&self) -> RaftService {
        RaftService::new(self.inner.transport.clone())
    }

    /// Ends this manager's Raft, handing leadership over first if it leads others. Returns when the
    /// log is closed, so that it can be opened again.
    ///
    /// # Errors
    /// If the log is still open after ten seconds.
    pub async fn shutdown(&self) -> Result<(), io::Error> {
        let Some(running) = self.inner.running.lock().await.take() else {
            return Ok(());
        };
        let (leading, others) = {
            let status = self.inner.status.borrow();
            (leads(&status), status.voters.len() > 1)
        };
        if leading
            && others
            && let Err(error) = self.transfer_leadership(None).await
        {
            tracing::info!(%error, "leadership is not handed over before the end");
        }
        running.changer.abort();
        self.inner.in_flight.close();
        self.inner.raft.shutdown().await.map_err(io::Error::other)?;
        if running.watcher.await.is_err() {
            tracing::warn!("raft status task ended by a panic");
        }
        match tokio::time::timeout(CLOSE, running.log_closed).await {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "raft log is still in use")),
        }
    }

    /// Replaces the leader openraft names by the one heard of last: openraft goes on naming a dead one.
    fn newest_leader(&self, error: ProposeError) -> ProposeError {
        match error {
            ProposeError::NotLeader { .. } => {
                let own = *self.inner.raft.node_id();
                let leader: Option<Member> = self.inner.status.borrow().leader.clone();
                ProposeError::NotLeader { leader: leader.filter(|leader| leader.id != own) }
            }
            other => other,
        }
    }
}

/// The error that says how many managers answer.
pub(crate) fn no_quorum(status: &watch::Receiver<Status>) -> ProposeError {
    let status = status.borrow();
    ProposeError::NoQuorum { reachable: status.reachable.len(), voters: status.voters.len() }
}

async fn open(
    options: &Options,
) -> Result<(LogStore, oneshot::Receiver<()>, SnapshotStore), StartError> {
    let (dir, disk, key) = (options.dir.clone(), options.disk.clone(), options.key.clone());
    let opened = blocking(move || {
        let snapshots = SnapshotStore::open(&dir, &key)?;
        let (log, closed) = LogStore::open(&*disk, &dir.join("log"), &key)?;
        Ok((log, closed, snapshots))
    });
    Ok(opened.await?)
}
