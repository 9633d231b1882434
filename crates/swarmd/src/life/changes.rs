//! The changes of a life that take time. Each takes what it changes, and gives back what has become of it.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use swarm_pki::{UnlockKey, load_roots};
use swarm_proto::control::{InitRequest, InitResponse, JoinRequest, JoinResponse};
use swarm_worker::Standing;
use time::OffsetDateTime;

use super::state::{Life, Outcome};
use crate::daemon::{OrderError, Reply};
use crate::locked::LockedNode;
use crate::node::{Host, Node};
use crate::{alone, membership, moved, roles, twin, voter};

/// A host whose node did not come up: the node is tried again if it is still on disk.
fn without_node(host: &Host, why: &anyhow::Error) -> Life {
    match host.files.load() {
        Ok(None) => Life::Nothing,
        Ok(Some(_)) | Err(_) => Life::Failed(format!("{why:#}")),
    }
}

/// Begins a swarm.
pub(super) async fn init(
    host: Arc<Host>,
    request: InitRequest,
    reply: Reply<InitResponse>,
) -> Outcome {
    match membership::init(&host, request).await {
        Ok((node, response)) => Outcome::answering(Life::Node(Box::new(node)), reply, Ok(response)),
        Err(e) => Outcome::answering(without_node(&host, &e), reply, Err(e.into())),
    }
}

/// Joins a swarm.
pub(super) async fn join(
    host: Arc<Host>,
    request: JoinRequest,
    reply: Reply<JoinResponse>,
) -> Outcome {
    match membership::join(&host, request).await {
        Ok((node, response)) => Outcome::answering(Life::Node(Box::new(node)), reply, Ok(response)),
        Err(e) => Outcome::answering(without_node(&host, &e), reply, Err(e.into())),
    }
}

/// Leaves the swarm.
pub(super) async fn leave(host: Arc<Host>, node: Box<Node>, reply: Reply<()>) -> Outcome {
    left(&host, membership::leave(&host, *node).await, reply)
}

/// Leaves the swarm without its knowledge.
pub(super) async fn leave_locked(
    host: Arc<Host>,
    node: Box<LockedNode>,
    reply: Reply<()>,
) -> Outcome {
    left(&host, node.clear(&host).await, reply)
}

fn left(host: &Host, result: Result<()>, reply: Reply<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::answering(Life::Nothing, reply, Ok(())),
        Err(e) => Outcome::answering(without_node(host, &e), reply, Err(e.into())),
    }
}

/// Goes on as the only manager.
pub(super) async fn go_on_alone(
    host: Arc<Host>,
    node: Box<Node>,
    request: InitRequest,
    reply: Reply<InitResponse>,
) -> Outcome {
    match alone::go_on(&host, *node, request).await {
        Ok((node, response)) => {
            Outcome::answering(Life::Node(Box::new(node)), reply, response.map_err(Into::into))
        }
        Err(e) => {
            let e = e.context("this node is stopped, its services go on; it is started again");
            Outcome::answering(without_node(&host, &e), reply, Err(e.into()))
        }
    }
}

/// Goes on as the manager that was locked; it is locked again if it cannot.
pub(super) async fn unlock(
    host: Arc<Host>,
    node: Box<LockedNode>,
    key: Option<UnlockKey>,
    reply: Reply<()>,
) -> Outcome {
    let Some(key) = key else {
        return Outcome::answering(Life::Locked(node), reply, Err(OrderError::InvalidKey));
    };
    let vault = Arc::clone(host.files.vault());
    let opened = tokio::task::spawn_blocking(move || vault.unlock(&key)).await;
    match opened.context("the unlock key was not tried").and_then(|opened| opened) {
        Ok(true) => {}
        Ok(false) => {
            return Outcome::answering(Life::Locked(node), reply, Err(OrderError::InvalidKey));
        }
        Err(e) => return Outcome::answering(Life::Locked(node), reply, Err(e.into())),
    }
    let config = node.config.clone();
    node.shutdown().await;
    let e = match resume(&host).await {
        Ok(life) => return Outcome::answering(life, reply, Ok(())),
        Err(e) => e,
    };
    host.files.vault().close();
    let life = match LockedNode::start(&host, config).await {
        Ok(node) => Life::Locked(Box::new(node)),
        Err(e) => without_node(&host, &e),
    };
    Outcome::answering(life, reply, Err(e.into()))
}

/// Starts the node that did not start, and says why if it does not again and for another reason.
pub(super) async fn start_again(host: Arc<Host>, said: String) -> Outcome {
    Outcome::of(resume(&host).await.unwrap_or_else(|e| {
        let life = without_node(&host, &e);
        if let Life::Failed(why) = &life
            && *why != said
        {
            tracing::warn!("this node cannot start: {why}");
        }
        life
    }))
}

/// Ends the node and starts it at the address that this host has now, if it is another.
pub(super) async fn move_on(host: Arc<Host>, node: Box<Node>) -> Outcome {
    let moved = match moved::look(&node.config).await {
        Ok(Some(moved)) => moved,
        // What whoever saw it move saw is past.
        Ok(None) => return Outcome::of(Life::Node(node)),
        Err(e) => {
            tracing::warn!("{e:#}");
            return Outcome::of(Life::Node(node));
        }
    };
    moved::tell(&node.config, &moved);
    if let Err(e) = host.files.save(&moved) {
        tracing::warn!("cannot go on at this host's new address: {e:#}");
        return Outcome::of(Life::Node(node));
    }
    if let Err(e) = node.shutdown().await {
        tracing::warn!("the node ended badly: {e:#}");
    }
    start_again(host, String::new()).await
}

/// Makes the node what its swarm says it is.
pub(super) async fn adapt(host: Arc<Host>, mut node: Box<Node>, standing: Standing) -> Outcome {
    if let Err(e) = roles::adapt(&host, &mut node, &standing).await {
        tracing::warn!("cannot change this node's role yet: {e:#}");
    }
    Outcome::of(Life::Node(node))
}

/// Brings the node up that this host was before.
pub(super) async fn resume(host: &Host) -> Result<Life> {
    let Some(config) = host.files.load()? else { return Ok(Life::Nothing) };
    let lost = |what: &str| {
        let dir = host.state_dir.display();
        format!("this node has lost {what}: remove {dir}/node.json, then let it join again")
    };
    if config.raft_id.is_some() && !host.files.has_raft() {
        // With an empty log it would vote twice in one term, and confirm what it does not have.
        let hostname = &host.hostname;
        bail!(
            "{}; on another manager: swarmctl node rm --force {hostname}",
            lost("its part of the swarm's state, which it had as a manager")
        );
    }
    if config.raft_id.is_some() && host.files.vault().is_locked()? {
        let config = moved::now(config).await;
        return Ok(Life::Locked(Box::new(LockedNode::start(host, config).await?)));
    }
    let identity = host.files.vault().load_identity(OffsetDateTime::now_utc())?;
    let identity = identity.with_context(|| lost("its certificate"))?;
    let roots =
        load_roots(&host.files.pki())?.with_context(|| lost("its swarm's root certificate"))?;
    // At the address it had: on another host it would find another one.
    twin::refuse(&config, &identity, &roots, &host.state_dir).await?;
    let now = moved::now(config.clone()).await;
    if now != config {
        host.files.save(&now)?;
    }
    let (mut node, _) = Node::start(host, now, identity, roots, None).await?;
    if let Some(rest) = voter::complete(&node) {
        node.spawn(rest);
    }
    Ok(Life::Node(Box::new(node)))
}
