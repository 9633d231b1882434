//! A virtual service: its scheduler, flags and persistence.

use std::net::Ipv4Addr;

use bitflags::bitflags;

use crate::{
    Family, Object, ServiceKey, Stats,
    attribute::{Attribute, Malformed, find, optional, unknown},
    error::{Error, Result},
    uapi::{MAX_NAME, SERVICE_HASHED, svc},
};

bitflags! {
    /// `IP_VS_SVC_F_*`. Unknown bits are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ServiceFlags: u32 {
        /// Connections of a client (see [`Service::netmask`]) stay with one destination for [`Service::timeout`].
        const PERSISTENT = 0x0001;
        /// Every datagram is scheduled anew; UDP only.
        const ONE_PACKET = 0x0004;
        /// The scheduler's first flag: `sh` and `mh` fall back to another destination if theirs is down.
        const SCHEDULER_1 = 0x0008;
        /// The scheduler's second flag: `sh` and `mh` hash the client's port, too.
        const SCHEDULER_2 = 0x0010;
        /// The scheduler's third flag.
        const SCHEDULER_3 = 0x0020;

        const _ = !0;
    }
}

/// Which bits of a client's address make it the same client to a persistent service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Netmask {
    /// A mask.
    V4(Ipv4Addr),
    /// A prefix length, 1 to 128.
    V6(u32),
}

impl Netmask {
    /// The mask that tells all addresses of a family apart.
    #[must_use]
    pub fn full(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4(Ipv4Addr::BROADCAST),
            Family::V6 => Self::V6(128),
        }
    }
}

/// A virtual service as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which service.
    pub key: ServiceKey,
    /// The scheduler's name, as `rr`, `wrr`, `lc`, `sh`, `mh`: 1 to 15 bytes. Its module is `ip_vs_` and the name.
    pub scheduler: String,
    /// The flags. The kernel's own `IP_VS_SVC_F_HASHED` is never among them.
    pub flags: ServiceFlags,
    /// How long a persistent client stays with its destination, in seconds; 0 means the kernel's own, 300 s.
    pub timeout: u32,
    /// What is one client to a persistent service; of the key's family.
    pub netmask: Netmask,
    /// The persistence engine's name, as `sip`: up to 15 bytes.
    pub persistence_engine: Option<String>,
}

impl Service {
    /// A service without persistence.
    pub fn new(key: ServiceKey, scheduler: impl Into<String>) -> Self {
        Self {
            key,
            scheduler: scheduler.into(),
            flags: ServiceFlags::empty(),
            timeout: 0,
            netmask: Netmask::full(key.family()),
            persistence_engine: None,
        }
    }

    /// Makes it persistent: a client stays with its destination for so many seconds after its last connection.
    #[must_use]
    pub fn persistent(mut self, seconds: u32) -> Self {
        self.flags |= ServiceFlags::PERSISTENT;
        self.timeout = seconds;
        self
    }

    /// Sets flags besides those it has.
    #[must_use]
    pub fn flags(mut self, flags: ServiceFlags) -> Self {
        self.flags |= flags;
        self
    }

    /// # Errors
    /// [`Error::Invalid`] for names and masks that cannot be said to the kernel.
    pub(crate) fn attributes(&self) -> Result<Vec<Attribute>> {
        let mut attributes = self.key.attributes();
        self.check_name("scheduler", &self.scheduler)?;
        // Flags and their mask (`struct ip_vs_flags`): all but the kernel's own bit are set as given.
        let flags = [self.flags.bits() & !SERVICE_HASHED, !0].map(u32::to_ne_bytes).concat();
        attributes.extend([
            Attribute::string(svc::SCHED_NAME, &self.scheduler),
            Attribute::bytes(svc::FLAGS, &flags),
            Attribute::u32(svc::TIMEOUT, self.timeout),
            match (self.netmask, self.key.family()) {
                (Netmask::V4(mask), Family::V4) => Attribute::bytes(svc::NETMASK, &mask.octets()),
                (Netmask::V6(prefix), Family::V6) => Attribute::u32(svc::NETMASK, prefix),
                _ => return Err(self.invalid("its netmask is of the other address family".into())),
            },
        ]);
        if let Some(engine) = &self.persistence_engine {
            self.check_name("persistence engine", engine)?;
            attributes.push(Attribute::string(svc::PE_NAME, engine));
        }
        Ok(attributes)
    }

    pub(crate) fn decode(attributes: &[Attribute]) -> std::result::Result<Self, Malformed> {
        let key = ServiceKey::decode(attributes)?;
        let flags = optional(attributes, svc::FLAGS, |found| found.array::<8>(), [0; 8])?;
        let [f0, f1, f2, f3, ..] = flags;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]) & !SERVICE_HASHED;
        let read_mask = |found: &Attribute| match key.family() {
            Family::V4 => found.array::<4>().map(|octets| Netmask::V4(octets.into())),
            Family::V6 => found.as_u32().map(Netmask::V6),
        };
        let engine = find(attributes, svc::PE_NAME).map(Attribute::as_string).transpose()?;
        Ok(Self {
            key,
            scheduler: optional(attributes, svc::SCHED_NAME, Attribute::as_string, String::new())?,
            flags: ServiceFlags::from_bits_retain(flags),
            timeout: optional(attributes, svc::TIMEOUT, Attribute::as_u32, 0)?,
            netmask: optional(attributes, svc::NETMASK, read_mask, Netmask::full(key.family()))?,
            persistence_engine: engine.filter(|name| !name.is_empty()),
        })
    }

    fn check_name(&self, what: &str, name: &str) -> Result<()> {
        if (1..=MAX_NAME).contains(&name.len()) && !name.contains('\0') {
            return Ok(());
        }
        Err(self.invalid(format!(
            "the name of its {what}, {name:?}, should have 1 to {MAX_NAME} bytes, none of them NUL"
        )))
    }

    fn invalid(&self, reason: String) -> Error {
        Error::Invalid { object: Object::Service(self.key), reason }
    }
}

/// A virtual service as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The service.
    pub service: Service,
    /// What went through it.
    pub stats: Stats,
    /// Attributes of newer kernels, as they came.
    pub unknown: Vec<Attribute>,
}

impl ServiceEntry {
    pub(crate) fn decode(attributes: Vec<Attribute>) -> std::result::Result<Self, Malformed> {
        Ok(Self {
            service: Service::decode(&attributes)?,
            stats: Stats::decode(&attributes, svc::STATS64, svc::STATS)?,
            unknown: unknown(attributes, svc::AF..=svc::STATS64),
        })
    }
}
