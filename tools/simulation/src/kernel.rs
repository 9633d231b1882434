//! A worker's host: a kernel that only remembers what it was told, and containers that only pretend. It
//! outlives `swarmd`, but not a reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use ipnet::IpNet;
use swarm_balancer::FakeBalancer;
use swarm_dns::{NetworkNames, Scope};
use swarm_images::{ImageConfig, Reference};
use swarm_overlay::{Changes, Error, Existing, Network, Sandbox};
use swarm_runtime::{
    Adopted, ContainerSpec, ContainerState, ExecError, ExecSpec, Exit, LogOptions, RuntimeError,
    StartError, Started,
};
use swarm_worker::Encryption;
use swarm_worker::adapters::{
    Adapters, Dns, Exec, Image, Images, Listeners, Logs, Overlay, Process, Runtime,
};
use tokio::sync::watch;

use crate::random::Random;

/// A host; clones are the same.
#[derive(Clone)]
pub(crate) struct Kernel {
    inner: Arc<Mutex<Inner>>,
    pub(crate) balancer: Arc<FakeBalancer>,
    /// Says of every container that it listens.
    lies: bool,
}

struct Inner {
    random: Random,
    networks: BTreeMap<String, Network>,
    /// Of `swarmd`: gone with it.
    names: BTreeMap<String, Arc<NetworkNames>>,
    served: BTreeSet<String>,
    sandboxes: BTreeSet<String>,
    containers: BTreeMap<String, Container>,
    /// Counts changes, to look only when there is something new.
    changes: u64,
    /// Programming fails.
    failing: bool,
    next_pid: i32,
}

/// The port that every image exposes.
const EXPOSED: u16 = 80;

struct Container {
    state: watch::Sender<ContainerState>,
    note: Option<Vec<u8>>,
    server: Server,
}

/// What the program in a container listens on.
#[derive(Clone, Copy)]
struct Server {
    port: u16,
    /// The container's age at which it begins to; none for never.
    listens_after: Option<Duration>,
}

impl Server {
    /// Most are quick, some slow, some listen where nobody expects it, and a few never.
    fn draw(random: &mut Random) -> Server {
        let after = |millis| Server { port: EXPOSED, listens_after: Some(millis) };
        match random.within(0..100) {
            0..3 => Server { port: EXPOSED, listens_after: None },
            3..10 => Server { port: 8080, ..after(random.millis(0..2_000)) },
            10..25 => after(random.millis(500..5_000)),
            _ => after(random.millis(0..200)),
        }
    }
}

impl Container {
    fn new(random: &mut Random) -> Container {
        Container {
            state: watch::Sender::new(ContainerState::Starting),
            note: None,
            server: Server::draw(random),
        }
    }

    /// How old it is, if it runs.
    fn age(&self) -> Option<Duration> {
        match *self.state.borrow() {
            ContainerState::Running(started) => {
                Some(started.started_at.elapsed().unwrap_or_default())
            }
            _ => None,
        }
    }

    fn listener(&self) -> Option<SocketAddr> {
        let listens = self.age()? >= self.server.listens_after?;
        listens.then(|| self.to_be())
    }

    /// Where it listens once it does.
    fn to_be(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.server.port))
    }
}

