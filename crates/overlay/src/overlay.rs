//! The networks and sandboxes of one node.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use swarm_netns::Namespace;

use crate::egress::{self, Egress};
use crate::ensure::{self, Target};
use crate::host::{self, InterfaceAddress};
use crate::listeners::Listeners;
use crate::names::{self, BRIDGE, EGRESS_BRIDGE, port_name};
use crate::netns;
use crate::places::{Existing, Place, Places};
use crate::sandbox::{self, Builder, Ipv4Sandbox, Sandbox, SandboxHandle, Wire};
use crate::settings::PortSettings;
use crate::{Changes, Error, Network};

/// IANA's port for VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;

/// Where and how this node keeps its networks.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the daemon's run-time state; namespace files go to `netns/` below it.
    pub run_dir: PathBuf,
    /// This node's data-path address: source of its VXLAN packets.
    pub vtep: IpAddr,
    /// UDP port that networks will use; it is probed at start.
    pub port: u16,
    /// The host's network namespace; `None` for the process's own.
    pub host_netns: Option<PathBuf>,
    /// Subnets for the egress bridge; the first that clashes with no route of the node is taken.
    pub egress_subnets: Vec<IpNet>,
}

impl Options {
    /// Options with defaults for all but the two that have none.
    pub fn new(run_dir: impl Into<PathBuf>, vtep: IpAddr) -> Self {
        let candidate = |a, b, c| IpNet::new_assert([a, b, c, 0].into(), 20);
        Self {
            run_dir: run_dir.into(),
            vtep,
            port: VXLAN_PORT,
            host_netns: None,
            egress_subnets: vec![
                candidate(172, 31, 240),
                candidate(172, 30, 240),
                candidate(172, 29, 240),
                candidate(192, 168, 240),
                candidate(10, 255, 240),
            ],
        }
    }
}

/// The networks and sandboxes of one node. Cheap to clone; all methods may run at once.
#[derive(Debug, Clone)]
pub struct Overlay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    places: Places,
    egress: Egress,
}

impl Overlay {
    /// Checks that this node can have overlay networks, prepares it, and adopts what is there. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Privileges`], [`Error::NoVxlan`], [`Error::PortInUse`], [`Error::NoBridgeNetfilter`], [`Error::NoNft`],
    /// [`Error::NoSuchAddress`], [`Error::NoEgressSubnet`], or what the kernel said.
    pub async fn new(options: Options) -> Result<Self, Error> {
        let folder = options.run_dir.join("netns");
        netns::prepare_folder(&folder).map_err(host::explain_privileges)?;
        let host = Namespace::open_or_own(options.host_netns.as_deref())?;
        let prepared = host.run(host::prepare_kernel).await;
        prepared.map_err(Error::from).flatten().map_err(host::explain_privileges)?;
        let place = Place::connect(host).await?;
        host::underlay_mtu(&place.rtnl, options.vtep).await?;
        host::probe_vxlan(&place.rtnl, options.vtep, options.port).await?;
        let egress = Egress::adopt(&place.rtnl, &options.egress_subnets).await?;
        let overlay =
            Self { inner: Arc::new(Inner { options, places: Places::new(folder, place), egress }) };
        overlay.ensure_host().await?;
        Ok(overlay)
    }

    /// Puts right what all networks share: forwarding, the egress bridge, its ports and rules. Part of [`Overlay::new`]; call it
    /// with every audit too. The rules are always written anew, uncounted: what `nft` holds is never read back.
    ///
    /// # Errors
    /// What the kernel or `nft` said.
    pub async fn ensure_host(&self) -> Result<Changes, Error> {
        let host = self.inner.places.host().await?;
        self.inner.egress.ensure(&host.netns, &host.rtnl).await
    }

