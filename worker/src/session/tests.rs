//! A session with a manager that behaves badly, over mTLS on loopback.

use std::sync::{Arc, Mutex};

use swarm_pki::{
    AcceptorOptions, Connector, ConnectorOptions, Credentials, NODE_CERT_VALIDITY, NodeIdentity,
    Role, RootCa, TlsAcceptor, new_key_and_csr,
};
use swarm_proto::dispatch::FromNode;
use swarm_proto::dispatch::dispatcher_server::{Dispatcher, DispatcherServer};
use swarm_proto::removal::removed;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response};

use super::*;
use crate::memory::Memory;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

type Said = mpsc::Receiver<Result<ToNode, Status>>;

/// Says in one session what it was given to say, and passes on what it hears; refuses the others, the last refusal
/// again and again.
struct Manager {
    said: Mutex<Option<Said>>,
    refusals: Arc<Mutex<Vec<Status>>>,
    heard: mpsc::UnboundedSender<from_node::Message>,
}

#[tonic::async_trait]
impl Dispatcher for Manager {
    type SessionStream = ReceiverStream<Result<ToNode, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (mut incoming, heard) = (request.into_inner(), self.heard.clone());
        tokio::spawn(async move {
            while let Ok(Some(FromNode { message: Some(message) })) = incoming.message().await {
                let _ = heard.send(message); // the test may have ended
            }
        });
        match self.said.lock().unwrap().take() {
            Some(said) => Ok(Response::new(ReceiverStream::new(said))),
            None => {
                let mut refusals = self.refusals.lock().unwrap();
                Err(if refusals.len() > 1 { refusals.remove(0) } else { refusals[0].clone() })
            }
        }
    }
}

fn credentials(ca: &RootCa, id: &str, role: Role) -> Credentials {
    let (key, csr) = new_key_and_csr().unwrap();
    let chain = ca.issue(&csr, id, role, OffsetDateTime::now_utc(), NODE_CERT_VALIDITY).unwrap();
    let identity = NodeIdentity::from_pem(&chain, &key).unwrap();
    Credentials::new(&[ca.cert().clone()], Some(identity)).unwrap()
}

