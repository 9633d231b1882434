//! A worker's host: a kernel that only remembers what it was told, and containers that only pretend. It
//! outlives `swarmd`, but not a reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ipnet::Ipv4Net;
use swarm_balancer::FakeBalancer;
use swarm_dns::{NetworkNames, Scope};
use swarm_images::{ImageConfig, Reference};
use swarm_overlay::{Changes, Error, Existing, Network, Sandbox};
use swarm_runtime::{
    Adopted, ContainerSpec, ContainerState, Exit, RuntimeError, StartError, Started,
};
use swarm_worker::Encryption;
use swarm_worker::adapters::{Adapters, Dns, Image, Images, Overlay, Runtime};
use tokio::sync::watch;

use crate::random::Random;

/// A host; clones are the same.
#[derive(Clone)]
pub(crate) struct Kernel {
    inner: Arc<Mutex<Inner>>,
    pub(crate) balancer: Arc<FakeBalancer>,
}

struct Inner {
    random: Random,
    networks: BTreeMap<String, Network>,
    /// Of `swarmd`: gone with it.
    names: BTreeMap<String, Arc<NetworkNames>>,
    served: BTreeSet<String>,
    sandboxes: BTreeSet<String>,
    containers: BTreeMap<String, watch::Sender<ContainerState>>,
    /// Counts changes, to look only when there is something new.
    changes: u64,
    /// Programming fails.
    failing: bool,
    next_pid: i32,
}

impl Kernel {
    pub(crate) fn new(random: Random) -> Kernel {
        Kernel {
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
        let found = inner.containers.iter().map(|(id, state)| Adopted {
            id: id.clone(),
            state: state.borrow().clone(),
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
        inner.containers.retain(|_, state| !matches!(*state.borrow(), ContainerState::Starting));
    }

    /// The host lost power: its containers are dead, their descriptions on disk.
    pub(crate) fn reboot(&self) {
        let mut inner = self.lock();
        inner.networks.clear();
        inner.sandboxes.clear();
        inner.containers.clear();
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
        let running = self.containers.iter();
        running
            .filter(|(_, state)| matches!(*state.borrow(), ContainerState::Running(_)))
            .map(|(id, _)| id.as_str())
    }

    fn end(&mut self, id: &str, code: i32) {
        self.changes += 1;
        if let Some(state) = self.containers.get(id) {
            state.send_replace(ContainerState::Exited(Exit {
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

    async fn underlay_mtu(&self) -> Result<u32, Error> {
        Ok(1500)
    }

    async fn routes(&self) -> Result<Vec<Ipv4Net>, Error> {
        Ok(Vec::new())
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
        let state = inner.containers.get(id);
        state.map(watch::Sender::subscribe).ok_or_else(|| RuntimeError::NotFound(id.to_owned()))
    }
}

#[tonic::async_trait]
impl Runtime for Kernel {
    async fn start(&self, spec: &ContainerSpec) -> Result<Started, StartError> {
        let state = watch::Sender::new(ContainerState::Starting);
        if self.lock().containers.insert(spec.id.clone(), state).is_some() {
            return Err(StartError::Exists(spec.id.clone()));
        }
        self.work(20..150).await;
        let mut inner = self.lock();
        inner.next_pid += 1;
        inner.changes += 1;
        let started = Started { pid: inner.next_pid, started_at: SystemTime::now() };
        if let Some(state) = inner.containers.get(&spec.id) {
            state.send_replace(ContainerState::Running(started));
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

    fn remove_cgroup_parent(&self) {}
}

fn image() -> Image {
    Image { config: ImageConfig::default(), layers: Vec::new(), lease: Box::new(()) }
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
