//! Every operation: [`Ipvs`], a socket in one network namespace.

use std::{net::SocketAddr, path::Path};

use netlink_packet_core::NLM_F_DUMP;
use nix::errno::Errno;

use crate::{
    Attribute, Destination, DestinationEntry, Error, Info, Object, Result, Service, ServiceEntry,
    ServiceKey, Timeouts,
    attribute::{Malformed, need},
    message::Message,
    socket::{Failure, PATIENCE, Socket},
    uapi::{self, command},
};

/// IPVS of one network namespace.
///
/// Operations are carried out by the kernel while the request is sent, so they do not yield; loading a scheduler's
/// module takes longest. A dropped future may have been carried out. After [`Error::TimedOut`] open another.
pub struct Ipvs {
    socket: Socket,
    /// The number that the kernel gave the family `IPVS`.
    family: u16,
}

/// What an operation does to what: for errors.
#[derive(Clone, Copy)]
struct Operation<'a> {
    action: &'static str,
    object: Object,
    /// The service that names modules.
    service: Option<&'a Service>,
}

impl Ipvs {
    /// IPVS of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::NoIpvs`] if the kernel has no such module.
    pub async fn open() -> Result<Self> {
        let opened = Socket::open();
        Self::resolve(opened.map_err(|error| OPEN.error(Failure::Io(error)))?).await
    }

    /// IPVS of the network namespace at `path`, as `/run/netns/blue` or `/proc/42/ns/net`.
    ///
    /// # Errors
    /// [`Error::Namespace`] if it cannot be entered; [`Error::NoIpvs`] if the kernel has no such module.
    pub async fn open_in(path: impl AsRef<Path>) -> Result<Self> {
        let opened = Socket::open_in(path.as_ref()).await?;
        Self::resolve(opened.map_err(|error| OPEN.error(Failure::Io(error)))?).await
    }

    async fn resolve(mut socket: Socket) -> Result<Self> {
        let name = Attribute::string(uapi::FAMILY_NAME_ATTRIBUTE, uapi::FAMILY_NAME);
        let request = Message { command: uapi::GET_FAMILY, attributes: vec![name] };
        let answers = match socket.request(uapi::CONTROLLER, 0, request).await {
            Err(Failure::Kernel { errno, .. }) if errno == Errno::ENOENT as i32 => {
                return Err(Error::NoIpvs);
            }
            other => other.map_err(|failure| OPEN.error(failure))?,
        };
        let read =
            |message: &Message| need(&message.attributes, uapi::FAMILY_ID, "family")?.as_u16();
        let family = OPEN.only(&answers, read)?;
        Ok(Self { socket, family })
    }