    /// Brings one network into its desired state and says what had to be done for it. Idempotent: it reads the kernel first, so it
    /// is the audit too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a network that contradicts itself, [`Error::PortInUse`], or what the kernel said, all of it.
    pub async fn ensure(&self, network: &Network) -> Result<Changes, Error> {
        let network = &network.checked()?;
        let inner = &self.inner;
        network.validate_vteps(inner.options.vtep)?;
        let slot = inner.places.slot(&network.id);
        let _turn = slot.turn.lock().await;
        let mut changes = Changes::default();
        let place = match inner.places.network(&slot, &network.id).await? {
            Some(place) => place,
            None => {
                changes.namespaces += 1;
                let path = inner.places.network_path(&network.id);
                let place = Place::create(path, ensure::prepare_namespace).await?;
                *slot.open.lock().await = Some(place.clone());
                place
            }
        };
        let host = inner.places.host().await?;
        let target = Target {
            netns: &place.netns,
            rtnl: &place.rtnl,
            host: &host.rtnl,
            vtep: inner.options.vtep,
        };
        changes += target.ensure(network).await?;
        if !changes.is_empty() {
            tracing::debug!(network = network.id, "programmed {changes}");
        }
        Ok(changes)
    }

    /// Deletes a network's links and namespace. One that is not there is fine.
    ///
    /// # Errors
    /// Every failure met; the rest is deleted nevertheless.
    pub async fn remove(&self, network: &str) -> Result<(), Error> {
        names::check_id("network", network)?;
        let inner = &self.inner;
        let slot = inner.places.slot(network);
        let _turn = slot.turn.lock().await;
        let mut errors = Vec::new();
        // Links are deleted by name, so that they are gone when this returns: a namespace dies later, in the background.
        match inner.places.network(&slot, network).await {
            Ok(Some(place)) => {
                errors.extend(place.delete_links(&format!("network {network}")).await.err());
            }
            Ok(None) => {}
            Err(e) => errors.push(e),
        }
        *slot.open.lock().await = None;
        errors.extend(netns::delete(inner.places.network_path(network)).await.err());
        inner.places.forget_network(network, &slot);
        Error::collect(format!("remove network {network}"), errors)
    }

    /// Networks and sandboxes that exist, whoever made them: for adoption after a restart and for removing strays.
    ///
    /// # Errors
    /// If the folder of namespaces cannot be read.
    pub fn list(&self) -> Result<Existing, Error> {
        self.inner.places.list()
    }

    /// Builds a task's namespace, or completes one that is there.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NoNetwork`] for a network that was not ensured, [`Error::EgressExhausted`], or what the kernel
    /// said. A half-built sandbox stays, for the next call or [`Overlay::remove_sandbox`].
    pub async fn create_sandbox(&self, sandbox: &Sandbox) -> Result<SandboxHandle, Error> {
        let sandbox = &sandbox.checked()?;
        let inner = &self.inner;
        let turn = inner.places.task_turn(&sandbox.task);
        let _turn = turn.lock().await;
        let mut changes = Changes::default();
        let (wires, egress_addr) = inner.wires(sandbox).await?;
        let path = inner.places.sandbox_path(&sandbox.task);
        let place = match Namespace::find(&path)? {
            Some(netns) => Place::connect(netns).await?,
            None => {
                changes.namespaces += 1;
                Place::create(path.clone(), sandbox::prepare_namespace).await?
            }
        };
        let builder = Builder { task: &sandbox.task, netns: &place.netns, rtnl: &place.rtnl };
        changes += builder.build(&wires).await?;
        Ok(SandboxHandle { netns: path, egress_addr, changes })
    }

    /// Deletes a task's interfaces and namespace. One that is not there is fine.
    ///
    /// # Errors
    /// Every failure met; the rest is deleted nevertheless.
    pub async fn remove_sandbox(&self, task: &str) -> Result<(), Error> {
        names::check_id("task", task)?;
        let inner = &self.inner;
        let turn = inner.places.task_turn(task);
        let _turn = turn.lock().await;
        let mut errors = inner.delete_ports(task).await;
        errors.extend(netns::delete(inner.places.sandbox_path(task)).await.err());
        if errors.is_empty() {
            inner.egress.release(task);
        }
        inner.places.forget_task(task, &turn);
        Error::collect(format!("remove sandbox of task {task}"), errors)
    }

    /// Deletes everything: sandboxes, networks, egress. For a node that leaves the swarm.
    ///
    /// # Errors
    /// Every failure met; the rest is deleted nevertheless.
    pub async fn destroy(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let existing = self.list()?;
        let mut errors = Vec::new();
        for task in &existing.sandboxes {
            errors.extend(self.remove_sandbox(task).await.err());
        }
        for network in &existing.networks {
            errors.extend(self.remove(network).await.err());
        }
        let host = inner.places.host().await?;
        errors.extend(egress::remove(&host.netns, &host.rtnl).await.err());
        errors.extend(netns::remove_folder(inner.places.folder()).err());
        Error::collect("remove all networks", errors)
    }

