//! How this host becomes a node of a swarm (`init`, `join`) and ceases to be one (`leave`).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use swarm_manager::NewCluster;
use swarm_model::{
    ClusterId, ClusterSpec, EngineDescription, Id, ManagerAddress, NodeId, ipv4_net, overlap,
};
use swarm_pki::{
    Connector, ConnectorOptions, Credentials, ExpectedPeer, JoinToken, NODE_CERT_VALIDITY,
    NodeIdentity, Role, RootCa, RootCert, fetch_root, new_key_and_csr, save_roots,
};
use swarm_proto::control::{InitRequest, InitResponse, JoinRequest, JoinResponse};
use swarm_proto::membership::membership_client::MembershipClient;
use swarm_proto::membership::{Empty, IssueRequest, IssueResponse};
use time::OffsetDateTime;

use crate::addresses::{Addresses, Given, SWARM_PORT, local_towards};
use crate::config::{NodeConfig, NodeFiles};
use crate::node::{Host, Node};
use crate::voter;

/// How long the manager that is joined may take for each step.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a manager that leaves tries to tell the leader.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(10);
/// The pause before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Begins a swarm.
pub(crate) async fn init(host: &Host, request: InitRequest) -> Result<(Node, InitResponse)> {
    let given = Given {
        advertise: &request.advertise_addr,
        listen: &request.listen_addr,
        data_path: &request.data_path_addr,
    };
    let addresses = Addresses::choose(given, None).await?;
    let spec = cluster_spec(&request)?;
    let now = OffsetDateTime::now_utc();
    let ca = RootCa::generate(ClusterId::from_random(rand::random()).as_str(), now)?;
    let node_id = NodeId::from_random(rand::random());
    let (key, csr) = new_key_and_csr()?;
    let chain = ca.issue(&csr, node_id.as_str(), Role::Manager, now, NODE_CERT_VALIDITY)?;
    let identity = NodeIdentity::from_pem(&chain, &key)?;
    let config = NodeConfig {
        advertise_addr: addresses.advertise.to_string(),
        listen_addr: addresses.listen.to_string(),
        data_path_addr: addresses.data_path,
        interface: Some(addresses.interface),
        data_path_port: spec.data_path_port,
        raft_id: Some(1),
        managers: Vec::new(),
        takes_over: false,
    };
    let roots = vec![ca.cert().clone()];
    let new = NewCluster { ca, spec, hostname: host.hostname.clone() };
    host.files.forget()?; // what an interrupted attempt left
    let started = async {
        store(&host.files, &identity, &roots)?;
        Node::start(host, config.clone(), identity, roots, Some(new)).await
    };
    let (node, tokens) = undo_unless(host, started.await)?;
    // From here on a restart finds the swarm.
    let saved = host.files.save(&config).and_then(|()| tokens.context("there are no join tokens"));
    let tokens = match saved {
        Ok(tokens) => tokens,
        Err(e) => return Err(abandon(host, node, e).await),
    };
    let unlock_key = match lock_first(host, &node) {
        Ok(unlock_key) => unlock_key,
        Err(e) => return Err(abandon(host, node, e).await),
    };
    let response = InitResponse {
        node_id: node_id.to_string(),
        worker_token: tokens.worker,
        manager_token: tokens.manager,
        addr: config.advertise_addr,
        unlock_key,
    };
    Ok((node, response))
}

/// Locks the first manager before its user is told that it is; returns the unlock key, if there is one.
fn lock_first(host: &Host, node: &Node) -> Result<String> {
    let manager = node.manager.as_ref().context("this node has no manager")?;
    let cluster = manager.store().read().cluster().cloned();
    let lock = cluster.context("there is no swarm")?.manager_lock.clone();
    host.files.vault().lock(&lock)?;
    Ok(lock.unlock_key.map(|key| key.0).unwrap_or_default())
}

fn cluster_spec(request: &InitRequest) -> Result<ClusterSpec> {
    let mut spec = ClusterSpec::default();
    spec.encryption_config.auto_lock_managers = request.autolock;
    if request.data_path_port != 0 {
        // Docker's range, less one: encrypted networks use the next port.
        let port = u16::try_from(request.data_path_port).ok();
        let port = port.filter(|port| (1024..=49150).contains(port));
        spec.data_path_port = port.context("invalid --data-path-port: use 1024 to 49150")?;
    }
    if !request.default_addr_pool.is_empty() {
        let parse = |text: &String| -> Result<IpNet> {
            let pool = text.parse().map_err(|_| anyhow!("invalid --default-addr-pool {text:?}"))?;
            let pool = ipv4_net("subnet", pool).context("invalid --default-addr-pool")?;
            if pool.trunc() != pool {
                bail!(
                    "invalid --default-addr-pool {pool}: it has host bits set, use {}",
                    pool.trunc()
                );
            }
            Ok(pool.into())
        };
        spec.default_addr_pool =
            request.default_addr_pool.iter().map(parse).collect::<Result<_>>()?;
    }
    if request.default_addr_pool_mask_length != 0 {
        let length = u8::try_from(request.default_addr_pool_mask_length).ok();
        let length = length.filter(|length| (8..=29).contains(length));
        spec.subnet_size =
            length.context("invalid --default-addr-pool-mask-length: use 8 to 29")?;
    }
    for (at, pool) in spec.default_addr_pool.iter().enumerate() {
        if pool.prefix_len() > spec.subnet_size {
            bail!("invalid --default-addr-pool {pool}: smaller than a /{}", spec.subnet_size);
        }
        let others = &spec.default_addr_pool[..at];
        if let Some(other) = others.iter().find(|other| overlap(other, pool)) {
            bail!("invalid --default-addr-pool: {pool} overlaps with {other}");
        }
    }
    Ok(spec)
}

