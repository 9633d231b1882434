//! A node that is part of a swarm: its worker, its manager if it is one, and the mTLS server in front of
//! both.

use std::fs::{DirBuilder, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use swarm_balancer::Choice;
use swarm_images::ImageStore;
use swarm_manager::{Dialect, Manager, ManagerOptions, NewCluster};
use swarm_model::{JoinTokens, ManagerAddress, NodeId};
use swarm_pki::{
    AcceptorOptions, Connector, ConnectorOptions, Credentials, NodeIdentity, RootCert, TlsAcceptor,
};
use swarm_worker::{Prepared, Standing, Trust, Worker, WorkerOptions};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::config::{NodeConfig, NodeFiles};
use crate::images::ImageCheck;
use crate::renew::Renewal;
use crate::server::Server;

/// What every node of this process has, in a swarm or not.
pub(crate) struct Host {
    pub(crate) hostname: String,
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) files: NodeFiles,
    pub(crate) images: ImageStore,
    pub(crate) balancer: Choice,
    /// What this host is in its swarm, as that says.
    pub(crate) standing: watch::Sender<Option<Standing>>,
}

/// A node of a swarm.
pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) connector: Connector,
    pub(crate) manager: Option<Manager>,
    pub(crate) worker: Worker,
    pub(crate) renewal: Renewal,
    /// What other nodes may call.
    routes: watch::Sender<Routes>,
    server: Server,
    /// End with the node.
    background: JoinSet<()>,
}

impl Node {
    /// Brings a node up. With `new`, it begins a swarm, and the join tokens of that are returned.
    pub(crate) async fn start(
        host: &Host,
        config: NodeConfig,
        identity: NodeIdentity,
        roots: Vec<RootCert>,
        new: Option<NewCluster>,
    ) -> Result<(Node, Option<JoinTokens>)> {
        let listener = TcpListener::bind(&config.listen_addr)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen_addr))?;
        let credentials = Credentials::new(&roots, Some(identity.clone()))?;
        let connector = Connector::new(credentials.clone(), ConnectorOptions::default());
        let (trust, trusted) = watch::channel(None);
        let acceptor = TlsAcceptor::new(&credentials, AcceptorOptions::default())?;
        let mut config = config;
        let options = worker_options(host, &config, identity.node_id().into(), &connector, trust);
        let prepared = Prepared::new(options).await?;
        let (manager, tokens) = match config.raft_id {
            Some(raft_id) => {
                let manager = start_manager(host, &config, raft_id, &connector).await?;
                let (manager, tokens) = bootstrap(manager, new).await?;
                if config.takes_over {
                    manager.take_over(host.hostname.clone()).await?;
                    config.takes_over = false;
                    host.files.save(&config)?;
                }
                (Some(manager), tokens)
            }
            None => (None, None),
        };
        // What was heard before is of the node as it was.
        host.standing.send_replace(None);
        let worker = prepared.start();
        let (routes, served) = watch::channel(services(&worker, manager.as_ref()));
        let server = Server::start(listener, &acceptor, served);
        let mut background = JoinSet::new();
        let managers = worker.managers().clone();
        let renewal = Renewal::new(connector.clone(), host.files.clone(), managers, trusted);
        background.spawn(renewal.clone().run());
        let node = Node { config, connector, manager, worker, renewal, routes, server, background };
        Ok((node, tokens))
    }

    /// Has something done beside, until it is done or the node ends.
    pub(crate) fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.background.spawn(work);
    }

    /// Gives the node a manager, or takes its away, which is returned: it is still to be shut down.
    pub(crate) fn replace_manager(&mut self, manager: Option<Manager>) -> Option<Manager> {
        self.routes.send_replace(services(&self.worker, manager.as_ref()));
        std::mem::replace(&mut self.manager, manager)
    }

    /// This node's id.
    pub(crate) fn id(&self) -> String {
        let identity = self.connector.credentials().identity();
        identity.map(|identity| identity.node_id().to_owned()).unwrap_or_default()
    }

    /// Ends for good: stops every task and forgets the swarm, whatever fails on the way. Images stay.
    pub(crate) async fn clear(mut self, host: &Host) -> Result<()> {
        self.background.shutdown().await;
        let ended = end_manager(self.manager.take()).await;
        self.server.close().await;
        self.worker.clear().await;
        host.files.forget()?;
        ended
    }

    /// Ends with the process: containers live on.
    pub(crate) async fn shutdown(mut self) -> Result<()> {
        self.background.shutdown().await;
        let ended = end_manager(self.manager.take()).await;
        self.server.close().await;
        self.worker.shutdown().await;
        ended
    }
}

