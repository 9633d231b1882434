//! The daemon as a process: it prepares its host, answers on the local socket, and ends when it is told to.

mod control;
mod info;
mod service;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use swarm_balancer::Choice;
use swarm_images::{ImageStore, Options as ImageOptions};
use swarm_proto::control::control_server::ControlServer;
use swarm_proto::control::node_server::NodeServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::args::{Args, Balancer};
use crate::config::NodeFiles;
use crate::life;
use crate::node::Host;
use crate::socket;
use crate::upkeep;

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
    let (daemon, living) = life::begin(host).await?;
    let upkeep = tokio::spawn(upkeep::follow(daemon.clone()));
    let server = Server::builder()
        .add_service(NodeServer::new(service::NodeService(daemon.clone())))
        .add_service(ControlServer::new(control::LocalControl(daemon.clone())));
    let incoming = UnixListenerStream::new(listener);
    tokio::select! {
        served = server.serve_with_incoming(incoming) => served.context("the local socket failed")?,
        () = told_to_end()? => {}
    }
    tracing::info!("ending; containers live on");
    upkeep.abort();
    living.end().await
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