/// Joins a swarm.
pub(crate) async fn join(host: &Host, request: JoinRequest) -> Result<(Node, JoinResponse)> {
    let remote = with_default_port(&request.remote_addr);
    let token: JoinToken = request.token.parse().context("invalid join token")?;
    let given = Given {
        advertise: &request.advertise_addr,
        listen: &request.listen_addr,
        data_path: &request.data_path_addr,
    };
    let towards = remote.clone();
    // Resolving a name may take a while.
    let local = tokio::task::spawn_blocking(move || local_towards(&towards)).await??;
    let addresses = Addresses::choose(given, Some(local)).await?;
    let root = fetch_root(&remote, &token, PATIENCE).await?;
    let (key, csr_pem) = new_key_and_csr()?;
    let engine = EngineDescription::of_this_build();
    let request = IssueRequest {
        token: request.token,
        csr_pem,
        hostname: host.hostname.clone(),
        addr: addresses.advertise.to_string(),
        engine_version: engine.engine_version,
        feature_level: engine.feature_level.number(),
    };
    let answer = issue(&remote, &root, request).await?;
    let identity = NodeIdentity::from_pem(&answer.cert_pem, &key)?;
    let config = config_of(&addresses, &answer)?;
    host.files.forget()?; // what an interrupted attempt left
    let started = async {
        // More than the one of the token while the CA is being rotated.
        let roots = RootCert::list_from_pem(&answer.root_pem)?;
        store(&host.files, &identity, &roots)?;
        Node::start(host, config.clone(), identity.clone(), roots, None).await
    };
    let (node, _) = undo_unless(host, started.await)?;
    if let Err(e) = settle(host, &node, &remote).await {
        if let Err(e) = goodbye_to(&node, &remote).await {
            tracing::warn!("cannot take back the joining: {e:#}");
        }
        return Err(abandon(host, node, e).await);
    }
    let warnings = node.manager.as_ref().map(|manager| manager.handle().warnings());
    let warnings = warnings.unwrap_or_default();
    Ok((node, JoinResponse { node_id: answer.node_id, role: answer.role, warnings }))
}

/// The last step of joining: a restart will find the swarm, and a manager becomes part of its quorum.
async fn settle(host: &Host, node: &Node, remote: &str) -> Result<()> {
    host.files.save(&node.config)?;
    match node.config.raft_id {
        Some(raft_id) => Ok(voter::ask(&node.connector, &node.config, remote, raft_id).await?),
        None => Ok(()),
    }
}

/// Ends a node that could not be completed.
async fn abandon(host: &Host, node: Node, why: anyhow::Error) -> anyhow::Error {
    if let Err(e) = node.clear(host).await {
        tracing::error!("cannot clean up: {e:#}");
    }
    why
}

fn config_of(addresses: &Addresses, answer: &IssueResponse) -> Result<NodeConfig> {
    let own = addresses.advertise.to_string();
    let managers = answer.managers.iter().filter(|member| member.addr != own);
    Ok(NodeConfig {
        advertise_addr: own.clone(),
        listen_addr: addresses.listen.to_string(),
        data_path_addr: addresses.data_path,
        interface: Some(addresses.interface.clone()),
        data_path_port: u16::try_from(answer.data_path_port)
            .context("the manager gave an impossible data path port")?,
        raft_id: (answer.raft_id != 0).then_some(answer.raft_id),
        managers: managers
            .map(|member| ManagerAddress {
                node_id: member.node_id.as_str().into(),
                addr: member.addr.clone(),
            })
            .collect(),
        takes_over: false,
    })
}

async fn issue(remote: &str, root: &RootCert, request: IssueRequest) -> Result<IssueResponse> {
    let credentials = Credentials::new(std::slice::from_ref(root), None)?;
    let anonymous = Connector::new(credentials, ConnectorOptions::default());
    let channel = anonymous.connect(remote, ExpectedPeer::Manager).await?;
    let mut client = MembershipClient::new(channel);
    let answer = tokio::time::timeout(2 * PATIENCE, client.issue(request)).await;
    let answer = answer.with_context(|| format!("the manager at {remote} does not answer"))?;
    Ok(answer.map_err(|e| anyhow!("{}", e.message().to_owned()))?.into_inner())
}

/// Writes a node's certificate and the roots it trusts.
pub(crate) fn store(files: &NodeFiles, identity: &NodeIdentity, roots: &[RootCert]) -> Result<()> {
    let dir = files.pki();
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    save_roots(&dir, roots)?;
    files.vault().save_identity(identity)
}