    /// The namespace file of a network, whether it exists or not: balancers work inside.
    pub fn network_netns(&self, network: &str) -> PathBuf {
        self.inner.places.network_path(network)
    }

    /// The namespace file of a task, whether it exists or not.
    pub fn sandbox_netns(&self, task: &str) -> PathBuf {
        self.inner.places.sandbox_path(task)
    }

    /// Opens a look at what listens in a task's namespace.
    ///
    /// # Errors
    /// If the sandbox is not there, or the kernel cannot tell.
    pub async fn listeners(&self, task: &str) -> Result<Listeners, Error> {
        names::check_id("task", task)?;
        Listeners::open(&self.inner.places.sandbox_path(task)).await
    }

    /// MTU in bytes of the interface that holds the data-path address.
    ///
    /// # Errors
    /// [`Error::NoSuchAddress`] once the address is gone.
    pub async fn underlay_mtu(&self) -> Result<u32, Error> {
        let rtnl = self.inner.places.host().await?.rtnl;
        host::underlay_mtu(&rtnl, self.inner.options.vtep).await
    }

    /// All IPv4 prefixes this node has a route to but the default route, sorted: what a new network must not overlap.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn routes(&self) -> Result<Vec<IpNet>, Error> {
        let prefixes = host::routed_prefixes(&self.inner.places.host().await?.rtnl).await?;
        Ok(prefixes.into_iter().map(IpNet::V4).collect())
    }

    /// All addresses of this node.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn addresses(&self) -> Result<Vec<InterfaceAddress>, Error> {
        host::interface_addresses(&self.inner.places.host().await?.rtnl).await
    }

    /// Subnet of the egress bridge.
    pub fn egress_subnet(&self) -> IpNet {
        self.inner.egress.subnet().into()
    }
}

impl Inner {
    /// The interfaces a sandbox needs, in order, and its egress address.
    async fn wires(&self, sandbox: &Ipv4Sandbox) -> Result<(Vec<Wire>, Option<IpAddr>), Error> {
        let mut wires = Vec::new();
        for interface in &sandbox.interfaces {
            let slot = self.places.slot(&interface.network);
            let place = self.places.network(&slot, &interface.network).await?;
            let place = place.ok_or_else(|| Error::NoNetwork(interface.network.clone()))?;
            wires.push(Wire {
                name: format!("eth{}", wires.len()),
                addr: interface.addr,
                prefix_len: interface.prefix_len,
                mtu: interface.mtu,
                bridge: BRIDGE,
                at: place.rtnl,
                settings: PortSettings::TASK,
                gateway: None,
            });
        }
        if !sandbox.egress {
            return Ok((wires, None));
        }
        let addr = self.egress.reserve(&sandbox.task)?;
        wires.push(Wire {
            name: format!("eth{}", wires.len()),
            addr,
            prefix_len: self.egress.subnet().prefix_len(),
            mtu: egress::MTU,
            bridge: EGRESS_BRIDGE,
            at: self.places.host().await?.rtnl,
            settings: PortSettings::EGRESS,
            gateway: Some(self.egress.gateway()),
        });
        Ok((wires, Some(addr.into())))
    }

    /// Deletes a task's ports wherever they are; a container that lives on must not stay connected.
    async fn delete_ports(&self, task: &str) -> Vec<Error> {
        let networks = match self.places.list() {
            Ok(existing) => existing.networks,
            Err(e) => return vec![e],
        };
        let port = port_name(task);
        let host = async { self.places.host().await?.delete_link(&port).await };
        let port = &port;
        let elsewhere = networks.into_iter().map(|network| async move {
            let slot = self.places.slot(&network);
            match self.places.network(&slot, &network).await? {
                Some(place) => place.delete_link(port).await,
                None => Ok(()),
            }
        });
        let (host, elsewhere) = futures::join!(host, futures::future::join_all(elsewhere));
        elsewhere.into_iter().chain([host]).filter_map(Result::err).collect()
    }
}
