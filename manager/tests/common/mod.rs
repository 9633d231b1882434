//! A swarm of one manager, served over mTLS on loopback, and who calls it.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses some of it")]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use swarm_manager::{Dialect, Images, Manager, ManagerOptions, NewCluster};
use swarm_model::{
    ClusterSpec, EngineDescription, FeatureLevel, JoinTokens, NodeDescription, codec,
};
use swarm_pki::{
    AcceptorOptions, Connector, ConnectorOptions, Credentials, ExpectedPeer, NODE_CERT_VALIDITY,
    NodeIdentity, Role, RootCa, TlsAcceptor, new_key_and_csr, server,
};
use swarm_proto::dispatch::dispatcher_client::DispatcherClient;
use swarm_proto::dispatch::{Describe, FromNode, ToNode, from_node};
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_proto::membership::{IssueRequest, IssueResponse};
use swarm_state::Change;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// The id of the one manager.
pub const MANAGER: &str = "m1";

/// No image is asked for here.
struct NoImages;

impl Images for NoImages {
    fn pin(
        &self,
        image: String,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async move { Err(format!("there is no image {image}")) })
    }
}

/// Keeps nothing: what is locked of a manager is `swarmd`'s.
struct NoFiles;

impl swarm_manager::Files for NoFiles {
    fn lock(&self, _: &swarm_model::ManagerLock) -> Result<(), String> {
        Ok(())
    }
}

pub struct Swarm {
    ca: RootCa,
    addr: String,
    pub tokens: JoinTokens,
    pub manager: Manager,
    serving: Serving,
    dir: TempDir,
}

fn identity(ca: &RootCa, id: &str, role: Role) -> NodeIdentity {
    let (key, csr) = new_key_and_csr().unwrap();
    let chain = ca.issue(&csr, id, role, OffsetDateTime::now_utc(), NODE_CERT_VALIDITY).unwrap();
    NodeIdentity::from_pem(&chain, &key).unwrap()
}

/// A daemon that speaks this level.
pub fn engine(level: u32) -> EngineDescription {
    let feature_level = FeatureLevel::new(level).unwrap();
    EngineDescription { engine_version: format!("0.{level}.0"), feature_level }
}

/// One for which networks are new at level 2.
pub fn dialect(level: u32) -> Dialect {
    fn level_of(change: &Change) -> FeatureLevel {
        match change {
            Change::CreateNetwork { .. } => FeatureLevel::new(2).unwrap(),
            other => other.level(),
        }
    }
    Dialect { engine: engine(level), level_of }
}

async fn start(ca: &RootCa, dir: &Path, addr: &str, dialect: Dialect) -> (Manager, TcpListener) {
    let listener = TcpListener::bind(addr).await.unwrap();
    let own = identity(ca, MANAGER, Role::Manager);
    let credentials = Credentials::new(&[ca.cert().clone()], Some(own)).unwrap();
    let key = swarm_raft::SealKey::new([1; 32], "a test");
    let manager = Manager::start(ManagerOptions {
        node_id: MANAGER.into(),
        addr: listener.local_addr().unwrap().to_string(),
        raft: swarm_raft::Options::new(1, dir.join("raft"), key),
        connector: Connector::new(credentials, ConnectorOptions::default()),
        files: Arc::new(NoFiles),
        images: Arc::new(NoImages),
        dialect,
    });
    (manager.await.unwrap(), listener)
}

/// A server that runs.
struct Serving {
    task: JoinHandle<()>,
    /// Ends once the port is free.
    closed: BoxFuture<'static, ()>,
}

fn serve(ca: &RootCa, manager: &Manager, listener: TcpListener) -> Serving {
    let own = identity(ca, MANAGER, Role::Manager);
    let credentials = Credentials::new(&[ca.cert().clone()], Some(own)).unwrap();
    let routes = manager.add_services(Routes::default());
    let acceptor = TlsAcceptor::new(&credentials, AcceptorOptions::default()).unwrap();
    let mut incoming = acceptor.incoming(listener);
    let closed = incoming.closed().boxed();
    let task = tokio::spawn(async move {
        server().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
    });
    Serving { task, closed }
}