/// A node, and the one manager it knows.
struct World {
    identity: Identity,
    managers: Managers,
    trouble: watch::Sender<String>,
    say: mpsc::Sender<Result<ToNode, Status>>,
    refusals: Arc<Mutex<Vec<Status>>>,
    heard: mpsc::UnboundedReceiver<from_node::Message>,
    serving: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    async fn new() -> World {
        let ca = RootCa::generate("cluster", OffsetDateTime::now_utc()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let own = credentials(&ca, "m", Role::Manager);
        let incoming =
            TlsAcceptor::new(&own, AcceptorOptions::default()).unwrap().incoming(listener);
        let (say, said) = mpsc::channel(4);
        let (sender, by_manager) = mpsc::unbounded_channel();
        let refusals = Arc::new(Mutex::new(vec![removed("n")]));
        let manager =
            Manager { said: Mutex::new(Some(said)), refusals: refusals.clone(), heard: sender };
        let serving = tokio::spawn(async move {
            let server = swarm_pki::server().add_service(DispatcherServer::new(manager));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        let node = credentials(&ca, "n", Role::Worker);
        let connector = Connector::new(node, ConnectorOptions::default());
        let (_, heard) = watch::channel(Arc::new(Memory::empty("n".into())));
        let manager = ManagerAddress { node_id: "m".into(), addr };
        World {
            identity: Identity::for_test(connector),
            managers: Managers::new(heard, vec![manager]),
            trouble: watch::Sender::default(),
            say,
            refusals,
            heard: by_manager,
            serving,
        }
    }

    async fn open(&self) -> Result<Session, Removed> {
        let description = NodeDescription::default();
        let opening = open(&self.identity, &self.managers, &description, &self.trouble);
        tokio::time::timeout(PATIENCE, opening).await.expect("no session")
    }

    async fn say(&self, message: to_node::Message) {
        self.say.send(Ok(ToNode { message: Some(message) })).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_manager_is_given_up_however_often_hearing_is_interrupted() {
    let world = World::new().await;
    let mut session = world.open().await.ok().unwrap();
    let began = Instant::now();
    let interrupted = async {
        loop {
            // As the agent does to try a network again.
            match timeout(SILENCE / 3, session.hear()).await {
                Ok(heard) => break heard.is_none(),
                Err(_) => continue,
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, interrupted).await.expect("it is never given up"));
    assert!(began.elapsed() >= SILENCE);
}

#[tokio::test]
async fn what_was_said_during_long_work_is_heard_after_it() {
    let world = World::new().await;
    let mut session = world.open().await.ok().unwrap();
    let delta = ViewDelta { revision: 7, ..ViewDelta::default() };
    world.say(to_node::Message::Heartbeat(Heartbeat {})).await;
    world.say(to_node::Message::Delta(codec::encode(&delta).into())).await;
    session.heard_at -= 10 * SILENCE; // so long the work took
    match session.hear().await {
        Some(Heard::Delta(heard)) => assert_eq!(heard, delta),
        _ => panic!("the delta is lost"),
    }
}

#[tokio::test]
async fn what_was_reported_before_an_acknowledgement_arrives_before_it() {
    let mut world = World::new().await;
    let session = world.open().await.ok().unwrap();
    for revision in 1..100 {
        let status = TaskStatus { err: revision.to_string(), ..TaskStatus::default() };
        world.identity.reporter.report(&"t".into(), status);
        session.acknowledge(revision).await;
    }
    let mut reported = 0;
    loop {
        let heard = tokio::time::timeout(PATIENCE, world.heard.recv());
        match heard.await.expect("nothing is heard").unwrap() {
            from_node::Message::Reports(reports) => {
                let status: TaskStatus = codec::decode(&reports.reports[0].status).unwrap();
                reported = status.err.parse().unwrap();
            }
            from_node::Message::Acknowledged(Acknowledged { revision }) => {
                assert!(reported >= revision, "{revision} after the report of {reported}");
                if revision == 99 {
                    return;
                }
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_removed_node_learns_it_and_the_user_may_know() {
    let world = World::new().await;
    let mut session = world.open().await.ok().unwrap();
    world.say.send(Err(removed("n"))).await.unwrap();
    assert!(session.hear().await.is_none());
    assert!(world.open().await.is_err(), "removed");
    assert_eq!(*world.trouble.borrow(), "", "that is for the agent to say");
}

#[tokio::test]
async fn no_other_refusal_counts_as_removal() {
    let world = World::new().await;
    let mut session = world.open().await.ok().unwrap();
    world
        .say
        .send(Err(Status::permission_denied("node n was removed from the swarm")))
        .await
        .unwrap();
    assert!(session.hear().await.is_none());
    let refusals = [
        Status::permission_denied("node n was removed from the swarm"),
        Status::permission_denied("node n is a worker, not a manager"),
        Status::unauthenticated("a node certificate is required"),
        Status::failed_precondition("node n is not part of the swarm"),
        Status::not_found("node n not found"),
        removed("another"),
    ];
    let words: Vec<String> = refusals.iter().map(|status| status.message().to_owned()).collect();
    let mut said = world.trouble.subscribe();
    for (refusal, words) in refusals.into_iter().zip(words) {
        *world.refusals.lock().unwrap() = vec![refusal];
        tokio::select! {
            _ = world.open() => panic!("{words:?} ends the calling"),
            heard = tokio::time::timeout(PATIENCE, said.wait_for(|said| said.ends_with(&words))) => {
                heard.expect("nothing is said of it").unwrap();
            }
        }
    }
    *world.refusals.lock().unwrap() = vec![removed("n")];
    assert!(world.open().await.is_err(), "removed");
}
