//! The manager that leads, for a command that another manager passes on.

use bytes::Bytes;
use swarm_proto::membership::ProposeRequest;
use swarm_proto::membership::peer_client::PeerClient;
use tonic::transport::Channel;

use crate::error::ApiError;

/// The leader's proposer.
pub(crate) struct LeaderProposer(PeerClient<Channel>);

impl LeaderProposer {
    pub(crate) fn new(channel: Channel) -> LeaderProposer {
        LeaderProposer(PeerClient::new(channel))
    }

    /// Proposes a command there; gives the revision, and what `apply` answered. After [`ApiError::Precondition`] and
    /// [`ApiError::Unavailable`] it was surely not accepted.
    pub(crate) async fn propose(&mut self, command: Bytes) -> Result<(u64, Bytes), ApiError> {
        let answer = self.0.propose(ProposeRequest { command }).await?.into_inner();
        Ok((answer.revision, answer.response))
    }
}
