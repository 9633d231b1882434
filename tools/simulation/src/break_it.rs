//! Bugs made on purpose, in what the simulation itself supplies: to show that it finds them.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use swarm_proto::raft::{VoteRequest, VoteResponse};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::UnaryService;
use tower::Service;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Break {
    /// Disks acknowledge before they have synced.
    Fsync,
    /// Every manager grants every vote, without looking and without remembering.
    Quorum,
    /// Tasks are told to stop at once when they are withdrawn.
    WithdrawOrder,
    /// Kernels say of every container that it listens.
    Readiness,
    /// A leader proposes what not all managers can read yet.
    Level,
}

/// A server that answers votes by itself, if `forged`.
#[derive(Clone)]
pub(crate) struct ForgedVotes<S> {
    pub(crate) inner: S,
    pub(crate) forged: bool,
}

struct Grant;

impl UnaryService<VoteRequest> for Grant {
    type Response = VoteResponse;
    type Future = Ready<Result<tonic::Response<VoteResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<VoteRequest>) -> Self::Future {
        let VoteRequest { candidate, last_log, .. } = request.into_inner();
        let granted = VoteResponse { ballot: candidate, granted: true, last_log, removed: false };
        ready(Ok(tonic::Response::new(granted)))
    }
}

impl<S> Service<Request<Body>> for ForgedVotes<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.forged && request.uri().path().ends_with("/Vote") {
            return Box::pin(async move {
                let codec = tonic_prost::ProstCodec::<VoteResponse, VoteRequest>::default();
                Ok(tonic::server::Grpc::new(codec).unary(Grant, request).await)
            });
        }
        Box::pin(self.inner.call(request))
    }
}
