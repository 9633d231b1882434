//! The mTLS server of a node, that ends when it is told to: then its port is free, and no connection that
//! it accepted goes on.

use std::pin::Pin;
use std::time::Duration;

use swarm_pki::TlsAcceptor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::service::Routes;
use tower::ServiceExt;

/// How long the end of the listener is waited for: it takes no time.
const CLOSE: Duration = Duration::from_secs(5);

/// A running server. Dropping it ends it too, in a moment.
pub(crate) struct Server {
    end: watch::Sender<()>,
    closed: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Serves to whom `acceptor` lets in what `routes` holds at the time of each call: a node's services change
    /// with its role, and no call under way is to notice.
    pub(crate) fn start(
        listener: TcpListener,
        acceptor: &TlsAcceptor,
        routes: watch::Receiver<Routes>,
    ) -> Server {
        let routes = Routes::default().into_axum_router().fallback_service(tower::service_fn(
            move |request| routes.borrow().clone().oneshot(request),
        ));
        let routes = Routes::from(routes);
        let end = watch::Sender::new(());
        let mut incoming = acceptor.incoming(listener);
        let closed = Box::pin(incoming.closed());
        let ends = end.subscribe();
        let incoming = incoming
            .map(move |stream| stream.map(|stream| stream.ending_with(ended(ends.clone()))));
        let mut ended = end.subscribe();
        let serving = tokio::spawn(async move {
            let server = swarm_pki::server().add_routes(routes);
            tokio::select! {
                served = server.serve_with_incoming(incoming) => {
                    if let Err(e) = served {
                        tracing::error!("this node's server ended: {e}");
                    }
                }
                _ = ended.changed() => {} // an error means the same
            }
        });
        Server { end, closed, serving }
    }

    /// Ends all connections; when it returns, the port is free.
    pub(crate) async fn close(self) {
        drop(self.end);
        if let Err(e) = self.serving.await {
            tracing::error!("this node's server ended badly: {e}");
        }
        if tokio::time::timeout(CLOSE, self.closed).await.is_err() {
            tracing::error!("this node's port is still in use");
        }
    }
}

/// Resolves once the server has ended: nothing is ever sent, the sender is dropped.
async fn ended(mut ends: watch::Receiver<()>) -> &'static str {
    while ends.changed().await.is_ok() {}
    "this node has left or is ending"
}

#[cfg(test)]
mod tests {
    use swarm_pki::{
        AcceptorOptions, Connector, ConnectorOptions, Credentials, ExpectedPeer,
        NODE_CERT_VALIDITY, NodeIdentity, Role, RootCa, new_key_and_csr,
    };
    use swarm_proto::membership::peer_client::PeerClient;
    use swarm_proto::membership::peer_server::{Peer, PeerServer};
    use swarm_proto::membership::{Empty, ProposeRequest, ProposeResponse, SessionReport};
    use time::OffsetDateTime;
    use tonic::{Request, Response, Status, Streaming};

    use super::*;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Listens to a stream that does not end.
    struct Listens;

    #[tonic::async_trait]
    impl Peer for Listens {
        async fn propose(
            &self,
            _: Request<ProposeRequest>,
        ) -> Result<Response<ProposeResponse>, Status> {
            Ok(Response::new(ProposeResponse::default()))
        }

        async fn report_sessions(
            &self,
            request: Request<Streaming<SessionReport>>,
        ) -> Result<Response<Empty>, Status> {
            let mut reports = request.into_inner();
            while reports.message().await?.is_some() {}
            Ok(Response::new(Empty {}))
        }
    }

    fn credentials() -> Credentials {
        let now = OffsetDateTime::now_utc();
        let ca = RootCa::generate("cluster", now).unwrap();
        let (key, csr) = new_key_and_csr().unwrap();
        let chain = ca.issue(&csr, "node", Role::Manager, now, NODE_CERT_VALIDITY).unwrap();
        let identity = NodeIdentity::from_pem(&chain, &key).unwrap();
        Credentials::new(&[ca.cert().clone()], Some(identity)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn closing_frees_the_port_and_ends_calls_under_way() {
        let credentials = credentials();
        let acceptor = TlsAcceptor::new(&credentials, AcceptorOptions::default()).unwrap();
        let mut addr = "127.0.0.1:0".to_owned();
        for _ in 0..3 {
            let listener = TcpListener::bind(&addr).await.unwrap();
            addr = listener.local_addr().unwrap().to_string();
            let routes = Routes::default().add_service(PeerServer::new(Listens));
            let (routes, served) = watch::channel(routes);
            let server = Server::start(listener, &acceptor, served);
            let connector = Connector::new(credentials.clone(), ConnectorOptions::default());
            let channel = connector.connect(&addr, ExpectedPeer::Manager).await.unwrap();
            let mut client = PeerClient::new(channel);
            client.propose(ProposeRequest::default()).await.unwrap();
            routes.send_replace(Routes::default());
            let gone = client.propose(ProposeRequest::default()).await.unwrap_err();
            assert_eq!(gone.code(), tonic::Code::Unimplemented, "the service was taken away");
            routes.send_replace(Routes::default().add_service(PeerServer::new(Listens)));
            let call = tokio::spawn(async move {
                let reports = tokio_stream::pending::<SessionReport>();
                client.report_sessions(reports).await
            });
            tokio::time::timeout(PATIENCE, server.close()).await.unwrap();
            let ended = tokio::time::timeout(PATIENCE, call).await.expect("the call goes on");
            ended.unwrap().unwrap_err();
        }
    }
}
