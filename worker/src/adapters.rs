//! What the agent and the tasks need of a host, as interfaces: the real adapters are used by the daemon, a
//! simulation brings a host of its own. Names and promises are those of the adapters.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use ipnet::IpNet;
use swarm_balancer::Balancer;
use swarm_dns::{DnsServer, NetworkNames, Scope};
use swarm_images::{ImageConfig, ImageStore, Platform, PullPolicy, Reference};
use swarm_overlay::{Changes, Existing, Sandbox};
use swarm_runtime::{
    ContainerSpec, ExecError, ExecReader, ExecSession, ExecSpec, ExecWriter, Exit, LogLine,
    LogOptions, RuntimeError, StartError, Started,
};

use crate::encryption::Encryption;

/// A host's adapters; cheap to clone.
#[derive(Clone)]
pub struct Adapters {
    /// Networks and sandboxes.
    pub overlay: Arc<dyn Overlay>,
    /// Encrypted networks.
    pub encryption: Arc<Encryption>,
    /// Service addresses.
    pub balancer: Arc<dyn Balancer>,
    /// Names.
    pub dns: Arc<dyn Dns>,
    /// Containers.
    pub runtime: Arc<dyn Runtime>,
    /// Images.
    pub images: Arc<dyn Images>,
}

/// See [`swarm_overlay::Overlay`].
#[tonic::async_trait]
pub trait Overlay: Send + Sync {
    /// Repairs the host's way out.
    async fn ensure_host(&self) -> Result<Changes, swarm_overlay::Error>;
    /// Brings a network to what it should be.
    async fn ensure(
        &self,
        network: &swarm_overlay::Network,
    ) -> Result<Changes, swarm_overlay::Error>;
    /// Removes a network.
    async fn remove(&self, network: &str) -> Result<(), swarm_overlay::Error>;
    /// What is there.
    fn list(&self) -> Result<Existing, swarm_overlay::Error>;
    /// Makes a task's sandbox; returns its namespace.
    async fn create_sandbox(&self, sandbox: &Sandbox) -> Result<PathBuf, swarm_overlay::Error>;
    /// Removes a task's sandbox.
    async fn remove_sandbox(&self, task: &str) -> Result<(), swarm_overlay::Error>;
    /// Removes everything.
    async fn destroy(&self) -> Result<(), swarm_overlay::Error>;
    /// A network's namespace.
    fn network_netns(&self, network: &str) -> PathBuf;
    /// A sandbox's namespace.
    fn sandbox_netns(&self, task: &str) -> PathBuf;
    /// Opens a look at what listens in a sandbox.
    async fn listeners(&self, task: &str) -> Result<Box<dyn Listeners>, swarm_overlay::Error>;
    /// The MTU of the underlay.
    async fn underlay_mtu(&self) -> Result<u32, swarm_overlay::Error>;
    /// The host's routes.
    async fn routes(&self) -> Result<Vec<IpNet>, swarm_overlay::Error>;
}

#[tonic::async_trait]
impl Overlay for swarm_overlay::Overlay {
    async fn ensure_host(&self) -> Result<Changes, swarm_overlay::Error> {
        self.ensure_host().await
    }

    async fn ensure(
        &self,
        network: &swarm_overlay::Network,
    ) -> Result<Changes, swarm_overlay::Error> {
        self.ensure(network).await
    }

    async fn remove(&self, network: &str) -> Result<(), swarm_overlay::Error> {
        self.remove(network).await
    }

    fn list(&self) -> Result<Existing, swarm_overlay::Error> {
        self.list()
    }

    async fn create_sandbox(&self, sandbox: &Sandbox) -> Result<PathBuf, swarm_overlay::Error> {
        self.create_sandbox(sandbox).await.map(|handle| handle.netns)
    }

    async fn remove_sandbox(&self, task: &str) -> Result<(), swarm_overlay::Error> {
        self.remove_sandbox(task).await
    }

    async fn destroy(&self) -> Result<(), swarm_overlay::Error> {
        self.destroy().await
    }

    fn network_netns(&self, network: &str) -> PathBuf {
        self.network_netns(network)
    }

    fn sandbox_netns(&self, task: &str) -> PathBuf {
        self.sandbox_netns(task)
    }

    async fn listeners(&self, task: &str) -> Result<Box<dyn Listeners>, swarm_overlay::Error> {
        Ok(Box::new(self.listeners(task).await?))
    }

    async fn underlay_mtu(&self) -> Result<u32, swarm_overlay::Error> {
        self.underlay_mtu().await
    }

    async fn routes(&self) -> Result<Vec<IpNet>, swarm_overlay::Error> {
        self.routes().await
    }
}

/// See [`swarm_overlay::Listeners`].
pub trait Listeners: Send + Sync {
    /// The TCP sockets that listen now.
    fn now(&mut self) -> Result<Vec<SocketAddr>, swarm_overlay::Error>;
}

impl Listeners for swarm_overlay::Listeners {
    fn now(&mut self) -> Result<Vec<SocketAddr>, swarm_overlay::Error> {
        self.now()
    }
}

/// See [`DnsServer`].
#[tonic::async_trait]
pub trait Dns: Send + Sync {
    /// Replaces a network's names.
    fn publish_network(&self, network: &str, names: Arc<NetworkNames>);
    /// Forgets a network's names.
    fn remove_network(&self, network: &str);
    /// Serves a sandbox.
    async fn attach(&self, id: &str, netns: &Path, scope: Scope) -> Result<(), swarm_dns::Error>;
    /// Serves a sandbox no more.
    async fn detach(&self, id: &str) -> Result<(), swarm_dns::Error>;
}

