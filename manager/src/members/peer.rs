//! What managers ask of each other: to propose for them, and to hear of their sessions.

use swarm_proto::membership::peer_server::Peer;
use swarm_proto::membership::{Empty, ProposeRequest, ProposeResponse, SessionReport};
use tonic::{Request, Response, Status, Streaming};

use crate::leader::fleet::Fleet;
use crate::replica::proposer::Proposer;

/// The gRPC service; to be offered to managers only.
pub struct PeerService {
    pub(crate) proposer: Proposer,
    pub(crate) fleet: Fleet,
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        let command = request.into_inner().command;
        let (revision, response) = self.proposer.propose_for_peer(command).await?;
        Ok(Response::new(ProposeResponse { revision, response }))
    }

    async fn report_sessions(
        &self,
        request: Request<Streaming<SessionReport>>,
    ) -> Result<Response<Empty>, Status> {
        let mut reports = request.into_inner();
        while let Some(report) = reports.message().await? {
            self.fleet.report(&report);
        }
        Ok(Response::new(Empty {}))
    }
}
