//! One host and the `swarmd` on it: a runtime of its own with a clock of its own, the real manager and the
//! real worker, a disk and a kernel that outlive them.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use swarm_manager::{Images, Manager, ManagerOptions, NewCluster};
use swarm_model::{ClusterSpec, JoinTokens, ManagerAddress, NodeId};
use swarm_pki::{
    Connector, Credentials, ExpectedPeer, PeerIdentity, Role, RootCa, new_key_and_csr,
};
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_proto::membership::{BecomeVoterRequest, IssueRequest, IssueResponse};
use swarm_raft::{Options, SealKey};
use swarm_worker::{Prepared, Who};
use time::OffsetDateTime;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::service::Routes;

use crate::break_it::{Break, ForgedVotes};
use crate::determinism;
use crate::disk::Disk;
use crate::kernel::Kernel;
use crate::net::{Caller, HostId, Net, address};
use crate::random::Random;
use crate::versions::Version;

/// How long a new manager waits for its vote before it asks another one.
const VOTER_PATIENCE: Duration = Duration::from_secs(30);

/// The cluster's authority: the same in all simulations of a process, made by a thread that simulates nothing.
fn authority() -> RootCa {
    static PEM: OnceLock<(String, String)> = OnceLock::new();
    let (cert, key) = PEM.get_or_init(|| {
        let made = std::thread::spawn(|| {
            let ca = RootCa::generate("cluster", OffsetDateTime::now_utc());
            ca.map(|ca| (ca.cert().to_pem(), ca.key_pem()))
        });
        made.join().expect("the thread ends").expect("a CA can be made")
    });
    RootCa::from_pem(cert, key).expect("it was made here")
}

/// What all hosts share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) net: Net,
    pub(crate) tokens: Arc<Mutex<Option<JoinTokens>>>,
    /// The hosts that are managers from the beginning.
    pub(crate) managers: Vec<HostId>,
    pub(crate) broken: Option<Break>,
    pub(crate) snapshot_every: u64,
}

/// Who a host is in the swarm; on its disk.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) node_id: String,
    pub(crate) raft_id: u64,
}

/// What is seen of the program from outside.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) member: Option<Member>,
    pub(crate) manager: Option<Arc<Manager>>,
    pub(crate) failed: Option<String>,
}

/// A host.
pub(crate) struct Node {
    pub(crate) host: HostId,
    pub(crate) role: Role,
    pub(crate) disk: Disk,
    pub(crate) kernel: Kernel,
    shared: Shared,
    dir: PathBuf,
    seen: Arc<Mutex<Seen>>,
    running: Option<Running>,
    /// Milliseconds that its wall clock is ahead.
    skew: u64,
    pub(crate) frozen: bool,
    pub(crate) generation: u64,
    pub(crate) fate: Fate,
    /// What is installed; a program that runs is of it.
    pub(crate) version: Version,
}

/// What becomes of a host in the course of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has not begun to join.
    ToCome,
    /// It is a node, or joins.
    Here,
    /// It lost power and never comes back; users remove it from the swarm.
    Lost,
    /// Users removed it from the swarm, though it lives.
    Removed,
}

struct Running {
    runtime: Runtime,
    /// The runtime's clock when it began, and the simulation's, in milliseconds.
    began: Instant,
    began_at: u64,
}

struct AnyImage;

/// Simulated managers have no unlock key.
struct NoFiles;

impl swarm_manager::Files for NoFiles {
    fn lock(&self, _: &swarm_model::ManagerLock) -> Result<(), String> {
        Ok(())
    }
}

impl Images for AnyImage {
    fn pin(
        &self,
        image: String,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async move { Ok(image) })
    }
}