impl Kernel {
    /// One that `lies` says of every container that it listens.
    pub(crate) fn new(random: Random, lies: bool) -> Kernel {
        Kernel {
            lies,
            inner: Arc::new(Mutex::new(Inner {
                random,
                networks: BTreeMap::new(),
                names: BTreeMap::new(),
                served: BTreeSet::new(),
                sandboxes: BTreeSet::new(),
                containers: BTreeMap::new(),
                changes: 0,
                failing: false,
                next_pid: 100,
            })),
            balancer: Arc::new(FakeBalancer::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn adapters(&self) -> Adapters {
        let this = Arc::new(self.clone());
        Adapters {
            overlay: this.clone(),
            encryption: Arc::new(Encryption::none(
                IpAddr::from([127, 0, 0, 1]),
                "a simulated kernel has none".into(),
            )),
            balancer: self.balancer.clone(),
            dns: this.clone(),
            runtime: this.clone(),
            images: this,
        }
    }

    /// The containers that an earlier `swarmd` left.
    pub(crate) fn adopt(&self) -> Vec<Adopted> {
        let inner = self.lock();
        let found = inner.containers.iter().map(|(id, container)| Adopted {
            id: id.clone(),
            state: container.state.borrow().clone(),
            labels: BTreeMap::new(),
        });
        found.collect()
    }

    /// `swarmd` has ended.
    pub(crate) fn program_ended(&self) {
        let mut inner = self.lock();
        inner.names.clear();
        inner.served.clear();
        inner.changes += 1;
        // A container that was being set up is dead: its shim had not begun.
        let is_set_up =
            |container: &Container| *container.state.borrow() != ContainerState::Starting;
        inner.containers.retain(|_, container| is_set_up(container));
    }

    /// The host lost power: its containers are dead, their descriptions on disk.
    pub(crate) fn reboot(&self) {
        let mut inner = self.lock();
        inner.networks.clear();
        inner.sandboxes.clear();
        let ids: Vec<String> = inner.containers.keys().cloned().collect();
        for id in ids {
            inner.end(&id, 137);
        }
        inner.changes += 1;
        self.balancer.reboot();
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.lock().failing = failing;
    }

    /// One of the running containers ends by itself.
    pub(crate) fn kill_one(&self) {
        let mut inner = self.lock();
        let running: Vec<String> = inner.running().map(ToOwned::to_owned).collect();
        if let Some(id) = inner.random.pick(&running).cloned() {
            inner.end(&id, 1);
        }
    }

    pub(crate) fn networks(&self) -> BTreeMap<String, Network> {
        self.lock().networks.clone()
    }

    pub(crate) fn names(&self) -> BTreeMap<String, Arc<NetworkNames>> {
        self.lock().names.clone()
    }

    pub(crate) fn running(&self) -> BTreeSet<String> {
        self.lock().running().map(ToOwned::to_owned).collect()
    }

    /// How old a running container is, and whether its program listens, by the host's clock.
    pub(crate) fn serving(&self, id: &str) -> Option<(Duration, bool)> {
        let inner = self.lock();
        let container = inner.containers.get(id)?;
        Some((container.age()?, container.listener().is_some()))
    }

    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes + self.balancer.operations() as u64
    }

    async fn work(&self, millis: std::ops::Range<u64>) {
        let time = self.lock().random.millis(millis);
        tokio::time::sleep(time).await;
    }

    fn refuse(&self, action: &str) -> Result<(), Error> {
        if !self.lock().failing {
            return Ok(());
        }
        let source = std::io::Error::other("the kernel refuses, for a while");
        Err(Error::Netlink { action: action.to_owned(), source })
    }
}

impl Inner {
    fn running(&self) -> impl Iterator<Item = &str> {
        let running = self.containers.iter().filter(|(_, container)| container.age().is_some());
        running.map(|(id, _)| id.as_str())
    }

    fn end(&mut self, id: &str, code: i32) {
        self.changes += 1;
        if let Some(container) = self.containers.get(id) {
            container.state.send_replace(ContainerState::Exited(Exit {
                code,
                signal: None,
                oom_killed: false,
                finished_at: SystemTime::now(),
                error: None,
            }));
        }
    }
}

#[tonic::async_trait]
impl Overlay for Kernel {
    async fn ensure_host(&self) -> Result<Changes, Error> {
        Ok(Changes::default())
    }

    async fn ensure(&self, network: &Network) -> Result<Changes, Error> {
        self.work(1..15).await;
        self.refuse("set link")?;
        let mut inner = self.lock();
        inner.changes += 1;
        inner.networks.insert(network.id.clone(), network.clone());
        Ok(Changes::default())
    }

    async fn remove(&self, network: &str) -> Result<(), Error> {
        self.work(1..15).await;
        self.refuse("delete link")?;
        let mut inner = self.lock();
        inner.changes += 1;
        inner.networks.remove(network);
        Ok(())
    }

    fn list(&self) -> Result<Existing, Error> {
        let inner = self.lock();
        let networks = inner.networks.keys().cloned().collect();
        Ok(Existing { networks, sandboxes: inner.sandboxes.iter().cloned().collect() })
    }

    async fn create_sandbox(&self, sandbox: &Sandbox) -> Result<PathBuf, Error> {
        self.work(1..20).await;
        self.refuse("add sandbox")?;
        self.lock().sandboxes.insert(sandbox.task.clone());
        Ok(self.sandbox_netns(&sandbox.task))
    }

    async fn remove_sandbox(&self, task: &str) -> Result<(), Error> {
        self.work(1..10).await;
        self.lock().sandboxes.remove(task);
        Ok(())
    }

    async fn destroy(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.changes += 1;
        inner.networks.clear();
        inner.sandboxes.clear();
        Ok(())
    }

    fn network_netns(&self, network: &str) -> PathBuf {
        Path::new("/run/n").join(network)
    }

    fn sandbox_netns(&self, task: &str) -> PathBuf {
        Path::new("/run/t").join(task)
    }

    async fn listeners(&self, task: &str) -> Result<Box<dyn Listeners>, Error> {
        Ok(Box::new(Look { kernel: self.clone(), task: task.to_owned() }))
    }

    async fn underlay_mtu(&self) -> Result<u32, Error> {
        Ok(1500)
    }

    async fn routes(&self) -> Result<Vec<IpNet>, Error> {
        Ok(Vec::new())
    }
}

/// What listens in a sandbox.
struct Look {
    kernel: Kernel,
    task: String,
}

impl Listeners for Look {
    fn now(&mut self) -> Result<Vec<SocketAddr>, Error> {
        let inner = self.kernel.lock();
        let container = inner.containers.get(&self.task);
        let own = match self.kernel.lies {
            true => container.map(Container::to_be),
            false => container.and_then(Container::listener),
        };
        // The DNS server is there, too.
        let dns = SocketAddr::from(([127, 0, 0, 11], 53));
        Ok(own.into_iter().chain([dns]).collect())
    }
}

#[tonic::async_trait]
impl Dns for Kernel {
    fn publish_network(&self, network: &str, names: Arc<NetworkNames>) {
        let mut inner = self.lock();
        inner.changes += 1;
        inner.names.insert(network.to_owned(), names);
    }

    fn remove_network(&self, network: &str) {
        self.lock().names.remove(network);
    }

    async fn attach(&self, id: &str, _: &Path, _: Scope) -> Result<(), swarm_dns::Error> {
        match self.lock().served.insert(id.to_owned()) {
            true => Ok(()),
            false => Err(swarm_dns::Error::AlreadyAttached { id: id.to_owned() }),
        }
    }

    async fn detach(&self, id: &str) -> Result<(), swarm_dns::Error> {
        match self.lock().served.remove(id) {
            true => Ok(()),
            false => Err(swarm_dns::Error::NotAttached { id: id.to_owned() }),
        }
    }
}

async fn ended(mut state: watch::Receiver<ContainerState>, id: &str) -> Result<Exit, RuntimeError> {
    let ended = state.wait_for(|state| matches!(state, ContainerState::Exited(_))).await;
    match ended.as_deref() {
        Ok(ContainerState::Exited(exit)) => Ok(exit.clone()),
        _ => Err(RuntimeError::NotFound(id.to_owned())),
    }
}

impl Kernel {
    fn container(&self, id: &str) -> Result<watch::Receiver<ContainerState>, RuntimeError> {
        let inner = self.lock();
        let container = inner.containers.get(id);
        let state = container.map(|container| container.state.subscribe());
        state.ok_or_else(|| RuntimeError::NotFound(id.to_owned()))
    }
}

#[tonic::async_trait]
impl Runtime for Kernel {
    async fn start(&self, spec: &ContainerSpec) -> Result<Started, StartError> {
        {
            let mut inner = self.lock();
            let container = Container::new(&mut inner.random);
            if inner.containers.insert(spec.id.clone(), container).is_some() {
                return Err(StartError::Exists(spec.id.clone()));
            }
        }
        self.work(20..150).await;
        let mut inner = self.lock();
        inner.next_pid += 1;
        inner.changes += 1;
        let started = Started { pid: inner.next_pid, started_at: SystemTime::now() };
        if let Some(container) = inner.containers.get(&spec.id) {
            container.state.send_replace(ContainerState::Running(started));
        }
        Ok(started)
    }

    async fn wait(&self, id: &str) -> Result<Exit, RuntimeError> {
        ended(self.container(id)?, id).await
    }

    async fn stop(&self, id: &str, _: Duration) -> Result<Exit, RuntimeError> {
        let state = self.container(id)?;
        self.work(5..80).await;
        if matches!(*state.borrow(), ContainerState::Running(_)) {
            self.lock().end(id, 143);
        }
        ended(state, id).await
    }

    async fn delete(&self, id: &str) -> Result<(), RuntimeError> {
        self.container(id)?;
        self.work(1..10).await;
        let mut inner = self.lock();
        inner.changes += 1;
        inner.containers.remove(id);
        Ok(())
    }

    async fn note(&self, id: &str, note: Vec<u8>) -> Result<(), RuntimeError> {
        match self.lock().containers.get_mut(id) {
            Some(container) => container.note = Some(note),
            None => return Err(RuntimeError::NotFound(id.to_owned())),
        }
        Ok(())
    }

    async fn noted(&self, id: &str) -> Result<Option<Vec<u8>>, RuntimeError> {
        self.container(id)?;
        Ok(self.lock().containers.get(id).and_then(|container| container.note.clone()))
    }

    /// It prints nothing.
    async fn logs(&self, id: &str, _: LogOptions) -> Result<Logs, RuntimeError> {
        self.container(id)?;
        Ok(futures::stream::empty().boxed())
    }

    /// The command does nothing, well.
    async fn exec(&self, id: &str, _: ExecSpec) -> Result<Exec, ExecError> {
        if self.serving(id).is_none() {
            return Err(RuntimeError::NotRunning(id.to_owned()).into());
        }
        self.work(5..50).await;
        Ok(Exec { stdin: None, stdout: None, stderr: None, process: Box::new(Done) })
    }

    fn remove_cgroup_parent(&self) {}
}

/// A process that has ended.
struct Done;

#[tonic::async_trait]
impl Process for Done {
    fn resize(&self, _: u16, _: u16) -> io::Result<()> {
        Ok(())
    }

    async fn wait(&mut self) -> Result<i32, ExecError> {
        Ok(0)
    }
}

fn image() -> Image {
    let config = ImageConfig {
        exposed_ports: BTreeSet::from([format!("{EXPOSED}/tcp")]),
        ..ImageConfig::default()
    };
    Image { config, layers: Vec::new(), lease: Box::new(()) }
}

#[tonic::async_trait]
impl Images for Kernel {
    async fn pull(&self, _: &Reference) -> Result<Image, swarm_images::Error> {
        self.work(5..100).await;
        Ok(image())
    }

    async fn get(&self, _: &Reference) -> Result<Image, swarm_images::Error> {
        Ok(image())
    }
}
