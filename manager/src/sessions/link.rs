//! Every manager tells the leader which nodes have a session with it and how far they are, so that
//! workers may have their session with any manager and fan-out does not load the leader.

use std::convert::Infallible;
use std::time::Duration;

use swarm_proto::membership::SessionReport;
use swarm_proto::membership::peer_client::PeerClient;
use swarm_raft::{Member, Raft, Role, Status};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::leader::fleet::Fleet;
use crate::members::peers::Peers;
use crate::sessions::table::Sessions;

/// A report is sent at least this often: silences grow without an event.
const REPORT: Duration = Duration::from_millis(250);
/// The shortest time between two reports: the first after a rest goes at once, changes soon after it share one...
const PACE: Duration = Duration::from_millis(4);
/// ...and this much longer for each session: a report names them all, so that a thousand nodes which
/// acknowledge one by one do not cost a million.
const PACE_PER_SESSION: Duration = Duration::from_micros(10);
/// The pause before the leader is called again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Reports to whoever leads.
pub(crate) struct Link {
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) sessions: Sessions,
    pub(crate) fleet: Fleet,
}

impl Link {
    /// Ends with Raft.
    pub(crate) async fn run(self) {
        let mut status = self.raft.status();
        loop {
            let (role, leader) = {
                let status = status.borrow_and_update();
                (status.role.clone(), status.leader.clone())
            };
            let lasts = match (role, leader) {
                (Role::Leader, _) => self.report_here(&mut status).await,
                (_, Some(leader)) => self.report_to(&leader, &mut status).await,
                (_, None) => status.changed().await.is_ok(),
            };
            if !lasts {
                return;
            }
        }
    }

    /// While this manager leads. False when Raft has ended.
    async fn report_here(&self, status: &mut watch::Receiver<Status>) -> bool {
        let mut changes = self.sessions.changes();
        let report = async {
            loop {
                self.fleet.report(&self.sessions.report());
                if !self.next_report(&mut changes).await {
                    return;
                }
            }
        };
        // The status changes with every revision; only this change of it matters here.
        let deposed = async { status.wait_for(|s| s.role != Role::Leader).await.is_ok() };
        tokio::select! {
            () = report => false,
            lasts = deposed => lasts,
        }
    }

    /// While `leader` leads and answers. False when Raft has ended.
    async fn report_to(&self, leader: &Member, status: &mut watch::Receiver<Status>) -> bool {
        let (sender, stream) = mpsc::channel(1);
        let call = async {
            let mut client: PeerClient<Channel> =
                PeerClient::new(self.peers.channel(&leader.addr)?);
            client.report_sessions(ReceiverStream::new(stream)).await
        };
        let changed_leader =
            async { status.wait_for(|s| s.leader.as_ref() != Some(leader)).await.is_ok() };
        tokio::select! {
            ended = call => {
                if let Err(e) = ended {
                    tracing::debug!("{leader} takes no session reports: {}", e.message());
                    self.peers.forget(&leader.addr);
                }
                tokio::time::sleep(RETRY_PAUSE).await; // before the leader is called again
                true
            }
            never = self.send_reports(sender) => match never {},
            lasts = changed_leader => lasts,
        }
    }

    async fn send_reports(&self, sender: mpsc::Sender<SessionReport>) -> Infallible {
        let mut changes = self.sessions.changes();
        while sender.send(self.sessions.report()).await.is_ok() {
            if !self.next_report(&mut changes).await {
                break;
            }
        }
        // The call has ended: why, it says itself.
        std::future::pending().await
    }

    /// Waits, after a report, until another is due. False when there are no sessions any more, for ever.
    async fn next_report(&self, changes: &mut watch::Receiver<()>) -> bool {
        let sessions = u32::try_from(self.sessions.count()).unwrap_or(u32::MAX);
        let soonest = Instant::now() + PACE + PACE_PER_SESSION.saturating_mul(sessions);
        tokio::select! {
            changed = changes.changed() => {
                tokio::time::sleep_until(soonest).await; // others may change meanwhile
                changed.is_ok()
            }
            () = tokio::time::sleep(REPORT) => true, // silences grow
        }
    }
}