    /// Version and table size.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn info(&mut self) -> Result<Info> {
        let operation = Operation::new("read", Object::Ipvs);
        let answers = self.ask(operation, Message::plain(command::GET_INFO)).await?;
        operation.only(&answers, |message| Info::decode(&message.attributes))
    }

    /// All virtual services, in no particular order. While others change them, one may be missed.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn services(&mut self) -> Result<Vec<ServiceEntry>> {
        let operation = Operation::new("list", Object::Services);
        let answers = self.dump(operation, Message::plain(command::GET_SERVICE)).await?;
        operation.all(&answers, Message::service_entry)
    }

    /// One virtual service.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what else the kernel says.
    pub async fn service(&mut self, key: &ServiceKey) -> Result<ServiceEntry> {
        let operation = Operation::new("read", Object::Service(*key));
        let answers = self.ask(operation, Message::about(command::GET_SERVICE, key)).await?;
        operation.only(&answers, Message::service_entry)
    }

    /// Creates a virtual service without destinations.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoModule`], [`Error::Invalid`], or what else the kernel says.
    pub async fn create_service(&mut self, service: &Service) -> Result<()> {
        self.put_service("create", command::NEW_SERVICE, service).await
    }

    /// Changes a virtual service's scheduler, flags and persistence; its destinations and connections stay.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoModule`], [`Error::Invalid`], or what else the kernel says.
    pub async fn update_service(&mut self, service: &Service) -> Result<()> {
        self.put_service("update", command::SET_SERVICE, service).await
    }

    /// Deletes a virtual service with its destinations. Its connections end when their next packet comes, if
    /// `net.ipv4.vs.expire_nodest_conn` is set, else when they are idle for too long.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what else the kernel says.
    pub async fn delete_service(&mut self, key: &ServiceKey) -> Result<()> {
        let operation = Operation::new("delete", Object::Service(*key));
        self.tell(operation, Message::about(command::DEL_SERVICE, key)).await
    }

    /// The destinations of a virtual service, in no particular order. While others change them, one may be missed.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what else the kernel says.
    pub async fn destinations(&mut self, service: &ServiceKey) -> Result<Vec<DestinationEntry>> {
        let operation = Operation::new("list", Object::Destinations(*service));
        let answers = self.dump(operation, Message::about(command::GET_DEST, service)).await?;
        if answers.is_empty() {
            // The kernel lists no destinations of no service without a word.
            self.service(service).await?;
        }
        operation.all(&answers, |message| message.destination_entry(service.family()))
    }

    /// One destination of a virtual service. The kernel lists them all for this.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what else the kernel says.
    pub async fn destination(
        &mut self,
        service: &ServiceKey,
        address: SocketAddr,
    ) -> Result<DestinationEntry> {
        let object = Object::Destination { service: *service, address };
        let entries = self.destinations(service).await?;
        let found = entries.into_iter().find(|entry| entry.destination.address == address);
        found.ok_or(Error::NotFound { action: "read", object, missing: "destination" })
    }

    /// Adds a destination to a virtual service. IPv4 destinations are refused (`EINVAL`) in a namespace that has no IPv4
    /// address at all, not even loopback's.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] if there is no such service, or what else the kernel says.
    pub async fn create_destination(
        &mut self,
        service: &ServiceKey,
        destination: &Destination,
    ) -> Result<()> {
        self.put_destination("create", command::NEW_DEST, service, destination).await
    }

    /// Changes a destination's weight, forwarding and thresholds; its connections stay.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what else the kernel says.
    pub async fn update_destination(
        &mut self,
        service: &ServiceKey,
        destination: &Destination,
    ) -> Result<()> {
        self.put_destination("update", command::SET_DEST, service, destination).await
    }

    /// Takes a destination from a virtual service. For its connections see [`Ipvs::delete_service`].
    ///
    /// # Errors
    /// [`Error::NotFound`], or what else the kernel says.
    pub async fn delete_destination(
        &mut self,
        service: &ServiceKey,
        address: SocketAddr,
    ) -> Result<()> {
        let operation =
            Operation::new("delete", Object::Destination { service: *service, address });
        let named = Destination::key_attributes(address);
        self.tell(operation, Message::destination(command::DEL_DEST, service, &named)).await
    }

    /// Deletes all virtual services of the namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn flush(&mut self) -> Result<()> {
        self.tell(Operation::new("flush", Object::Services), Message::plain(command::FLUSH)).await
    }

    /// Sets all counters to zero.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn zero(&mut self) -> Result<()> {
        let operation = Operation::new("zero the counters of", Object::Services);
        self.tell(operation, Message::plain(command::ZERO)).await
    }

    /// Sets the counters of a virtual service and its destinations to zero.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what else the kernel says.
    pub async fn zero_service(&mut self, key: &ServiceKey) -> Result<()> {
        let operation = Operation::new("zero the counters of", Object::Service(*key));
        self.tell(operation, Message::about(command::ZERO, key)).await
    }

    /// The namespace's timeouts.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn timeouts(&mut self) -> Result<Timeouts> {
        let operation = Operation::new("read", Object::Timeouts);
        let answers = self.ask(operation, Message::plain(command::GET_CONFIG)).await?;
        operation.only(&answers, |message| Timeouts::decode(&message.attributes))
    }

    /// Sets the namespace's timeouts, for new connections.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<()> {
        let operation = Operation::new("set", Object::Timeouts);
        self.tell(
            operation,
            Message { command: command::SET_CONFIG, attributes: timeouts.attributes() },
        )
        .await
    }

    async fn put_service(
        &mut self,
        action: &'static str,
        command: u8,
        service: &Service,
    ) -> Result<()> {
        let object = Object::Service(service.key);
        let operation = Operation { action, object, service: Some(service) };
        self.tell(operation, Message::service(command, service)?).await
    }

    async fn put_destination(
        &mut self,
        action: &'static str,
        command: u8,
        service: &ServiceKey,
        destination: &Destination,
    ) -> Result<()> {
        let object = Object::Destination { service: *service, address: destination.address };
        let message = Message::whole_destination(command, service, destination);
        self.tell(Operation::new(action, object), message).await
    }

    async fn tell(&mut self, operation: Operation<'_>, message: Message) -> Result<()> {
        self.ask(operation, message).await.map(drop)
    }

    async fn ask(&mut self, operation: Operation<'_>, message: Message) -> Result<Vec<Message>> {
        let answered = self.socket.request(self.family, 0, message).await;
        answered.map_err(|failure| operation.error(failure))
    }

    async fn dump(&mut self, operation: Operation<'_>, message: Message) -> Result<Vec<Message>> {
        let answered = self.socket.request(self.family, NLM_F_DUMP, message).await;
        answered.map_err(|failure| operation.error(failure))
    }
}