#[tonic::async_trait]
impl Dns for DnsServer {
    fn publish_network(&self, network: &str, names: Arc<NetworkNames>) {
        self.publish_network(network, names);
    }

    fn remove_network(&self, network: &str) {
        self.remove_network(network);
    }

    async fn attach(&self, id: &str, netns: &Path, scope: Scope) -> Result<(), swarm_dns::Error> {
        self.attach(id, netns, scope).await
    }

    async fn detach(&self, id: &str) -> Result<(), swarm_dns::Error> {
        self.detach(id).await
    }
}

/// See [`swarm_runtime::Runtime`].
#[tonic::async_trait]
pub trait Runtime: Send + Sync {
    /// Starts a container.
    async fn start(&self, spec: &ContainerSpec) -> Result<Started, StartError>;
    /// Waits for its end.
    async fn wait(&self, id: &str) -> Result<Exit, RuntimeError>;
    /// Brings its end about.
    async fn stop(&self, id: &str, grace: Duration) -> Result<Exit, RuntimeError>;
    /// Removes all that is left of it.
    async fn delete(&self, id: &str) -> Result<(), RuntimeError>;
    /// Keeps a note with it, for as long as it is there and the host is up; replaces the former one.
    async fn note(&self, id: &str, note: Vec<u8>) -> Result<(), RuntimeError>;
    /// The note kept with it.
    async fn noted(&self, id: &str) -> Result<Option<Vec<u8>>, RuntimeError>;
    /// What it prints and has printed.
    async fn logs(&self, id: &str, options: LogOptions) -> Result<Logs, RuntimeError>;
    /// Starts a further process in it, which runs.
    async fn exec(&self, id: &str, spec: ExecSpec) -> Result<Exec, ExecError>;
    /// Removes what all containers shared.
    fn remove_cgroup_parent(&self);
}

/// Lines that a container printed.
pub type Logs = BoxStream<'static, io::Result<LogLine>>;

/// A process started by [`Runtime::exec`], with its ends of what it reads and writes; see [`ExecSession`].
pub struct Exec {
    /// Its standard input or terminal.
    pub stdin: Option<ExecWriter>,
    /// Its standard output, or all its output if it has a terminal.
    pub stdout: Option<ExecReader>,
    /// Its standard error; none if it has a terminal.
    pub stderr: Option<ExecReader>,
    /// The process. Dropping it kills it.
    pub process: Box<dyn Process>,
}

impl From<ExecSession> for Exec {
    fn from(mut session: ExecSession) -> Exec {
        let (stdin, stdout) = (session.stdin.take(), session.stdout.take());
        let stderr = session.stderr.take();
        Exec { stdin, stdout, stderr, process: Box::new(session) }
    }
}

/// See [`ExecSession`].
#[tonic::async_trait]
pub trait Process: Send {
    /// Sets the size of its terminal, if it has one.
    fn resize(&self, rows: u16, columns: u16) -> io::Result<()>;
    /// Waits for its end; gives its exit code.
    async fn wait(&mut self) -> Result<i32, ExecError>;
}

#[tonic::async_trait]
impl Process for ExecSession {
    fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        self.resize(rows, columns)
    }

    async fn wait(&mut self) -> Result<i32, ExecError> {
        self.wait().await
    }
}

#[tonic::async_trait]
impl Runtime for swarm_runtime::Runtime {
    async fn start(&self, spec: &ContainerSpec) -> Result<Started, StartError> {
        self.start(spec).await
    }

    async fn wait(&self, id: &str) -> Result<Exit, RuntimeError> {
        self.wait(id).await
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<Exit, RuntimeError> {
        self.stop(id, grace).await
    }

    async fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        self.delete(id).await
    }

    async fn note(&self, id: &str, note: Vec<u8>) -> Result<(), RuntimeError> {
        self.note(id, note).await
    }

    async fn noted(&self, id: &str) -> Result<Option<Vec<u8>>, RuntimeError> {
        self.noted(id).await
    }

    async fn logs(&self, id: &str, options: LogOptions) -> Result<Logs, RuntimeError> {
        Ok(self.logs(id, options).await?.boxed())
    }

    async fn exec(&self, id: &str, spec: ExecSpec) -> Result<Exec, ExecError> {
        Ok(self.exec(id, spec).await?.into())
    }

    fn remove_cgroup_parent(&self) {
        self.remove_cgroup_parent();
    }
}

/// An image that is there as long as this value is.
pub struct Image {
    /// Its defaults.
    pub config: ImageConfig,
    /// Its layers.
    pub layers: Vec<PathBuf>,
    /// Held for its drop.
    pub lease: Box<dyn Send + Sync>,
}

impl From<swarm_images::Image> for Image {
    fn from(image: swarm_images::Image) -> Image {
        let (config, layers) = (image.config.clone(), image.layers.clone());
        Image { config, layers, lease: Box::new(image) }
    }
}

/// See [`ImageStore`].
#[tonic::async_trait]
pub trait Images: Send + Sync {
    /// An image of this host, from a registry if it is not here.
    async fn pull(&self, reference: &Reference) -> Result<Image, swarm_images::Error>;
    /// An image that is here.
    async fn get(&self, reference: &Reference) -> Result<Image, swarm_images::Error>;
}

#[tonic::async_trait]
impl Images for ImageStore {
    async fn pull(&self, reference: &Reference) -> Result<Image, swarm_images::Error> {
        self.pull(reference, &Platform::host(), PullPolicy::IfMissing).await.map(Into::into)
    }

    async fn get(&self, reference: &Reference) -> Result<Image, swarm_images::Error> {
        self.get(reference).await.map(Into::into)
    }
}