async fn end_manager(manager: Option<Manager>) -> Result<()> {
    match manager {
        Some(manager) => manager.shutdown().await.map_err(Into::into),
        None => Ok(()),
    }
}

fn services(worker: &Worker, manager: Option<&Manager>) -> Routes {
    let routes = worker.add_services(Routes::default());
    match manager {
        Some(manager) => manager.add_services(routes),
        None => routes,
    }
}

/// The worker of a node.
pub(crate) fn worker_options(
    host: &Host,
    config: &NodeConfig,
    node_id: NodeId,
    connector: &Connector,
    trust: watch::Sender<Option<Trust>>,
) -> WorkerOptions {
    let mut managers = config.managers.clone();
    if config.raft_id.is_some() {
        let addr = config.advertise_addr.clone();
        managers.push(ManagerAddress { node_id: node_id.clone(), addr });
    }
    WorkerOptions {
        node_id,
        hostname: host.hostname.clone(),
        addr: host_of(&config.advertise_addr),
        listen_addr: config.advertise_addr.clone(),
        vtep: config.data_path_addr,
        data_path_port: config.data_path_port,
        state_dir: host.state_dir.clone(),
        run_dir: host.run_dir.clone(),
        images: host.images.clone(),
        balancer: host.balancer.clone(),
        connector: connector.clone(),
        managers,
        standing: host.standing.clone(),
        trust,
    }
}

/// Starts the manager `raft_id` of the node that the connector's certificate is of.
pub(crate) async fn start_manager(
    host: &Host,
    config: &NodeConfig,
    raft_id: u64,
    connector: &Connector,
) -> Result<Manager> {
    let identity = connector.credentials().identity().context("this node has no certificate")?;
    keep_private(&host.files.raft())?;
    let key = host.files.vault().key()?;
    let options = ManagerOptions {
        node_id: identity.node_id().into(),
        addr: config.advertise_addr.clone(),
        raft: swarm_raft::Options::new(raft_id, host.files.raft(), key),
        connector: connector.clone(),
        images: Arc::new(ImageCheck(host.images.clone())),
        files: Arc::clone(host.files.vault()) as Arc<dyn swarm_manager::Files>,
        dialect: Dialect::own(),
    };
    Ok(Manager::start(options).await?)
}

/// Lets a manager begin a swarm, if it is to.
async fn bootstrap(
    manager: Manager,
    new: Option<NewCluster>,
) -> Result<(Manager, Option<JoinTokens>)> {
    let Some(new) = new else { return Ok((manager, None)) };
    match manager.bootstrap(new).await {
        Ok(tokens) => Ok((manager, Some(tokens))),
        Err(e) => {
            // Else its log would stay open, and the next attempt would find it in use.
            manager.shutdown().await?;
            Err(e.into())
        }
    }
}

/// Raft's log and snapshots hold the CA's key and those of encrypted networks.
pub(crate) fn keep_private(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o700)))
        .with_context(|| format!("cannot keep {} to ourselves", dir.display()))
}

/// The host of `host:port`.
fn host_of(addr: &str) -> String {
    match addr.parse::<std::net::SocketAddr>() {
        Ok(addr) => IpAddr::to_string(&addr.ip()),
        Err(_) => addr.rsplit_once(':').map_or(addr, |(host, _)| host).to_owned(),
    }
}
