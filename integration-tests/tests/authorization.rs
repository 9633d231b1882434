//! Who may call what on a node's port: every RPC there is, with every kind of certificate, against a real `swarmd`.
//! The RPCs come from the protobuf descriptors: a new one fails here until it is in the table.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut};
use prost::Message;
use prost_types::FileDescriptorSet;
use swarm_integration_tests::Cluster;
use swarm_model::{EngineDescription, NodeDescription, codec};
use swarm_netns::Namespace;
use swarm_pki::{
    Connector, ConnectorOptions, Credentials, ExpectedPeer, NODE_CERT_VALIDITY, NodeIdentity, Role,
    RootCa, RootCert, new_key_and_csr,
};
use swarm_proto::dispatch::{Describe, FromNode, from_node};
use swarm_proto::membership::IssueRequest;
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_state::State;
use time::OffsetDateTime;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Whom an RPC is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// It is for the local socket.
    Nobody,
    /// Nodes that are managers now, whatever they were.
    Managers,
    /// Nodes that were not removed.
    Nodes,
    /// Also hosts without a certificate: what they send is their proof.
    Anyone,
}

/// Every RPC, by service.
const TABLE: [(&str, May, &str); 10] = [
    ("raft.Raft", May::Managers, "Append Heartbeat Vote Snapshot TransferLeader ReadIndex"),
    ("membership.Peer", May::Managers, "Propose ReportSessions"),
    ("membership.Membership", May::Anyone, "Issue"),
    ("membership.Membership", May::Nodes, "Renew Leave"),
    ("membership.Membership", May::Managers, "BecomeVoter"),
    ("dispatch.Dispatcher", May::Nodes, "Session"),
    ("taskio.TaskIo", May::Managers, "Logs Exec"),
    (
        "control.Control",
        May::Managers,
        "JoinToken ListNodes InspectNode RemoveNode CreateNetwork ListNetworks InspectNetwork RemoveNetwork \
         PruneNetworks RotateNetworkKeys CreateService UpdateService ScaleService ListServices InspectService \
         RemoveService WatchService ListTasks InspectTask Logs Exec UpdateNode Backup",
    ),
    ("control.Control", May::Managers, "RotateRoot InspectRoot UpdateSwarm UnlockKey"),
    ("control.Node", May::Nobody, "Init Join Leave Unlock Info LoadImage ListImages RemoveImage"),
];

/// `package.Service/Method`, and whom it is for.
fn table() -> Vec<(String, May)> {
    let rpcs = TABLE.iter().flat_map(|(service, may, methods)| {
        methods.split(' ').map(move |method| (format!("swarm.v1.{service}/{method}"), *may))
    });
    rpcs.collect()
}

/// Every RPC there is.
fn described() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(swarm_proto::FILE_DESCRIPTORS).expect("descriptors");
    let mut rpcs = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            let name = |method: &str| format!("{}.{}/{method}", file.package(), service.name());
            rpcs.extend(service.method.iter().map(|method| name(method.name())));
        }
    }
    rpcs
}

#[test]
fn every_rpc_is_in_the_table() {
    let rpcs: BTreeSet<String> = table().into_iter().map(|(rpc, _)| rpc).collect();
    assert_eq!(rpcs, described(), "decide for whom a new RPC is, and write it into the table");
    assert_eq!(rpcs.len(), table().len(), "one is there twice");
}

/// Messages as they are on the wire: so that any RPC can be called.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// An empty request, of which nothing follows; but where who asks is looked at after what.
fn request(rpc: &str) -> Vec<u8> {
    if !rpc.ends_with("/Session") {
        return Vec::new();
    }
    let description = NodeDescription {
        hostname: "probe".into(),
        listen_addr: "192.0.2.9:2377".into(),
        ..NodeDescription::default()
    };
    let describe =
        Describe { description: codec::encode(&description).into(), addr: "192.0.2.9".into() };
    FromNode { message: Some(from_node::Message::Describe(describe)) }.encode_to_vec()
}

async fn call(channel: &Channel, rpc: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::try_from(format!("/{rpc}")).expect("a path");
    let messages = tokio_stream::iter([request(rpc)]);
    let answer = client.streaming(Request::new(messages), path, Raw);
    let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
    answer.unwrap_or_else(|_| panic!("{rpc} does not answer")).map(drop)
}

/// Whether the caller was let through, whatever was said of the request then.
fn is_let_through(rpc: &str, answer: &Result<(), Status>) -> bool {
    let Err(status) = answer else { return true };
    let about_role = [
        "is a worker, not a manager",
        "is a manager no more",
        "is not part of the swarm",
        "was removed from the swarm",
    ];
    let text = status.message();
    let of_caller = text.starts_with("node ") && about_role.iter().any(|part| text.contains(part));
    match status.code() {
        Code::Unauthenticated | Code::Unimplemented => false,
        Code::PermissionDenied | Code::FailedPrecondition => !of_caller,
        Code::InvalidArgument | Code::NotFound | Code::Aborted => true,
        _ => panic!("{rpc}: {status}"),
    }
}

struct Port {
    addr: String,
    root: RootCert,
}

impl Port {
    fn connector(&self, identity: Option<NodeIdentity>) -> Connector {
        let credentials = Credentials::new(std::slice::from_ref(&self.root), identity);
        Connector::new(credentials.expect("a root"), ConnectorOptions::default())
    }

