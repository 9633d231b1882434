//! IPVS of the calling thread's namespace: carrying steps out, listing what there is, and the sysctls.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
};

use ipvs_rs::{Destination, Family, Forwarding, Service, ServiceKey};
use tokio::runtime::{Builder, Runtime};

use super::steps::{Backends, Services, Step, Steps};
use crate::{Error, Result};

/// Listings compared until two agree.
const MOST_LISTINGS: usize = 8;

/// Turns by weight, exact in every round.
const SCHEDULER: &str = "wrr";

/// `net.ipv4.vs.*`, per namespace; see `Documentation/networking/ipvs-sysctl.rst`.
const SYSCTLS: [(&str, &str); 5] = [
    // nftables gives a task that reaches itself another source address: it must know IPVS's connections.
    ("conntrack", "1"),
    // Answers cross the bridge: there is no route to look up again.
    ("snat_reroute", "0"),
    // A client's port used anew goes where it went, instead of having its first packet dropped.
    ("conn_reuse_mode", "0"),
    // Packets to a backend that is gone go to another at once.
    ("expire_nodest_conn", "1"),
    ("expire_quiescent_template", "1"),
];

/// What the kernel holds.
#[derive(Default)]
struct Listing {
    /// As far as it is wanted.
    services: Services,
    /// Makes of the wanted services and their backends what ours are like.
    corrections: Vec<Step>,
    /// Deletes the services that are not wanted.
    deletions: Vec<Step>,
}

/// An IPVS socket with what drives it. Not the daemon's runtime: work goes on when that ends.
pub(super) struct Kernel {
    runtime: Runtime,
    ipvs: ipvs_rs::Ipvs,
}

impl Kernel {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|source| Error::Netlink { action: "drive a netlink socket", source })?;
        let ipvs = runtime.block_on(ipvs_rs::Ipvs::open())?;
        Ok(Self { runtime, ipvs })
    }

    /// Carries out steps, in order.
    pub(super) fn carry_out(&mut self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(*step))
    }

    fn step(&mut self, step: Step) -> Result<()> {
        let ipvs = &mut self.ipvs;
        self.runtime.block_on(async {
            match step {
                Step::AddService(key) => ipvs.create_service(&service(key)).await,
                Step::ResetService(key) => ipvs.update_service(&service(key)).await,
                Step::DeleteService(key) => ipvs.delete_service(&key).await,
                Step::AddBackend(key, addr, weight) => {
                    ipvs.create_destination(&key, &backend(addr.into(), weight)).await
                }
                Step::Weigh(key, addr, weight) => {
                    ipvs.update_destination(&key, &backend(addr.into(), weight)).await
                }
                Step::DeleteBackend(key, address) => ipvs.delete_destination(&key, address).await,
            }
        })?;
        Ok(())
    }

    /// Whether the kernel has exactly these services. Their backends are looked at by [`Kernel::steps_to`] alone.
    pub(super) fn has(&mut self, services: &Services) -> Result<bool> {
        let expected =
            |held: &Service| services.contains_key(&held.key) && *held == service(held.key);
        let exactly =
            |listed: &[Service]| listed.len() == services.len() && listed.iter().all(&expected);
        Ok(exactly(&self.services()?) || exactly(&self.settled()?))
    }

    /// The services, as one listing has them.
    fn services(&mut self) -> Result<Vec<Service>> {
        let listed = self.runtime.block_on(self.ipvs.services())?;
        Ok(listed.into_iter().map(|entry| entry.service).collect())
    }

    /// The services, as two listings in a row have them. While it lists one namespace's the kernel counts those of
    /// all (`ip_vs_genl_dump_services`): a change in another one makes a long listing skip or repeat some.
    fn settled(&mut self) -> Result<Vec<Service>> {
        let mut before = self.services()?;
        for _ in 0..MOST_LISTINGS {
            let now = self.services()?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }

    /// What must be done for the kernel to have exactly these services, by what it lists.
    pub(super) fn steps_to(&mut self, wanted: &Services) -> Result<Steps> {
        let Listing { services, mut corrections, deletions } = self.list(wanted)?;
        let mut steps = Steps::between(&services, wanted);
        corrections.append(&mut steps.before);
        steps.after.extend(deletions);
        Ok(Steps { before: corrections, ..steps })
    }

    fn list(&mut self, wanted: &Services) -> Result<Listing> {
        let mut listing = Listing::default();
        for held in self.settled()? {
            let key = held.key;
            if !wanted.contains_key(&key) {
                listing.deletions.push(Step::DeleteService(key));
                continue;
            }
            if held != service(key) {
                listing.corrections.push(Step::ResetService(key));
            }
            let backends = self.backends(key, &mut listing.corrections)?;
            listing.services.insert(key, backends);
        }
        Ok(listing)
    }

    fn backends(&mut self, key: ServiceKey, corrections: &mut Vec<Step>) -> Result<Backends> {
        let mut backends = Backends::new();
        for entry in self.runtime.block_on(self.ipvs.destinations(&key))? {
            let held = entry.destination;
            match held.address {
                SocketAddr::V4(addr) if held == backend(held.address, held.weight) => {
                    backends.insert(addr, held.weight);
                }
                _ => corrections.push(Step::DeleteBackend(key, held.address)),
            }
        }
        Ok(backends)
    }

    /// Deletes all services.
    pub(super) fn flush(&mut self) -> Result<()> {
        Ok(self.runtime.block_on(self.ipvs.flush())?)
    }
}

fn service(key: ServiceKey) -> Service {
    Service::new(key, SCHEDULER)
}

fn backend(address: SocketAddr, weight: u32) -> Destination {
    Destination::new(address, Forwarding::Masquerade).weight(weight)
}

/// Sets the sysctls of the calling thread's namespace. They exist once IPVS is loaded.
pub(super) fn set_sysctls() -> Result<()> {
    SYSCTLS.iter().try_for_each(|(name, value)| {
        fs::write(path(name), value).map_err(|source| Error::Sysctl { name, source })
    })
}

/// The first sysctl that has another value than [`set_sysctls`] gave it.
pub(super) fn changed_sysctl() -> Result<Option<&'static str>> {
    for (name, value) in SYSCTLS {
        let held =
            fs::read_to_string(path(name)).map_err(|source| Error::Sysctl { name, source })?;
        if held.trim() != value {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/ipv4/vs/{name}")
}

/// Proves that the kernel takes services of every kind, the scheduler and the sysctls. Backends are left out: the
/// kernel takes none in a namespace without addresses.
pub(super) fn probe() -> Result<()> {
    let mut kernel = Kernel::open()?;
    let vip = Ipv4Addr::new(192, 0, 2, 1);
    let by_mark = ServiceKey::mark(Family::V4, NonZeroU32::MIN);
    for key in [by_mark, ServiceKey::tcp((vip, 80)), ServiceKey::udp((vip, 80))] {
        kernel.carry_out(&[Step::AddService(key), Step::DeleteService(key)])?;
    }
    set_sysctls()
}

impl Error {
    /// Whether a kernel without IPVS is the reason.
    pub(crate) fn is_no_ipvs(&self) -> bool {
        matches!(self, Self::Ipvs(ipvs_rs::Error::NoIpvs))
    }
}
