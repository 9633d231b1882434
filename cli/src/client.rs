//! The connection to `swarmd`: gRPC over a unix socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::node_client::NodeClient;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::args::Host;
use crate::error::{Error, root};

/// How long swarmd may take for one answer. It may ask a registry, or wait for a new leader, meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Silence after which the connection of a long stream is tested, and how long the answer to that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Largest answer: a list of some 100,000 tasks.
const LARGEST_ANSWER: usize = 256 << 20;

/// What to ask swarmd with.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The swarm.
    pub(crate) control: ControlClient<Channel>,
    /// This node.
    pub(crate) node: NodeClient<Channel>,
}

impl Client {
    /// Connects; a connection that breaks later is made anew by the next call.
    ///
    /// # Errors
    /// [`Error::NoDaemon`], [`Error::Denied`] and others that say what to do.
    pub(crate) async fn connect(host: &Host) -> Result<Client, Error> {
        let path = host.path().to_owned();
        let mut first = Some(open(&path).await?);
        let connector = tower::service_fn(move |_: Uri| {
            let (opened, path) = (first.take(), path.clone());
            async move {
                let stream = match opened {
                    Some(stream) => stream,
                    None => UnixStream::connect(path).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://swarmd")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .connect_with_connector(connector)
            .await
            .map_err(|e| Error::Lost(root(&e)))?;
        Ok(Client {
            control: ControlClient::new(channel.clone()).max_decoding_message_size(LARGEST_ANSWER),
            node: NodeClient::new(channel).max_decoding_message_size(LARGEST_ANSWER),
        })
    }
}

async fn open(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).await.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NoDaemon(path.into()),
        io::ErrorKind::PermissionDenied => Error::Denied(path.into()),
        _ => Error::io(format!("connect to swarmd at {}", path.display()), e),
    })
}

/// A request that must be answered in time; not for streams, which last.
pub(crate) fn ask<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}