    async fn channel(&self, identity: Option<NodeIdentity>) -> Channel {
        let connected = self.connector(identity).connect(&self.addr, ExpectedPeer::Manager).await;
        connected.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Joins, but never does what a node does.
    async fn join(&self, token: String) -> NodeIdentity {
        let (key, csr_pem) = new_key_and_csr().expect("a key");
        let request = IssueRequest {
            token,
            csr_pem,
            hostname: "probe".into(),
            addr: "192.0.2.9:2377".into(),
            ..IssueRequest::default()
        };
        let mut client = MembershipClient::new(self.channel(None).await);
        let answer = client.issue(request).await.expect("a certificate").into_inner();
        NodeIdentity::from_pem(&answer.cert_pem, &key).expect("a certificate")
    }
}

fn issue(ca: &RootCa, id: &str, issued: OffsetDateTime, days: i64) -> NodeIdentity {
    let (key, csr) = new_key_and_csr().expect("a key");
    let validity = time::Duration::days(days).min(NODE_CERT_VALIDITY);
    let chain = ca.issue(&csr, id, Role::Manager, issued, validity).expect("a certificate");
    NodeIdentity::from_pem(&chain, &key).expect("a certificate")
}

/// The swarm's authority, out of a backup.
fn authority(cluster: &Cluster) -> RootCa {
    let file = cluster.node(1).state_dir().join("backup-of-test");
    cluster.ctl(&format!("backup {}", file.display()));
    let bytes = std::fs::read(&file).expect("a backup");
    // Between its head and its checksum it is a snapshot.
    let state = State::open(&bytes[32..bytes.len() - 4], &EngineDescription::of_this_build());
    let state = state.expect("a snapshot");
    let ca = &state.cluster().expect("a cluster").root_ca;
    RootCa::from_pem(&ca.cert_pem, &ca.key_pem).expect("an authority")
}

/// Who calls, what that may call, and why not the rest: by its certificate, or else by what the swarm knows.
struct Caller<'a> {
    name: &'a str,
    identity: Option<NodeIdentity>,
    lets: &'a [May],
    reasons: &'a [&'a str],
}

impl<'a> Caller<'a> {
    fn new(
        name: &'a str,
        identity: Option<NodeIdentity>,
        lets: &'a [May],
        reasons: &'a [&'a str],
    ) -> Self {
        Caller { name, identity, lets, reasons }
    }
}

async fn check(cluster: &Cluster, port: &Port) {
    let token = |role: &str| cluster.ctl(&format!("join-token -q {role}")).trim().to_owned();
    let own = cluster.node(1).state_dir().join("pki");
    let own = NodeIdentity::load(&own, OffsetDateTime::now_utc()).expect("a file").expect("one");
    let worker = port.join(token("worker")).await;
    let demoted = port.join(token("manager")).await;
    let removed = port.join(token("manager")).await;
    cluster.ctl(&format!("node demote {}", demoted.node_id()));
    cluster.ctl(&format!("node rm --force {}", removed.node_id()));

    let now = OffsetDateTime::now_utc();
    let own_id = own.node_id();
    let other = RootCa::generate(own.cluster_id(), now).expect("an authority");
    let strangers = [
        ("expired", issue(&authority(cluster), own_id, now - time::Duration::days(3), 1)),
        ("of another cluster", issue(&other, own_id, now, 1)),
    ];
    for (kind, identity) in strangers {
        let refused = port.connector(Some(identity)).connect(&port.addr, ExpectedPeer::Any).await;
        let refused = refused.err().unwrap_or_else(|| panic!("a certificate {kind} is accepted"));
        assert!(refused.to_string().contains("refused this node's certificate"), "{refused}");
    }

    let gone = &["is not part of the swarm", "was removed from the swarm", "is a manager no more"];
    let all = [May::Anyone, May::Nodes, May::Managers];
    // The last one may do what it likes: afterwards the swarm may be another.
    let callers = [
        Caller::new("without a certificate", None, &all[..1], &["certificate is required"]),
        Caller::new("removed manager", Some(removed), &all[..1], gone),
        Caller::new("worker", Some(worker), &all[..2], &["is a worker, not a manager"]),
        Caller::new("demoted manager", Some(demoted), &all[..2], &["is a manager no more"]),
        Caller::new("manager", Some(own), &all, &[]),
    ];
    for Caller { name: caller, identity, lets, reasons } in callers {
        let channel = port.channel(identity).await;
        let mut wrong = Vec::new();
        for (rpc, may) in table() {
            let answer = call(&channel, &rpc).await;
            let right = match &answer {
                Err(status) if may == May::Nobody => status.code() == Code::Unimplemented,
                Err(status) if !lets.contains(&may) => {
                    let given = |reason: &&str| status.message().contains(reason);
                    !is_let_through(&rpc, &answer) && reasons.iter().any(given)
                }
                _ => is_let_through(&rpc, &answer) == lets.contains(&may),
            };
            if !right {
                wrong.push(format!("{rpc} is for {may:?}: {answer:?}"));
            }
        }
        assert!(wrong.is_empty(), "{caller}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn each_rpc_is_for_whom_the_table_says() {
    let cluster = Cluster::with("authz", |options| options.nodes = 1);
    let node = cluster.node(1);
    let port = Port {
        addr: format!("{}:2377", node.address()),
        root: RootCert::from_pem(&cluster.ctl("ca")).expect("the root"),
    };
    let pid = node.daemon_pid().expect("a process").expect("one that runs");
    let host = Namespace::open(format!("/proc/{pid}/ns/net").as_ref()).expect("the host's network");
    let calls = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(check(&cluster, &port));
    };
    host.run_blocking(calls).expect("to enter the host");
}
