//! A worker: the adapters of a node and the agent that drives them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use swarm_balancer::Choice;
use swarm_dns::{DnsServer, parse_resolv_conf};
use swarm_images::ImageStore;
use swarm_model::{EngineDescription, ManagerAddress, NodeId};
use swarm_overlay::Overlay;
use swarm_pki::Connector;
use swarm_proto::taskio::task_io_server::TaskIoServer;
use swarm_runtime::{Adopted, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::adapters::Adapters;
use crate::agent::Agent;
use crate::dataplane::DataPlane;
use crate::encryption::Encryption;
use crate::identity::Identity;
use crate::io::TaskIoService;
use crate::line::Caller;
use crate::managers::Managers;
use crate::memory::MemoryFile;
use crate::networks::network_facts;
use crate::progress::Progress;
use crate::reporter::Reporter;
use crate::standing::{Standing, Trust};
use crate::supervisor::Supervisor;
use crate::task::Tools;

/// What a worker needs to start.
pub struct WorkerOptions {
    /// This node's id.
    pub node_id: NodeId,
    /// Its host name.
    pub hostname: String,
    /// The address it is known by.
    pub addr: String,
    /// Where its gRPC listens, `host:port`.
    pub listen_addr: String,
    /// Its data-path address: the source of its VXLAN packets.
    pub vtep: IpAddr,
    /// The UDP port of VXLAN.
    pub data_path_port: u16,
    /// Where it keeps what outlives a reboot.
    pub state_dir: PathBuf,
    /// Where it keeps what does not.
    pub run_dir: PathBuf,
    /// Its images.
    pub images: ImageStore,
    /// The engine that balances VIPs.
    pub balancer: Choice,
    /// Connects to managers.
    pub connector: Connector,
    /// Where managers were when the node was set up.
    pub managers: Vec<ManagerAddress>,
    /// Hears what the managers say this node is.
    pub standing: watch::Sender<Option<Standing>>,
    /// Hears whom the managers say this node is to trust.
    pub trust: watch::Sender<Option<Trust>>,
}

/// Who a worker is, and where it keeps what it remembers; see [`WorkerOptions`].
#[allow(missing_docs)]
pub struct Who {
    pub node_id: NodeId,
    pub hostname: String,
    pub addr: String,
    pub listen_addr: String,
    pub vtep: IpAddr,
    /// The engine that balances VIPs, in words.
    pub balancer: String,
    /// The daemon that the worker is part of.
    pub engine: EngineDescription,
    pub state_dir: PathBuf,
    pub connector: Connector,
    pub managers: Vec<ManagerAddress>,
    pub standing: watch::Sender<Option<Standing>>,
    pub trust: watch::Sender<Option<Trust>>,
}

/// A part of this node that cannot work here.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The kernel lacks something, or a port is taken.
    #[error(transparent)]
    Overlay(#[from] swarm_overlay::Error),
    /// Containers cannot be run here.
    #[error(transparent)]
    Runtime(#[from] swarm_runtime::RuntimeError),
}

/// A worker that this host can be: it has not begun yet.
pub struct Prepared {
    agent: Agent,
    io: TaskIoService,
}

/// A running worker. Dropping it ends the agent soon after; containers live on.
pub struct Worker {
    io: TaskIoService,
    managers: Managers,
    trouble: watch::Receiver<String>,
    leave: oneshot::Sender<()>,
    agent: JoinHandle<()>,
}

impl Prepared {
    /// Checks that this host can do what a worker must, and finds what an earlier `swarmd` left.
    pub async fn new(options: WorkerOptions) -> Result<Prepared, WorkerError> {
        let mut overlay_options = swarm_overlay::Options::new(&options.run_dir, options.vtep);
        overlay_options.port = options.data_path_port;
        let overlay = Arc::new(Overlay::new(overlay_options).await?);
        let (state_dir, port) = (&options.state_dir, options.data_path_port);
        let encryption = Encryption::open(state_dir, options.vtep, port).await;
        let dns = Arc::new(DnsServer::new(swarm_dns::Options {
            upstreams: resolvers(),
            ..swarm_dns::Options::default()
        }));
        let runtime = Runtime::open(swarm_runtime::Options::new(
            options.state_dir.join("tasks"),
            options.run_dir.join("tasks"),
            "/swarmd",
        ))?;
        let found = runtime.adopt().await?;
        let balancer = options.balancer.to_string();
        let adapters = Adapters {
            overlay,
            encryption: Arc::new(encryption),
            balancer: options.balancer.engine,
            dns,
            runtime: Arc::new(runtime),
            images: Arc::new(options.images),
        };
        let who = Who {
            node_id: options.node_id,
            hostname: options.hostname,
            addr: options.addr,
            listen_addr: options.listen_addr,
            vtep: options.vtep,
            balancer,
            engine: EngineDescription::of_this_build(),
            state_dir: options.state_dir,
            connector: options.connector,
            managers: options.managers,
            standing: options.standing,
            trust: options.trust,
        };
        Ok(Prepared::with_adapters(who, adapters, found))
    }

    /// A worker of this host's adapters, whatever they are; `found` are the containers that run. Must be called
    /// within a tokio runtime.
    pub fn with_adapters(who: Who, adapters: Adapters, found: Vec<Adopted>) -> Prepared {
        let reporter = Reporter::default();
        let file = MemoryFile::new(&who.state_dir);
        let (memory, known) = watch::channel(Arc::new(file.load(&who.node_id)));
        let (keep, kept) = watch::channel(0);
        let facts = known.clone();
        let managers = Managers::new(known.clone(), who.managers);
        let io =
            TaskIoService { runtime: Arc::clone(&adapters.runtime), managers: managers.clone() };
        let tools = Arc::new(Tools {
            overlay: Arc::clone(&adapters.overlay),
            dns: Arc::clone(&adapters.dns),
            runtime: adapters.runtime,
            images: adapters.images,
            reporter: reporter.clone(),
            networks: Arc::new(move |id| network_facts(&facts.borrow().view, id)),
        });
        let agent = Agent {
            caller: Caller {
                identity: Arc::new(Identity {
                    node: who.node_id.clone(),
                    addr: who.addr,
                    connector: who.connector,
                    reporter,
                    hostname: who.hostname,
                    listen_addr: who.listen_addr,
                    vtep: who.vtep,
                    balancer: who.balancer,
                    engine: who.engine,
                    encryption: Arc::clone(&adapters.encryption),
                }),
                overlay: Arc::clone(&adapters.overlay),
                managers,
                trouble: watch::Sender::default(),
            },
            plane: Arc::new(DataPlane {
                node: who.node_id,
                vtep: who.vtep,
                overlay: adapters.overlay,
                encryption: adapters.encryption,
                balancer: adapters.balancer,
                dns: adapters.dns,
            }),
            supervisor: Supervisor::new(tools, found),
            memory,
            standing: who.standing,
            trust: who.trust,
            saving: tokio::spawn(file.keep(known, keep)),
            kept,
            progress: Progress::default(),
        };
        Prepared { agent, io }
    }

    /// Takes up what is remembered and begins to follow the managers.
    pub fn start(self) -> Worker {
        let (leave, left) = oneshot::channel();
        let managers = self.agent.caller.managers.clone();
        let trouble = self.agent.caller.trouble.subscribe();
        let agent = tokio::spawn(self.agent.run(left));
        Worker { io: self.io, managers, trouble, leave, agent }
    }
}

impl Worker {
    /// Adds what managers call, over mTLS.
    pub fn add_services(&self, routes: Routes) -> Routes {
        routes.add_service(TaskIoServer::new(self.io.clone()))
    }

    /// Where the managers are.
    pub fn managers(&self) -> &Managers {
        &self.managers
    }

    /// Why this node is not in touch with its swarm, in words; empty if it is.
    pub fn trouble(&self) -> watch::Receiver<String> {
        self.trouble.clone()
    }

    /// Stops every task and removes networks and containers: the node leaves the swarm.
    pub async fn clear(self) {
        // An agent that has ended already has panicked, and says so.
        let _ = self.leave.send(());
        if let Err(e) = self.agent.await {
            tracing::error!("the agent ended badly: {e}");
        }
    }

    /// Ends the agent; containers live on.
    pub async fn shutdown(self) {
        drop(self.leave);
        if let Err(e) = self.agent.await {
            tracing::error!("the agent ended badly: {e}");
        }
    }
}

/// The resolvers that other names are relayed to.
fn resolvers() -> Vec<SocketAddr> {
    let file = "/etc/resolv.conf";
    match std::fs::read_to_string(file) {
        Ok(text) => parse_resolv_conf(&text),
        Err(e) => {
            tracing::warn!("cannot read {file}, so only names of the swarm resolve: {e}");
            Vec::new()
        }
    }
}