impl Node {
    pub(crate) fn new(
        host: HostId,
        role: Role,
        shared: Shared,
        dir: PathBuf,
        random: &mut Random,
    ) -> Node {
        let lies = |what| shared.broken == Some(what);
        let (disk, kernel) = (random.split(), random.split());
        let disk = Disk::new(disk, lies(Break::Fsync));
        let kernel = Kernel::new(kernel, lies(Break::Readiness));
        shared.net.set_power(host, true);
        Node {
            host,
            role,
            disk,
            kernel,
            shared,
            dir,
            seen: Arc::default(),
            running: None,
            skew: random.within(0..5_000),
            frozen: false,
            generation: 0,
            fate: Fate::Here,
            version: Version::Old,
        }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn manager(&self) -> Option<Arc<Manager>> {
        self.seen().manager.clone()
    }

    pub(crate) fn node_id(&self) -> Option<String> {
        self.seen().member.as_ref().map(|member| member.node_id.clone())
    }

    /// Starts `swarmd`; at its first start it begins the swarm or joins it.
    pub(crate) fn start(&mut self, now: u64) {
        if self.running.is_some() || self.fate == Fate::Lost {
            return;
        }
        if self.fate == Fate::ToCome {
            self.fate = Fate::Here;
        }
        self.set_clock(now);
        self.shared.net.set_power(self.host, true);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O can be made");
        self.generation += 1;
        let program = Program {
            host: self.host,
            role: self.role,
            shared: self.shared.clone(),
            disk: self.disk.clone(),
            kernel: self.kernel.clone(),
            dir: self.dir.clone(),
            seen: self.seen.clone(),
            version: self.version,
        };
        let began = runtime.block_on(async { Instant::now() });
        runtime.spawn(program.run());
        self.running = Some(Running { runtime, began, began_at: now });
        self.frozen = false;
    }

    /// Sets this thread's clocks to those of the host.
    pub(crate) fn set_clock(&self, now: u64) {
        determinism::set_time((now + self.skew) * 1_000_000);
    }

    /// Runs what the host does until `now`.
    pub(crate) fn step(&mut self, now: u64) {
        if self.frozen {
            return;
        }
        self.set_clock(now);
        if let Some(running) = &self.running {
            let until = running.began + Duration::from_millis(now - running.began_at);
            running.runtime.block_on(async move {
                // After a pause of the whole process, all its timers are due at once.
                let late = until.saturating_duration_since(Instant::now());
                if late > Duration::from_millis(50) {
                    tokio::time::advance(late).await;
                }
                tokio::time::sleep_until(until).await;
            });
        }
    }

    /// Has something done by the program.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(running) = &self.running {
            running.runtime.spawn(work);
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.shared.net.program_ended(self.host);
        drop(running.runtime);
        self.seen().manager = None;
        self.kernel.program_ended();
        self.frozen = false;
    }

    /// The host loses power.
    pub(crate) fn cut_power(&mut self) {
        self.shared.net.set_power(self.host, false);
        self.kill();
        self.disk.lose_power();
        self.kernel.reboot();
    }
}

struct Program {
    host: HostId,
    role: Role,
    shared: Shared,
    disk: Disk,
    kernel: Kernel,
    dir: PathBuf,
    seen: Arc<Mutex<Seen>>,
    version: Version,
}

impl Program {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connector(&self, identity: Option<PeerIdentity>) -> Connector {
        let net = self.shared.net.clone();
        let caller = Caller { net, host: self.host, identity: identity.map(Arc::new) };
        let credentials = Credentials::new(&[authority().cert().clone()], None);
        Connector::over(Arc::new(caller), credentials.expect("a sound root"))
    }

    fn hostname(&self) -> String {
        format!("host-{}", self.host)
    }

    async fn run(self) {
        if let Err(reason) = self.live().await {
            self.seen().failed = Some(reason);
        }
    }

    async fn live(&self) -> Result<(), String> {
        let known = self.seen().member.clone();
        let begins = known.is_none() && self.shared.managers.first() == Some(&self.host);
        let member = match known {
            Some(member) => member,
            None if begins => {
                Member { node_id: swarm_manager::clock::new_id::<NodeId>().to_string(), raft_id: 1 }
            }
            None => self.join().await,
        };
        let identity = PeerIdentity {
            node_id: member.node_id.clone(),
            role: self.role,
            cluster_id: "cluster".into(),
        };
        let connector = self.connector(Some(identity));
        let routes = match self.role {
            Role::Manager => self.manage(&member, &connector, begins).await?,
            Role::Worker => Routes::default(),
        };
        self.seen().member = Some(member.clone());
        let incoming = self.shared.net.listen(self.host, &member.node_id, self.role);
        let incoming = UnboundedReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
        let forged = self.shared.broken == Some(Break::Quorum);
        let server = swarm_pki::server()
            .layer(tower::layer::layer_fn(move |inner| ForgedVotes { inner, forged }))
            .add_routes(routes)
            .serve_with_incoming(incoming);
        let worker = async {
            let _worker = self.work(&member, connector.clone()).start();
            std::future::pending::<()>().await;
        };
        let voter = async {
            if self.role == Role::Manager && !begins {
                self.become_voter(&member, &connector).await;
            }
        };
        let (served, (), ()) = tokio::join!(server, worker, voter);
        served.map_err(|e| format!("the server ends: {e}"))
    }

