//! A node's session with one of the managers: it hears what concerns it and says what it did.

use std::collections::HashMap;
use std::time::Duration;

use swarm_model::{ManagerAddress, NodeDescription, TaskId, TaskStatus, TlsInfo, ViewDelta, codec};
use swarm_pki::ExpectedPeer;
use swarm_proto::dispatch::dispatcher_client::DispatcherClient;
use swarm_proto::dispatch::{
    Acknowledged, Certified, Describe, Heartbeat, Standing, TaskReport, TaskReports, ToNode,
    Trouble, from_node, to_node,
};
use swarm_proto::removal::is_removed;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::identity::Identity;
use crate::managers::Managers;
use crate::outgoing::{Outgoing, Over};
use crate::reporter::Reporter;
use crate::standing::Trust;

/// How often the node shows that it is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A manager silent for longer is given up for another. It shows itself every half second.
const SILENCE: Duration = Duration::from_millis(1600);
/// How long a manager may take to open a session: it asks Raft.
const OPENING: Duration = Duration::from_secs(5);
/// The pause before the next manager is tried.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Messages to the manager that may wait.
const QUEUE: usize = 16;
/// What a node may take to read what has arrived.
const MOMENT: Duration = Duration::from_millis(200);
/// The most reports in one message: below gRPC's 4 MiB.
const REPORTS: usize = 256;
/// A view of a network with thousands of endpoints.
const LARGEST_MESSAGE: usize = 64 << 20;

/// What a manager said.
pub(crate) enum Heard {
    /// A change of the view; to be acknowledged once programmed.
    Delta(ViewDelta),
    /// Where the managers are now.
    Managers(Vec<ManagerAddress>),
    /// The node's id in Raft; none if it is a worker.
    RaftId(Option<u64>),
    /// Whom the node is to trust.
    Trust(Trust),
}

/// An open session.
pub(crate) struct Session {
    manager: ManagerAddress,
    incoming: Streaming<ToNode>,
    heard_at: Instant,
    outgoing: Outgoing,
    acknowledgements: mpsc::Sender<u64>,
    helpers: tokio::task::JoinSet<()>,
}

/// The swarm has removed this node, as a manager says that knows it: none will open a session with it.
pub(crate) struct Removed;

