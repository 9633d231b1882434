//! A replication stream to one follower: requests flow while earlier ones are unanswered.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use openraft::{
    errors::{NetworkError, RPCError},
    raft::{AppendEntriesRequest, StreamAppendResult},
};
use swarm_proto::raft as pb;
use tonic::Status;

use super::{Appended, Client, Error};
use crate::{peers::Purpose, types::TypeConfig, wire};

impl Client {
    /// Opens one.
    pub(super) async fn pipeline<S>(&self, input: S) -> Result<BoxStream<'_, Appended>, Error>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let addr = self.addr();
        let (sent, stuck) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let target = self.target;
        let requests = until_stuck(input, stuck.clone()).map({
            let (sent, without_quorum) = (sent.clone(), self.network.without_quorum.clone());
            move |request| {
                sent.fetch_add(1, Ordering::Relaxed);
                wire::append_request(target, request, without_quorum.load(Ordering::Relaxed))
            }
        });
        let open = self.call(Purpose::Replication, self.network.stall, |mut client| async move {
            client.append(requests).await
        });
        let responses = open.await?;
        let pipeline =
            Pipeline { client: self, addr, responses, sent, stuck, received: 0, ended: false };
        Ok(futures::stream::unfold(pipeline, Pipeline::next).boxed())
    }
}

/// The requests up to one without entries that only repeats the one before.
///
/// openraft makes such requests for ever once it resumes a stream that a snapshot had overtaken: the entries that
/// it asks the log for are purged. When the stream fails it looks anew at what the follower lacks.
fn until_stuck<S>(
    input: S,
    stuck: Arc<AtomicBool>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let mut former = None;
    input.take_while(move |request| {
        let idle = request.entries.is_empty();
        let this = idle.then_some((request.prev_log_id, request.leader_commit));
        let repeats = this.is_some() && this == former;
        former = this;
        stuck.fetch_or(repeats, Ordering::Relaxed);
        std::future::ready(!repeats)
    })
}

/// The answers of a replication stream.
struct Pipeline<'a> {
    client: &'a Client,
    addr: String,
    responses: tonic::Streaming<pb::AppendResponse>,
    sent: Arc<AtomicU64>,
    stuck: Arc<AtomicBool>,
    received: u64,
    ended: bool,
}

impl Pipeline<'_> {
    async fn next(mut self) -> Option<(Appended, Self)> {
        if self.ended {
            return None;
        }
        let answer = match self.answer().await {
            Ok(None) => return None,
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        // openraft starts a new stream after anything but a plain success.
        self.ended = !matches!(answer, Ok(Ok(_)));
        Some((answer, self))
    }

    async fn answer(&mut self) -> Result<Option<StreamAppendResult<TypeConfig>>, Error> {
        loop {
            match tokio::time::timeout(self.client.network.stall, self.responses.message()).await {
                Ok(Ok(Some(response))) => {
                    self.received += 1;
                    let answer = wire::from_append_response(response)
                        .map_err(|status| self.client.invalid(&status))?;
                    return Ok(Some(answer));
                }
                Ok(Ok(None)) if self.owed() => {
                    return Err(self.broken("ends with requests unanswered"));
                }
                Ok(Ok(None)) if self.stuck.load(Ordering::Relaxed) => {
                    let text = format!("manager {} lacks purged entries", self.client.target);
                    return Err(RPCError::Network(NetworkError::from_string(text)));
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(status)) => {
                    return Err(self.client.failed(&self.addr, Purpose::Replication, &status));
                }
                Err(_) if self.owed() => return Err(self.broken("is stalled")),
                // An idle stream is quiet.
                Err(_) => {}
            }
        }
    }

    /// Whether a request has no answer yet.
    fn owed(&self) -> bool {
        self.sent.load(Ordering::Relaxed) > self.received
    }

    fn broken(&self, how: &str) -> Error {
        let status = Status::unavailable(format!("replication stream {how}"));
        self.client.failed(&self.addr, Purpose::Replication, &status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, LogId, Payload, Vote, log_id};

    fn request(prev: u64, commit: u64, entries: u64) -> AppendEntriesRequest<TypeConfig> {
        let id = |index| -> LogId { log_id(1, 1, index) };
        let entry = |index| Entry { log_id: id(index), payload: Payload::Blank };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(id(prev)),
            leader_commit: Some(id(commit)),
            entries: (prev + 1..=prev + entries).map(entry).collect(),
        }
    }

    /// How many of the requests are sent, and whether the stream is stuck then.
    async fn sent(requests: Vec<AppendEntriesRequest<TypeConfig>>) -> (usize, bool) {
        let stuck = Arc::new(AtomicBool::new(false));
        let sent = until_stuck(futures::stream::iter(requests), stuck.clone()).count().await;
        (sent, stuck.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_stream_that_repeats_itself_ends() {
        let purged = || request(28, 110, 0);
        assert_eq!(sent(vec![purged(), purged(), purged()]).await, (1, true));
    }

    #[tokio::test]
    async fn a_stream_that_tells_of_commits_goes_on() {
        let requests = vec![request(5, 5, 2), request(7, 6, 0), request(7, 7, 0), request(7, 7, 1)];
        assert_eq!(sent(requests).await, (4, false));
        // Entries that are sent again are no idle repetition.
        assert_eq!(sent(vec![request(5, 5, 2), request(5, 5, 2)]).await, (2, false));
    }
}
