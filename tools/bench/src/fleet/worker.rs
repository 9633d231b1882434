//! A worker without a kernel: joins, holds a session, answers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use swarm_model::{
    EndpointState, EngineDescription, Item, ItemKey, NodeDescription, Platform, Resources, TaskId,
    TaskState, TaskStatus, Timestamp, ViewDelta, codec,
};
use swarm_pki::{
    Connector, ConnectorOptions, Credentials, ExpectedPeer, JoinToken, NodeIdentity, RootCert,
    fetch_root, new_key_and_csr,
};
use swarm_proto::dispatch::dispatcher_client::DispatcherClient;
use swarm_proto::dispatch::{
    Acknowledged, Describe, FromNode, Heartbeat, TaskReport, TaskReports, from_node, to_node,
};
use swarm_proto::membership::IssueRequest;
use swarm_proto::membership::membership_client::MembershipClient;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::kernel::Kernel;

/// As in `swarmd`.
const HEARTBEAT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST_MESSAGE: usize = 64 << 20;

/// What all workers know.
pub(super) struct Swarm {
    managers: Vec<String>,
    token: JoinToken,
    root: RootCert,
    pub(super) arrivals: Shared<Probe>,
}

/// A worker's tasks and session; they end with it.
pub(super) struct Worker {
    swarm: Arc<Swarm>,
    kernel: Arc<Shared<Kernel>>,
    lost: Arc<AtomicUsize>,
    session: JoinHandle<()>,
}

/// A lock that a panic elsewhere does not close: the process ends then.
#[derive(Default)]
pub(super) struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Swarm {
    pub(super) async fn find(managers: &[String], token: JoinToken) -> Result<Swarm> {
        let first = managers.first().context("no managers")?;
        let root = fetch_root(first, &token, PATIENCE).await?;
        Ok(Swarm { managers: managers.to_vec(), token, root, arrivals: Shared::default() })
    }

    fn manager(&self, n: usize) -> &str {
        &self.managers[n % self.managers.len()]
    }
}

impl Worker {
    /// Joins as the n-th worker and opens its session.
    pub(super) async fn join(swarm: Arc<Swarm>, n: usize) -> Result<Worker> {
        let (key, csr_pem) = new_key_and_csr()?;
        let roots = std::slice::from_ref(&swarm.root);
        let anonymous = Connector::new(Credentials::new(roots, None)?, ConnectorOptions::default());
        let channel = anonymous.connect(swarm.manager(n), ExpectedPeer::Manager).await?;
        let engine = EngineDescription::of_this_build();
        let request = IssueRequest {
            token: swarm.token.to_string(),
            csr_pem,
            hostname: hostname(n),
            addr: format!("{}:2377", address(n)),
            engine_version: engine.engine_version,
            feature_level: engine.feature_level.number(),
        };
        let answer = MembershipClient::new(channel).issue(request).await?.into_inner();
        let identity = NodeIdentity::from_pem(&answer.cert_pem, &key)?;
        let credentials = Credentials::new(roots, Some(identity))?;
        let connector = Connector::new(credentials, ConnectorOptions::default());
        let (kernel, lost) = (Arc::<Shared<Kernel>>::default(), Arc::<AtomicUsize>::default());
        let sessions = Sessions {
            swarm: Arc::clone(&swarm),
            connector,
            kernel: Arc::clone(&kernel),
            lost: Arc::clone(&lost),
            n,
        };
        Ok(Worker { swarm, kernel, lost, session: tokio::spawn(sessions.run()) })
    }

    pub(super) fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    pub(super) fn tasks(&self) -> usize {
        self.kernel.lock().tasks.len()
    }

    pub(super) fn networks(&self) -> (usize, usize) {
        self.kernel.lock().networks()
    }

    pub(super) fn sessions_lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.session.abort();
    }
}

/// A worker's sessions, one after the other.
struct Sessions {
    swarm: Arc<Swarm>,
    connector: Connector,
    kernel: Arc<Shared<Kernel>>,
    lost: Arc<AtomicUsize>,
    n: usize,
}