/// Opens a session with any of the managers, trying until one answers; says in `trouble` why none did.
pub(crate) async fn open(
    identity: &Identity,
    managers: &Managers,
    description: &NodeDescription,
    trouble: &watch::Sender<String>,
) -> Result<Session, Removed> {
    // By address.
    let mut said: HashMap<String, String> = HashMap::new();
    loop {
        for manager in managers.all() {
            match Session::open(identity, &manager, description).await {
                Ok(session) => {
                    trouble.send_replace(String::new());
                    return Ok(session);
                }
                Err(e) if is_removed(&e, identity.node.as_str()) => return Err(Removed),
                Err(e) => {
                    let text = e.message().to_owned();
                    // The same failure of the same manager is said once, not five times a second.
                    if said.get(&manager.addr) != Some(&text) {
                        tracing::warn!("no session with the manager at {}: {text}", manager.addr);
                        trouble.send_replace(format!(
                            "no session with a manager: {}: {text}",
                            manager.addr
                        ));
                        said.insert(manager.addr, text);
                    }
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await; // before the next manager
        }
        if managers.all().is_empty() {
            tracing::error!("no manager is known to this node");
            tokio::time::sleep(SILENCE).await; // nothing can change this but another swarmd
        }
    }
}

impl Session {
    async fn open(
        identity: &Identity,
        manager: &ManagerAddress,
        description: &NodeDescription,
    ) -> Result<Session, Status> {
        let expected = ExpectedPeer::Manager;
        let channel = timeout(SILENCE, identity.connector.connect(&manager.addr, expected))
            .await
            .map_err(|_| Status::deadline_exceeded("it does not answer"))?
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let mut client = DispatcherClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let (outgoing, stream) = Outgoing::new(QUEUE);
        let describe = Describe {
            description: codec::encode(description).into(),
            addr: identity.addr.clone(),
        };
        // There is room in a fresh queue.
        let first = outgoing.send(from_node::Message::Describe(describe)).await;
        first.map_err(|Over| Status::internal("a fresh session is over"))?;
        let incoming = timeout(OPENING, client.session(ReceiverStream::new(stream)))
            .await
            .map_err(|_| Status::new(Code::DeadlineExceeded, "it does not open a session"))??;
        tracing::info!("session with the manager at {}", manager.addr);
        identity.reporter.resend();
        let mut helpers = tokio::task::JoinSet::new();
        helpers.spawn(show_life(outgoing.clone()));
        let (acknowledgements, revisions) = mpsc::channel(1); // the next is due after another view
        helpers.spawn(send_reports(outgoing.clone(), identity.reporter.clone(), revisions));
        let (incoming, heard_at) = (incoming.into_inner(), Instant::now());
        let manager = manager.clone();
        Ok(Session { manager, incoming, heard_at, outgoing, acknowledgements, helpers })
    }

    /// The next thing the manager says; none when the session is over. Nothing is lost if it is not waited
    /// for to the end, nor does that make silence seem shorter.
    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        // After long work of our own there is a moment to take in what arrived meanwhile.
        let mut deadline = (self.heard_at + SILENCE).max(Instant::now() + MOMENT);
        loop {
            let heard = timeout_at(deadline, self.incoming.message()).await;
            self.heard_at = Instant::now();
            deadline = self.heard_at + SILENCE;
            let message = match heard {
                Ok(Ok(Some(ToNode { message: Some(message) }))) => message,
                Ok(Ok(Some(ToNode { message: None }))) => continue,
                Ok(Ok(None)) => return self.over("it ended the session"),
                Ok(Err(e)) => return self.over(e.message()),
                Err(_) => return self.over("it is silent"),
            };
            match message {
                to_node::Message::Heartbeat(_) => {}
                to_node::Message::Managers(managers) => {
                    let managers = managers.managers.into_iter();
                    let managers = managers
                        .map(|m| ManagerAddress { node_id: m.node_id.into(), addr: m.addr });
                    return Some(Heard::Managers(managers.collect()));
                }
                to_node::Message::Standing(Standing { raft_id, feature_level }) => {
                    self.outgoing.all_speak(feature_level);
                    return Some(Heard::RaftId((raft_id != 0).then_some(raft_id)));
                }
                to_node::Message::Trust(trust) => {
                    return Some(Heard::Trust(Trust {
                        roots_pem: trust.roots_pem,
                        issuer_public_key: trust.issuer_public_key,
                    }));
                }
                to_node::Message::Delta(bytes) => match codec::decode(&bytes) {
                    Ok(delta) => return Some(Heard::Delta(delta)),
                    Err(e) => return self.over(&e.to_string()),
                },
            }
        }
    }

    fn over(&mut self, why: &str) -> Option<Heard> {
        tracing::warn!("session with the manager at {} is over: {why}", self.manager.addr);
        self.helpers.abort_all();
        None
    }

    /// Tells the manager that the node's data plane is at this revision, after what the tasks have reported up to now.
    pub(crate) async fn acknowledge(&self, revision: u64) {
        // A session that is over, or stuck, says so at the next `hear`.
        let _ = timeout(SILENCE, self.acknowledgements.send(revision)).await;
    }

    /// Tells the manager why the node's data plane lags behind; an empty reason takes that back.
    pub(crate) async fn admit(&self, reason: String) {
        self.say(from_node::Message::Trouble(Trouble { reason })).await;
    }

    /// Tells the manager which certificate the node has now.
    pub(crate) async fn certify(&self, tls_info: &TlsInfo) {
        let tls_info = codec::encode(tls_info).into();
        self.say(from_node::Message::Certified(Certified { tls_info })).await;
    }

    async fn say(&self, message: from_node::Message) {
        // A session that is over, or stuck, says so at the next `hear`.
        let _ = timeout(SILENCE, self.outgoing.send(message)).await;
    }
}

async fn show_life(outgoing: Outgoing) {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        heartbeat.tick().await;
        if outgoing.send(from_node::Message::Heartbeat(Heartbeat {})).await.is_err() {
            return;
        }
    }
}

/// Sends reports, and acknowledgements when there are none: a manager that takes the node to be up to date is to know
/// first which of its tasks do not run.
async fn send_reports(outgoing: Outgoing, reporter: Reporter, mut revisions: mpsc::Receiver<u64>) {
    loop {
        let messages = tokio::select! {
            biased;
            taken = reporter.take() => taken.chunks(REPORTS).map(reports).collect::<Vec<_>>(),
            revision = revisions.recv() => match revision {
                Some(revision) => vec![from_node::Message::Acknowledged(Acknowledged { revision })],
                None => return,
            },
        };
        for message in messages {
            // What a broken session loses is sent again in the next one.
            if outgoing.send(message).await.is_err() {
                return;
            }
        }
    }
}

fn reports(some: &[(TaskId, TaskStatus)]) -> from_node::Message {
    let reports = some.iter().map(|(id, status)| TaskReport {
        task_id: id.to_string(),
        status: codec::encode(status).into(),
    });
    from_node::Message::Reports(TaskReports { reports: reports.collect() })
}

#[cfg(test)]
mod tests;