    fn work(&self, member: &Member, connector: Connector) -> Prepared {
        let managers = self.shared.managers.iter().map(|host| ManagerAddress {
            node_id: format!("host-{host}").as_str().into(),
            addr: address(*host).to_string(),
        });
        let own = address(self.host);
        let who = Who {
            node_id: member.node_id.as_str().into(),
            hostname: self.hostname(),
            addr: own.ip().to_string(),
            listen_addr: own.to_string(),
            vtep: own.ip(),
            balancer: "fake".into(),
            engine: self.version.engine(),
            state_dir: self.dir.clone(),
            connector,
            managers: managers.collect(),
            standing: watch::Sender::default(),
            trust: watch::Sender::default(),
        };
        Prepared::with_adapters(who, self.kernel.adapters(), self.kernel.adopt())
    }

    async fn manage(
        &self,
        member: &Member,
        connector: &Connector,
        begins: bool,
    ) -> Result<Routes, String> {
        let key = SealKey::new([self.host; 32], "a simulation");
        let raft = Options {
            disk: Arc::new(self.disk.clone()),
            snapshot_every: self.shared.snapshot_every,
            keep_entries: 10,
            ..Options::new(member.raft_id, self.dir.join("raft"), key)
        };
        let options = ManagerOptions {
            node_id: member.node_id.as_str().into(),
            addr: address(self.host).to_string(),
            raft,
            connector: connector.clone(),
            images: Arc::new(AnyImage),
            files: Arc::new(NoFiles),
            dialect: self.version.dialect(),
        };
        let started = Manager::start(options).await;
        let manager = started.map_err(|e| format!("the manager does not start: {e}"))?;
        if begins {
            let new = NewCluster {
                ca: authority(),
                spec: ClusterSpec::default(),
                hostname: self.hostname(),
            };
            let tokens = manager.bootstrap(new).await.map_err(|e| e.to_string())?;
            *self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
        }
        let routes = manager.add_services(Routes::default());
        self.seen().manager = Some(Arc::new(manager));
        Ok(routes)
    }

    fn token(&self) -> Option<String> {
        let tokens = self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.as_ref().map(|tokens| match self.role {
            Role::Manager => tokens.manager.clone(),
            Role::Worker => tokens.worker.clone(),
        })
    }

    async fn join(&self) -> Member {
        let connector = self.connector(None);
        loop {
            for host in self.shared.managers.iter().filter(|host| **host != self.host) {
                if let Some(token) = self.token()
                    && let Some(answer) = self.ask_to_join(&connector, *host, token).await
                {
                    return Member { node_id: answer.node_id, raft_id: answer.raft_id };
                }
                tokio::time::sleep(Duration::from_millis(100)).await; // before the managers are asked again
            }
        }
    }

    async fn ask_to_join(
        &self,
        connector: &Connector,
        host: HostId,
        token: String,
    ) -> Option<IssueResponse> {
        let addr = address(host).to_string();
        let channel = connector.connect(&addr, ExpectedPeer::Manager).await.ok()?;
        let (_, csr_pem) = new_key_and_csr().ok()?;
        let own = address(self.host).to_string();
        let engine = self.version.engine();
        let request = IssueRequest {
            token,
            csr_pem,
            hostname: self.hostname(),
            addr: own,
            engine_version: engine.engine_version,
            feature_level: engine.feature_level.number(),
        };
        let mut client = MembershipClient::new(channel);
        let answer = tokio::time::timeout(Duration::from_secs(5), client.issue(request)).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    /// As `swarmd` does: until it is one.
    async fn become_voter(&self, member: &Member, connector: &Connector) {
        let Some(manager) = self.seen().manager.clone() else { return };
        let mut status = manager.raft().status();
        drop(manager);
        while status.borrow_and_update().voters.iter().all(|voter| voter.id != member.raft_id) {
            for host in self.shared.managers.iter().filter(|host| **host != self.host) {
                let addr = address(*host).to_string();
                if let Ok(channel) = connector.connect(&addr, ExpectedPeer::Manager).await {
                    let own = address(self.host).to_string();
                    let request = BecomeVoterRequest { raft_id: member.raft_id, addr: own };
                    let mut client = MembershipClient::new(channel);
                    let answer = tokio::time::timeout(VOTER_PATIENCE, client.become_voter(request));
                    if answer.await.is_ok_and(|answer| answer.is_ok()) {
                        break;
                    }
                }
            }
            // Either it takes a moment to show, or a manager is asked again.
            let _ = tokio::time::timeout(Duration::from_secs(1), status.changed()).await;
        }
    }
}