const OPEN: Operation<'static> = Operation::new("open", Object::Ipvs);

impl Operation<'_> {
    const fn new(action: &'static str, object: Object) -> Self {
        Self { action, object, service: None }
    }

    /// Reads the one message that should have come.
    fn only<T>(
        self,
        answers: &[Message],
        read: impl FnOnce(&Message) -> Result<T, Malformed>,
    ) -> Result<T> {
        let none = || Malformed("it is empty".into());
        answers.first().ok_or_else(none).and_then(read).map_err(|error| self.malformed(error))
    }

    fn all<T>(
        self,
        answers: &[Message],
        read: impl FnMut(&Message) -> Result<T, Malformed>,
    ) -> Result<Vec<T>> {
        answers.iter().map(read).collect::<Result<_, _>>().map_err(|error| self.malformed(error))
    }

    fn malformed(self, error: Malformed) -> Error {
        Error::Malformed { action: self.action, object: self.object, reason: error.0 }
    }

    /// What a failure means for this operation; the numbers are those of `ip_vs_ctl.c`.
    fn error(self, failure: Failure) -> Error {
        let Self { action, object, service } = self;
        let (errno, explanation) = match failure {
            Failure::Io(source) => return Error::Socket { action, object, source },
            Failure::Malformed(reason) => return Error::Malformed { action, object, reason },
            Failure::TimedOut => return Error::TimedOut { action, object, after: PATIENCE },
            Failure::Kernel { errno, explanation } => (errno, explanation),
        };
        match (Errno::from_raw(errno), object) {
            (Errno::EEXIST, _) => Error::Exists { action, object },
            (Errno::ESRCH, _) => Error::NotFound { action, object, missing: "service" },
            (Errno::ENOENT, Object::Destination { .. }) => {
                Error::NotFound { action, object, missing: "destination" }
            }
            (Errno::ENOENT, _) if service.is_some() => {
                let module = service.map(modules).unwrap_or_default();
                Error::NoModule { action, object, module }
            }
            (Errno::EPERM | Errno::EACCES, _) => Error::NotPermitted { action, object },
            (errno, _) => Error::Refused { action, object, source: errno.into(), explanation },
        }
    }
}

/// What a service needs modules for: the kernel does not say which one it lacks.
fn modules(service: &Service) -> String {
    let scheduler = &service.scheduler;
    let words = format!("scheduler {scheduler:?} (module ip_vs_{scheduler})");
    match &service.persistence_engine {
        Some(engine) => {
            format!("{words}, or no persistence engine {engine:?} (module ip_vs_pe_{engine})")
        }
        None => words,
    }
}