impl Swarm {
    pub async fn new() -> Swarm {
        Swarm::speaking(Dialect::own()).await
    }

    /// One that begins with a manager which speaks so.
    pub async fn speaking(dialect: Dialect) -> Swarm {
        let dir = tempfile::tempdir().unwrap();
        let ca = RootCa::generate("cluster", OffsetDateTime::now_utc()).unwrap();
        let (manager, listener) = start(&ca, dir.path(), "127.0.0.1:0", dialect).await;
        let copy = RootCa::from_pem(&ca.cert().to_pem(), &ca.key_pem()).unwrap();
        let new =
            NewCluster { ca: copy, spec: ClusterSpec::default(), hostname: "host".to_owned() };
        let tokens = manager.bootstrap(new).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let serving = serve(&ca, &manager, listener);
        Swarm { ca, addr, tokens, manager, serving, dir }
    }

    /// Starts the manager again, as another version.
    pub async fn restart(self, dialect: Dialect) -> Swarm {
        let Swarm { ca, addr, tokens, manager, serving, dir } = self;
        serving.task.abort();
        serving.closed.await;
        manager.shutdown().await.unwrap();
        let (manager, listener) = start(&ca, dir.path(), &addr, dialect).await;
        let serving = serve(&ca, &manager, listener);
        Swarm { ca, addr, tokens, manager, serving, dir }
    }

    /// A channel of someone with this certificate, or none.
    pub async fn caller(&self, identity: Option<NodeIdentity>) -> Channel {
        let credentials = Credentials::new(&[self.ca.cert().clone()], identity).unwrap();
        let connector = Connector::new(credentials, ConnectorOptions::default());
        connector.connect(&self.addr, ExpectedPeer::Manager).await.unwrap()
    }

    pub async fn certified(&self, id: &str, role: Role) -> Channel {
        self.caller(Some(identity(&self.ca, id, role))).await
    }

    /// Joins as `swarmd` does; the channel is that of the new node.
    pub async fn join(&self, token: &str, addr: &str) -> Result<(IssueResponse, Channel), Status> {
        self.join_speaking(token, addr, 1).await
    }

    pub async fn join_speaking(
        &self,
        token: &str,
        addr: &str,
        level: u32,
    ) -> Result<(IssueResponse, Channel), Status> {
        let (key, csr_pem) = new_key_and_csr().unwrap();
        let EngineDescription { engine_version, feature_level } = engine(level);
        let request = IssueRequest {
            token: token.to_owned(),
            csr_pem,
            hostname: "host".to_owned(),
            addr: addr.to_owned(),
            engine_version,
            feature_level: feature_level.number(),
        };
        let mut client = MembershipClient::new(self.caller(None).await);
        let answer = client.issue(request).await?.into_inner();
        let identity = NodeIdentity::from_pem(&answer.cert_pem, &key).unwrap();
        Ok((answer, self.caller(Some(identity)).await))
    }
}

pub type Opened = (tokio::sync::mpsc::Sender<FromNode>, Streaming<ToNode>);

/// Opens a session as a worker does. The sender keeps it open.
pub async fn session(channel: &Channel, hostname: &str, level: u32) -> Result<Opened, Status> {
    let description = NodeDescription {
        hostname: hostname.to_owned(),
        listen_addr: "192.0.2.9:2377".to_owned(),
        engine: engine(level),
        ..NodeDescription::default()
    };
    let describe =
        Describe { description: codec::encode(&description).into(), addr: "192.0.2.9".to_owned() };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let first = FromNode { message: Some(from_node::Message::Describe(describe)) };
    sender.send(first).await.unwrap();
    let mut client = DispatcherClient::new(channel.clone());
    let incoming = client.session(ReceiverStream::new(receiver)).await?.into_inner();
    Ok((sender, incoming))
}
