//! The daemon's life, and what it answers on the local socket.

mod control;
mod info;
mod service;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use swarm_balancer::Choice;
use swarm_images::{ImageStore, Options as ImageOptions};
use swarm_pki::load_roots;
use swarm_proto::control::control_server::ControlServer;
use swarm_proto::control::node_server::NodeServer;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, RwLock, watch};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::args::{Args, Balancer};
use crate::config::NodeFiles;
use crate::locked::LockedNode;
use crate::moved;
use crate::node::{Host, Node};
use crate::roles;
use crate::socket;
use crate::twin;
use crate::upkeep;
use crate::voter;

/// The daemon: this host, and the node it is, if it is one.
#[derive(Clone)]
pub(crate) struct Daemon {
    pub(crate) host: Arc<Host>,
    pub(crate) node: Arc<RwLock<Option<Node>>>,
    /// The node it is, if that is a manager without its unlock key; then `node` is none. Locked before `node`.
    pub(crate) locked: Arc<RwLock<Option<LockedNode>>>,
    /// Held while the host becomes a node or ceases to be one, which takes seconds.
    pub(crate) changing: Arc<Mutex<()>>,
}

/// Runs the daemon until it is told to end.
pub(crate) async fn serve(args: Args) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("swarmd must run as root: it makes network namespaces and containers");
    }
    raise_descriptor_limit()?;
    let balancer = choose_balancer(args.balancer).await?;
    for dir in [&args.state_dir, &args.run_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let state_dir = args.state_dir.canonicalize().context("cannot find the state directory")?;
    let run_dir = args.run_dir.canonicalize().context("cannot find the run directory")?;
    let listener = socket::listen(&run_dir.join("swarmd.sock")).await?;
    let images =
        ImageOptions { insecure_registries: args.insecure_registries, ..ImageOptions::default() };
    let host = Host {
        hostname: nix::unistd::gethostname()
            .context("this host has no name")?
            .to_string_lossy()
            .into_owned(),
        files: NodeFiles::new(&state_dir),
        images: ImageStore::open(state_dir.join("images"), images).await?,
        state_dir,
        run_dir,
        balancer,
        standing: watch::Sender::default(),
    };
    tracing::info!("balancing with {}", host.balancer);
    let (node, locked) = match resume(&host).await? {
        Resumed::Nothing => (None, None),
        Resumed::Node(node) => (Some(*node), None),
        Resumed::Locked(node) => (None, Some(*node)),
    };
    let daemon = Daemon {
        host: Arc::new(host),
        node: Arc::new(RwLock::new(node)),
        locked: Arc::new(RwLock::new(locked)),
        changing: Arc::default(),
    };
    let following =
        [tokio::spawn(roles::follow(daemon.clone())), tokio::spawn(upkeep::follow(daemon.clone()))];
    let server = Server::builder()
        .add_service(NodeServer::new(service::NodeService(daemon.clone())))
        .add_service(ControlServer::new(control::LocalControl(daemon.clone())));
    let incoming = UnixListenerStream::new(listener);
    tokio::select! {
        served = server.serve_with_incoming(incoming) => served.context("the local socket failed")?,
        () = told_to_end()? => {}
    }
    tracing::info!("ending; containers live on");
    following.iter().for_each(tokio::task::JoinHandle::abort);
    if let Some(node) = daemon.locked.write().await.take() {
        node.shutdown().await;
    }
    if let Some(node) = daemon.node.write().await.take() {
        node.shutdown().await?;
    }
    Ok(())
}

/// At start, in a swarm or not: who asked for what this host lacks hears of it before anything else is done.
async fn choose_balancer(wanted: Balancer) -> Result<Choice> {
    let choice = swarm_balancer::choose(wanted.into()).await;
    choice.with_context(|| match wanted.to_possible_value() {
        Some(word) => format!("cannot balance with --balancer {}", word.get_name()),
        None => "cannot balance".to_owned(),
    })
}

/// Every task costs two descriptors for DNS; the usual soft limit of 1024 is soon reached.
fn raise_descriptor_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the limit of open files")
}

/// What this host was before.
pub(crate) enum Resumed {
    /// Nothing.
    Nothing,
    /// A node, which goes on.
    Node(Box<Node>),
    /// A manager that needs its unlock key.
    Locked(Box<LockedNode>),
}

/// Brings the node up that this host was before.
pub(crate) async fn resume(host: &Host) -> Result<Resumed> {
    let Some(config) = host.files.load()? else { return Ok(Resumed::Nothing) };
    let lost = |what: &str| {
        let dir = host.state_dir.display();
        format!("this node has lost {what}: remove {dir}/node.json, then let it join again")
    };
    if config.raft_id.is_some() && !host.files.has_raft() {
        // With an empty log it would vote twice in one term, and confirm what it does not have.
        let hostname = &host.hostname;
        bail!(
            "{}; on another manager: swarmctl node rm --force {hostname}",
            lost("its part of the swarm's state, which it had as a manager")
        );
    }
    if config.raft_id.is_some() && host.files.vault().is_locked()? {
        let config = moved::now(config).await;
        return Ok(Resumed::Locked(Box::new(LockedNode::start(host, config).await?)));
    }
    let identity = host.files.vault().load_identity(OffsetDateTime::now_utc())?;
    let identity = identity.with_context(|| lost("its certificate"))?;
    let roots =
        load_roots(&host.files.pki())?.with_context(|| lost("its swarm's root certificate"))?;
    // At the address it had: on another host it would find another one.
    twin::refuse(&config, &identity, &roots, &host.state_dir).await?;
    let now = moved::now(config.clone()).await;
    if now != config {
        host.files.save(&now)?;
    }
    let (mut node, _) = Node::start(host, now, identity, roots, None).await?;
    if let Some(rest) = voter::complete(&node) {
        node.spawn(rest);
    }
    Ok(Resumed::Node(Box::new(node)))
}

fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
