//! Clusters of managers in one process, over gRPC on loopback.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use swarm_raft::{
    Committed, ConnectError, Connector, Options, Raft, SealKey, StartError, StateMachine, Status,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

/// Connects over plain TCP.
#[derive(Clone)]
pub struct Plain;

impl Connector for Plain {
    async fn connect(&self, addr: &str) -> Result<Channel, ConnectError> {
        let failed = |error: tonic::transport::Error| ConnectError {
            addr: addr.to_owned(),
            reason: format!("{error:?}"),
        };
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(failed)?;
        endpoint.connect_timeout(Duration::from_secs(1)).connect().await.map_err(failed)
    }
}

/// All commands applied, in order, with their revisions; answers with the number of commands so far.
#[derive(Clone, Default)]
pub struct Journal(pub Arc<Mutex<Vec<(u64, Bytes)>>>, pub Option<&'static [u8]>);

/// A journal that cannot read commands which begin like that.
pub fn journal_without(unknown: &'static [u8]) -> Journal {
    Journal(Arc::default(), Some(unknown))
}

impl Journal {
    pub fn commands(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().iter().map(|(_, command)| command.clone()).collect()
    }

    pub fn contains(&self, command: &[u8]) -> bool {
        self.0.lock().unwrap().iter().any(|(_, applied)| applied == command)
    }
}

impl StateMachine for Journal {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Bytes>, String> {
        let mut journal = self.0.lock().unwrap();
        let answer = |entry: Committed| {
            self.1.map_or(Ok(()), |unknown| known(&entry.command, unknown))?;
            assert!(
                journal.last().is_none_or(|(last, _)| *last < entry.revision),
                "revisions grow"
            );
            journal.push((entry.revision, entry.command));
            Ok(Bytes::from(journal.len().to_string()))
        };
        batch.into_iter().map(answer).collect()
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        let journal = self.0.lock().unwrap().clone();
        Box::new(move || {
            let mut out = Vec::new();
            for (revision, command) in journal {
                out.extend_from_slice(&revision.to_le_bytes());
                out.extend_from_slice(&(command.len() as u64).to_le_bytes());
                out.extend_from_slice(&command);
            }
            out
        })
    }

    fn restore(&mut self, _revision: u64, mut bytes: &[u8]) -> Result<(), String> {
        let number = |bytes: &mut &[u8]| {
            let (head, rest) = bytes.split_first_chunk::<8>().ok_or("snapshot is cut off")?;
            *bytes = rest;
            Ok::<_, String>(u64::from_le_bytes(*head))
        };
        let mut journal = Vec::new();
        while !bytes.is_empty() {
            let revision = number(&mut bytes)?;
            let len = number(&mut bytes)? as usize;
            let (command, rest) = bytes.split_at_checked(len).ok_or("snapshot is cut off")?;
            self.1.map_or(Ok(()), |unknown| known(command, unknown))?;
            journal.push((revision, Bytes::copy_from_slice(command)));
            bytes = rest;
        }
        *self.0.lock().unwrap() = journal;
        Ok(())
    }
}

fn known(command: &[u8], unknown: &[u8]) -> Result<(), String> {
    match command.starts_with(unknown) {
        true => Err(format!("what is {} is not known here", String::from_utf8_lossy(command))),
        false => Ok(()),
    }
}

/// One manager with its gRPC server.
pub struct Node {
    pub id: u64,
    pub addr: String,
    pub raft: Raft,
    pub journal: Journal,
    pub options: Options,
    server: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Each manager has a key of its own.
pub fn key(id: u64) -> SealKey {
    SealKey::new([u8::try_from(id).unwrap(); 32], format!("the key of manager {id}"))
}

/// Short times, so that tests are quick.
pub fn options(id: u64, root: &Path) -> Options {
    Options {
        heartbeat: Duration::from_millis(100),
        election_timeout: (Duration::from_millis(420), Duration::from_millis(600)),
        ..Options::new(id, root.join(format!("manager-{id}")), key(id))
    }
}

impl Node {
    pub async fn start(options: Options) -> Self {
        Self::try_start(options, "127.0.0.1:0").await.unwrap()
    }

    pub async fn try_start(options: Options, addr: &str) -> Result<Self, StartError> {
        Self::start_with(Journal::default(), options, addr).await
    }

    pub async fn start_with(
        journal: Journal,
        options: Options,
        addr: &str,
    ) -> Result<Self, StartError> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?.to_string();
        let raft = Raft::start(options.clone(), journal.clone(), Plain).await?;
        let server = Server::builder().add_service(raft.service());
        let server = tokio::spawn(async move {
            // Small messages must not wait for the acknowledgement of the ones before.
            let incoming = TcpListenerStream::new(listener).map(|stream| {
                let stream = stream?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(stream)
            });
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Ok(Self { id: options.id, addr, raft, journal, options, server })
    }

    /// Ends the manager in order; what remains is needed to start it again.
    pub async fn stop(mut self) -> (Options, String) {
        self.raft.shutdown().await.unwrap();
        self.server.abort();
        assert!((&mut self.server).await.is_err_and(|error| error.is_cancelled()));
        (self.options.clone(), self.addr.clone())
    }

    pub async fn restart(self) -> Self {
        let (options, addr) = self.stop().await;
        Self::try_start(options, &addr).await.unwrap()
    }

    pub fn status(&self) -> Status {
        self.raft.status().borrow().clone()
    }

    pub async fn wait(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.raft.status();
        let result = tokio::time::timeout(
            Duration::from_secs(20),
            status.wait_for(|status| condition(status)),
        )
        .await;
        match result {
            Ok(Ok(status)) => status.clone(),
            Ok(Err(_)) => panic!("manager {} ended while waiting for {what}", self.id),
            Err(_) => panic!("manager {} waits in vain for {what}: {:?}", self.id, self.status()),
        }
    }

    pub async fn propose(&self, command: impl Into<String>) -> u64 {
        self.raft.propose(Bytes::from(command.into())).await.unwrap().0
    }
}

/// Managers 1 to `count`, the first of them leading.
pub async fn cluster(root: &Path, count: u64, adjust: impl Fn(&mut Options)) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        let mut options = options(id, root);
        adjust(&mut options);
        nodes.push(Node::start(options).await);
    }
    nodes[0].raft.bootstrap(nodes[0].addr.clone()).await.unwrap();
    for node in &nodes[1..] {
        nodes[0].raft.add_voter(node.id, node.addr.clone()).await.unwrap();
    }
    for node in &nodes {
        node.wait("all voters and a leader", |status| {
            status.voters.len() as u64 == count && status.leader.is_some()
        })
        .await;
    }
    nodes
}

/// Waits until one of the managers leads, and returns its place.
pub async fn leader(nodes: &[Node]) -> usize {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let leads = |node: &Node| node.status().role == swarm_raft::Role::Leader;
        if let Some(place) = nodes.iter().position(leads) {
            return place;
        }
        assert!(tokio::time::Instant::now() < deadline, "no leader");
        tokio::time::sleep(Duration::from_millis(10)).await; // before the roles are looked at again
    }
}

/// Waits until a condition on something without events holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await; // before the condition is looked at again
    }
}

pub fn disk_usage(dir: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![dir.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += meta.len();
            }
        }
    }
    bytes
}
