//! A replication stream to one follower: requests flow while earlier ones are unanswered.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::{Stream, StreamExt, stream::BoxStream};
use openraft::{
    errors::{NetworkError, RPCError},
    raft::{AppendEntriesRequest, StreamAppendResult},
};
use swarm_proto::raft as pb;
use tokio::sync::oneshot;
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
        let (alive, over) = oneshot::channel::<Infallible>();
        let requests = until_stuck(input, stuck.clone()).take_until(over).map({
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
        let pipeline = Pipeline {
            client: self,
            addr,
            responses,
            sent,
            stuck,
            received: 0,
            ended: false,
            _alive: alive,
        };
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
    /// Dropped with the pipeline, which ends its requests. HTTP/2 would go on asking openraft for them after the answers were
    /// given up, and openraft has one source of requests for all streams to a follower: the old stream would take what
    /// the new one is to send.
    _alive: oneshot::Sender<Infallible>,
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
#[path = "pipeline_tests.rs"]
mod tests;
