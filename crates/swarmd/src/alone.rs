//! `init --force-new-cluster`: a manager whose fellows are lost for good goes on alone, with all the state it has.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, bail};
use swarm_proto::control::{InitRequest, InitResponse};
use swarm_raft::{Alone, go_on_alone};

use crate::addresses::{Addresses, Given};
use crate::config::NodeConfig;
use crate::node::{Host, Node};

/// What keeps a node from going on alone, in words; none if it may.
pub(crate) fn objection(node: &Node) -> Option<String> {
    let Some(manager) = &node.manager else {
        let text = "this node is a worker: it has no state to go on with, use --force-new-cluster on a manager that is left";
        return Some(text.into());
    };
    if let Some(why) = manager.store().unreadable() {
        return Some(why.to_owned());
    }
    let status = manager.raft().status().borrow().clone();
    (status.voters.len() > 1 && status.quorum_lost_since.is_none()).then(|| {
        "the swarm has a quorum: a manager that is lost can be removed with \"swarmctl node rm --force\", on another one".to_owned()
    })
}

/// Goes on alone. Containers live on; the node comes back even if the new addresses are of no use.
pub(crate) async fn go_on(
    host: &Host,
    node: Node,
    request: InitRequest,
) -> Result<(Node, Result<InitResponse>)> {
    let config = match addresses(&node.config, &request).await {
        Ok(config) => config,
        Err(e) => return Ok((node, Err(e))),
    };
    let manager = node.manager.as_ref().context("this node is no manager any more")?;
    // First, so that no id that was given out up to here is given out again.
    let applied = manager.raft().status().borrow().last_applied.unwrap_or(0);
    let alone = Alone {
        next_id: manager.store().read().next_raft_id(),
        applied,
        addr: config.advertise_addr.clone(),
    };
    let identity = node.connector.credentials().identity();
    let identity = identity.context("this node has no certificate")?;
    let roots = node.connector.credentials().roots();
    let former = node.config.clone();
    node.shutdown().await?;
    let key = host.files.vault().key()?;
    let raft_id = go_on_alone(&host.files.raft(), &key, alone).await?;
    let on = |config: NodeConfig| NodeConfig {
        raft_id: Some(raft_id),
        takes_over: true,
        managers: Vec::new(),
        ..config
    };
    host.files.save(&on(config.clone()))?;
    let started = Node::start(host, on(config), identity.clone(), roots.clone(), None).await;
    match started {
        Ok((node, _)) => {
            let response = response(&node);
            Ok((node, response))
        }
        Err(e) => {
            host.files.save(&on(former.clone()))?;
            let (node, _) = Node::start(host, on(former), identity, roots, None).await?;
            let e = e.context("it goes on alone at its former addresses: cannot change them");
            Ok((node, Err(e)))
        }
    }
}

/// The configuration with the addresses asked for; what is not given stays.
async fn addresses(config: &NodeConfig, request: &InitRequest) -> Result<NodeConfig> {
    if request.data_path_port != 0
        || !request.default_addr_pool.is_empty()
        || request.default_addr_pool_mask_length != 0
        || request.autolock
    {
        bail!(
            "--force-new-cluster keeps the swarm's settings: only addresses can be given with it"
        );
    }
    let given = Given {
        advertise: &request.advertise_addr,
        listen: &request.listen_addr,
        data_path: &request.data_path_addr,
    };
    let mut config = config.clone();
    if [given.advertise, given.listen, given.data_path].iter().all(|addr| addr.is_empty()) {
        return Ok(config);
    }
    let advertised: SocketAddr =
        config.advertise_addr.parse().context("invalid advertised address")?;
    let addresses = Addresses::choose(given, Some(advertised.ip())).await?;
    if !request.advertise_addr.is_empty() {
        config.advertise_addr = addresses.advertise.to_string();
        config.data_path_addr = addresses.data_path;
        config.interface = Some(addresses.interface.clone());
    }
    if !request.listen_addr.is_empty() {
        config.listen_addr = addresses.listen.to_string();
    }
    if !request.data_path_addr.is_empty() {
        config.data_path_addr = addresses.data_path;
        config.interface = Some(addresses.interface);
    }
    Ok(config)
}

fn response(node: &Node) -> Result<InitResponse> {
    let manager = node.manager.as_ref().context("this node has no manager")?;
    let cluster = manager.store().read().cluster().cloned();
    let tokens = cluster.ok_or_else(|| anyhow!("there are no join tokens"))?.join_tokens.clone();
    Ok(InitResponse {
        node_id: node.id(),
        worker_token: tokens.worker,
        manager_token: tokens.manager,
        addr: node.config.advertise_addr.clone(),
        unlock_key: String::new(),
    })
}