impl Sessions {
    async fn run(self) {
        for attempt in 0.. {
            if let Err(e) = self.session(self.n + attempt).await {
                eprintln!("{}: session {attempt} is over: {e:#}", hostname(self.n));
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(HEARTBEAT).await; // before the next manager
        }
    }

    async fn session(&self, manager: usize) -> Result<()> {
        let addr = self.swarm.manager(manager);
        let channel = self.connector.connect(addr, ExpectedPeer::Manager).await?;
        let mut client = DispatcherClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let (outgoing, stream) = mpsc::channel(16);
        let describe = Describe {
            description: codec::encode(&description(self.n)).into(),
            addr: address(self.n).to_string(),
        };
        outgoing.send(said(from_node::Message::Describe(describe))).await?;
        let mut incoming = client.session(ReceiverStream::new(stream)).await?.into_inner();
        let beating = outgoing.clone();
        let _heart = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            let mut beat = tokio::time::interval(HEARTBEAT);
            let alive = || said(from_node::Message::Heartbeat(Heartbeat {}));
            while beating.send(alive()).await.is_ok() {
                beat.tick().await;
            }
        }));
        while let Some(message) = incoming.message().await? {
            if let Some(to_node::Message::Delta(bytes)) = message.message {
                let delta: ViewDelta = codec::decode(&bytes).context("a delta is malformed")?;
                self.take(&delta, &outgoing).await?;
            }
        }
        Ok(())
    }

    async fn take(&self, delta: &ViewDelta, outgoing: &mpsc::Sender<FromNode>) -> Result<()> {
        let news = self.kernel.lock().apply(delta);
        self.swarm.arrivals.lock().note(delta);
        let acknowledged = Acknowledged { revision: delta.revision };
        outgoing.send(said(from_node::Message::Acknowledged(acknowledged))).await?;
        if news.reports.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let reports = news.reports.iter().map(|(id, state)| {
            if *state == TaskState::Running {
                self.swarm.arrivals.lock().reported(id, now);
            }
            TaskReport { task_id: id.to_string(), status: codec::encode(&status(*state)).into() }
        });
        let reports = TaskReports { reports: reports.collect() };
        outgoing.send(said(from_node::Message::Reports(reports))).await?;
        Ok(())
    }
}

/// When the nodes heard of new endpoints of one service.
#[derive(Default)]
pub(super) struct Probe {
    service: String,
    reported: HashMap<TaskId, Instant>,
    heard: HashMap<TaskId, Vec<Instant>>,
}

/// How long news of endpoints took.
#[derive(Default)]
pub(super) struct Arrivals {
    /// To each node.
    pub(super) reached: Vec<Duration>,
    /// To the last node, for each endpoint.
    pub(super) everyone: Vec<Duration>,
}

impl Probe {
    /// Begins anew.
    pub(super) fn watch(&mut self, service: &str) {
        *self = Probe { service: service.to_owned(), ..Probe::default() };
    }

    fn reported(&mut self, task: &TaskId, at: Instant) {
        self.reported.insert(task.clone(), at);
    }

    fn note(&mut self, delta: &ViewDelta) {
        for (key, item) in &delta.upsert {
            if let (ItemKey::Endpoint(_, task), Item::Endpoint(endpoint)) = (key, item)
                && endpoint.service == self.service.as_str().into()
                && endpoint.state == EndpointState::Ready
            {
                self.heard.entry(task.clone()).or_default().push(Instant::now());
            }
        }
    }

    /// The times of the endpoints that came.
    pub(super) fn take(&mut self) -> Result<Arrivals> {
        let mut arrivals = Arrivals::default();
        for (task, at) in self.reported.drain() {
            let Some(heard) = self.heard.remove(&task) else { continue };
            let taken = heard.iter().map(|heard| heard.saturating_duration_since(at));
            arrivals.everyone.extend(taken.clone().max());
            arrivals.reached.extend(taken);
        }
        anyhow::ensure!(!arrivals.everyone.is_empty(), "no node heard of the new endpoint");
        Ok(arrivals)
    }
}

impl Arrivals {
    pub(super) fn add(&mut self, more: Arrivals) {
        self.reached.extend(more.reached);
        self.everyone.extend(more.everyone);
    }
}

fn said(message: from_node::Message) -> FromNode {
    FromNode { message: Some(message) }
}

fn hostname(n: usize) -> String {
    format!("fleet-{n}")
}

/// No packet is ever sent there: addresses for benchmarks (RFC 2544).
fn address(n: usize) -> IpAddr {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)).saturating_add(n)).into()
}

fn description(n: usize) -> NodeDescription {
    NodeDescription {
        hostname: hostname(n),
        platform: Platform { architecture: "amd64".into(), os: "linux".into() },
        resources: Resources { nano_cpus: 8_000_000_000, memory_bytes: 32 << 30 },
        engine: EngineDescription::of_this_build(),
        underlay_mtu: Some(1500),
        routes: Some(Vec::new()),
        data_path_addr: Some(address(n)),
        listen_addr: format!("{}:2377", address(n)),
        ..NodeDescription::default()
    }
}

fn status(state: TaskState) -> TaskStatus {
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos();
    TaskStatus {
        timestamp: Timestamp(i64::try_from(now).unwrap_or(i64::MAX)),
        state,
        message: "without a kernel".into(),
        ..TaskStatus::default()
    }
}
