//! A cluster's certificates and a gRPC server on loopback that tells its callers who they are.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use swarm_pki::{
    AcceptorOptions, ConnectError, Connector, ConnectorOptions, Credentials, ExpectedPeer,
    JoinSecret, JoinToken, NODE_CERT_VALIDITY, NodeIdentity, PeerInfo, Role, RootCa, RootCert,
    TlsAcceptor, new_key_and_csr, peer, require_manager, require_node, server,
};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Longer than anything here takes, shorter than a tester's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(crate) fn ca(cluster_id: &str) -> RootCa {
    RootCa::generate(cluster_id, now()).unwrap()
}

pub(crate) fn identity(ca: &RootCa, node_id: &str, role: Role) -> NodeIdentity {
    identity_at(ca, node_id, role, now(), NODE_CERT_VALIDITY)
}

/// One that expired two days ago.
pub(crate) fn expired(ca: &RootCa, node_id: &str, role: Role) -> NodeIdentity {
    identity_at(ca, node_id, role, now() - time::Duration::days(3), time::Duration::days(1))
}

pub(crate) fn identity_at(
    ca: &RootCa,
    node_id: &str,
    role: Role,
    at: OffsetDateTime,
    validity: time::Duration,
) -> NodeIdentity {
    let (key, csr) = new_key_and_csr().unwrap();
    let chain = ca.issue(&csr, node_id, role, at, validity).unwrap();
    NodeIdentity::from_pem(&chain, &key).unwrap()
}

pub(crate) fn credentials(ca: &RootCa, identity: Option<NodeIdentity>) -> Credentials {
    trusting(&[ca.cert().clone()], identity)
}

pub(crate) fn trusting(roots: &[RootCert], identity: Option<NodeIdentity>) -> Credentials {
    Credentials::new(roots, identity).unwrap()
}

pub(crate) fn connector(credentials: &Credentials) -> Connector {
    Connector::new(credentials.clone(), ConnectorOptions { connect_timeout: PATIENCE })
}

pub(crate) fn token(ca: &RootCa) -> JoinToken {
    JoinToken { ca_digest: ca.digest(), secret: JoinSecret::from_random([5; 16]) }
}

/// A running server; it ends with this value.
pub(crate) struct TestServer {
    pub(crate) addr: String,
    task: JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn serve(credentials: &Credentials) -> TestServer {
    serve_with(credentials, AcceptorOptions::default()).await
}

pub(crate) async fn serve_with(credentials: &Credentials, options: AcceptorOptions) -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let incoming = TlsAcceptor::new(credentials, options).unwrap().incoming(listener);
    let task = tokio::spawn(async move {
        server().add_service(Whoami).serve_with_incoming(incoming).await.unwrap();
    });
    TestServer { addr, task }
}

/// Who the server says the client is, such as `manager m1` or `nobody`.
pub(crate) async fn whoami(channel: &Channel) -> Result<String, Status> {
    call(channel, "/test.Whoami/Peer").await
}

/// Calls one of `Peer`, `Addr` (the client's socket), `Node` and `Manager` (which need that role).
pub(crate) async fn call(channel: &Channel, path: &'static str) -> Result<String, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<String, String>::default();
    let response =
        client.unary(Request::new(String::new()), PathAndQuery::from_static(path), codec).await;
    response.map(Response::into_inner)
}

/// The error of connecting, which must fail.
pub(crate) async fn refusal(
    credentials: &Credentials,
    addr: &str,
    expected: ExpectedPeer,
) -> ConnectError {
    connector(credentials).connect(addr, expected).await.expect_err("connected, though it must not")
}

#[derive(Clone)]
struct Whoami;

impl NamedService for Whoami {
    const NAME: &'static str = "test.Whoami";
}

impl tower::Service<http::Request<tonic::body::Body>> for Whoami {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let handler = Handler(request.uri().path().to_owned());
            Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(handler, request).await)
        })
    }
}

struct Handler(String);

impl UnaryService<String> for Handler {
    type Response = String;
    type Future = std::future::Ready<Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let addr: SocketAddr = request.extensions().get::<PeerInfo>().unwrap().addr;
        std::future::ready(match self.0.as_str() {
            "/test.Whoami/Addr" => Ok(Response::new(addr.to_string())),
            "/test.Whoami/Node" => {
                require_node(&request).map(|peer| Response::new(peer.node_id.clone()))
            }
            "/test.Whoami/Manager" => {
                require_manager(&request).map(|peer| Response::new(peer.node_id.clone()))
            }
            _ => Ok(Response::new(match peer(&request) {
                Some(peer) => format!("{} {}", peer.role, peer.node_id),
                None => "nobody".into(),
            })),
        })
    }
}