/// A step that failed leaves nothing behind.
fn undo_unless<T>(host: &Host, result: Result<T>) -> Result<T> {
    if result.is_err()
        && let Err(e) = host.files.forget()
    {
        tracing::error!("cannot clean up: {e:#}");
    }
    result
}

fn with_default_port(addr: &str) -> String {
    if let Ok(ip) = addr.trim_matches(['[', ']']).parse::<IpAddr>() {
        return SocketAddr::new(ip, SWARM_PORT).to_string();
    }
    let has_port = addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { addr.to_owned() } else { format!("{addr}:{SWARM_PORT}") }
}

/// What `leave` without `--force` answers on a manager; none if it may go.
pub(crate) fn objection(node: &Node) -> Option<String> {
    let manager = node.manager.as_ref()?;
    let about = "this node is a manager of the swarm";
    if manager.is_last() {
        return Some(format!(
            "{about}, the last one: leaving erases all state of the swarm; use --force to do it"
        ));
    }
    let left = manager.raft().status().borrow().voters.len() - 1;
    let (s, majority) = (if left == 1 { "" } else { "s" }, left / 2 + 1);
    Some(format!(
        "{about}: {left} manager{s} would be left, of which {majority} must be reachable; use --force to leave"
    ))
}

/// Leaves the swarm; tells it, if a manager can be reached.
pub(crate) async fn leave(host: &Host, node: Node) -> Result<()> {
    if let Err(e) = say_goodbye(&node).await {
        tracing::warn!("leaving without the swarm's knowledge: {e:#}");
    }
    node.clear(host).await
}

async fn say_goodbye(node: &Node) -> Result<()> {
    let Some(manager) = &node.manager else { return goodbye(node).await };
    if manager.is_last() {
        return Ok(());
    }
    if let Err(e) = manager.step_down().await {
        tracing::warn!("leaving as the leader: {e}");
    }
    // The swarm must learn of it: a manager that is gone, but counts for the quorum, may cost the quorum.
    let deadline = Instant::now() + GOODBYE_PATIENCE;
    loop {
        match goodbye(node).await {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() >= deadline => return Err(e),
            Err(e) => tracing::info!("cannot leave yet: {e:#}"),
        }
        tokio::time::sleep(RETRY_PAUSE).await; // leadership may be changing
    }
}

/// Tells the leader, if this node knows it, or else any manager.
async fn goodbye(node: &Node) -> Result<()> {
    let leader =
        node.manager.as_ref().and_then(|manager| manager.raft().status().borrow().leader.clone());
    let managers: Vec<String> = match leader {
        Some(leader) => vec![leader.addr],
        None => node.worker.managers().all().into_iter().map(|manager| manager.addr).collect(),
    };
    let mut last = anyhow!("no manager is known");
    for addr in managers {
        match goodbye_to(node, &addr).await {
            Ok(()) => return Ok(()),
            Err(e) => last = e,
        }
    }
    Err(last)
}

async fn goodbye_to(node: &Node, addr: &str) -> Result<()> {
    let channel = node.connector.connect(addr, ExpectedPeer::Manager).await?;
    let mut client = MembershipClient::new(channel);
    let answer = tokio::time::timeout(2 * PATIENCE, client.leave(Empty {})).await;
    answer.with_context(|| format!("the manager at {addr} does not answer"))??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_pools_are_checked() {
        let refusal = |pools: &[&str]| {
            let pools = pools.iter().map(ToString::to_string).collect();
            let request = InitRequest { default_addr_pool: pools, ..InitRequest::default() };
            cluster_spec(&request).err().map(|e| format!("{e:#}"))
        };
        assert_eq!(refusal(&["10.20.0.0/16", "10.30.0.0/16"]), None);
        for (pools, line) in [
            (["10.0.0.0/8", "x"], "invalid --default-addr-pool \"x\""),
            (
                ["10.0.0.0/8", "fd00::/8"],
                "invalid --default-addr-pool: subnet fd00::/8 is IPv6, which is not served yet",
            ),
            (
                ["10.0.0.0/8", "10.9.0.1/16"],
                "invalid --default-addr-pool 10.9.0.1/16: it has host bits set, use 10.9.0.0/16",
            ),
            (
                ["10.0.0.0/8", "10.9.0.0/16"],
                "invalid --default-addr-pool: 10.9.0.0/16 overlaps with 10.0.0.0/8",
            ),
        ] {
            assert_eq!(refusal(&pools).as_deref(), Some(line));
        }
    }

    #[test]
    fn the_port_of_a_manager_may_be_left_out() {
        for (given, meant) in [
            ("192.0.2.1", "192.0.2.1:2377"),
            ("192.0.2.1:99", "192.0.2.1:99"),
            ("host", "host:2377"),
            ("host:99", "host:99"),
            ("2001:db8::1", "[2001:db8::1]:2377"),
            ("[2001:db8::1]", "[2001:db8::1]:2377"),
            ("[2001:db8::1]:99", "[2001:db8::1]:99"),
        ] {
            assert_eq!(with_default_port(given), meant, "{given}");
        }
    }
}
