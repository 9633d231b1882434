//! `swarmd restore`: makes this host the first manager of a swarm as it was saved by `swarmctl backup`.

use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use swarm_manager::members::authority;
use swarm_manager::replica::backup::{self, Backup};
use swarm_model::{Cluster, Id, NodeId};
use swarm_pki::{NODE_CERT_VALIDITY, NodeIdentity, Role, RootCert, new_key_and_csr};
use time::OffsetDateTime;

use crate::addresses::{Addresses, Given};
use crate::args::Restore;
use crate::config::{NodeConfig, NodeFiles};
use crate::membership::store;
use crate::node::keep_private;

/// Restores into the state directory, all or nothing; says what it found.
pub(crate) async fn run(state_dir: &Path, run_dir: &Path, args: Restore) -> Result<String> {
    let shown = args.file.display();
    if UnixStream::connect(run_dir.join("swarmd.sock")).is_ok() {
        bail!("cannot restore while swarmd runs here: end it first");
    }
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot create {}", state_dir.display()))?;
    let files = NodeFiles::new(state_dir);
    if files.is_of_a_node() {
        bail!(
            "cannot restore into {}: it is the state of a node; use an empty --state-dir",
            state_dir.display()
        );
    }
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {shown}"))?;
    let backup = backup::decode(&bytes).with_context(|| format!("cannot restore {shown}"))?;
    let cluster = backup.state.cluster().cloned();
    let cluster = cluster.with_context(|| format!("cannot restore {shown}: no swarm is in it"))?;
    let given = Given {
        advertise: args.advertise_addr.as_deref().unwrap_or_default(),
        listen: args.listen_addr.as_deref().unwrap_or_default(),
        data_path: args.data_path_addr.as_deref().unwrap_or_default(),
    };
    let addresses = Addresses::choose(given, None).await?;
    let made_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(backup.made_at.0))?;
    let said = format!(
        "Restored swarm {} as of {} ({} services, {} networks): start swarmd to go on with it.\n\
         Its former managers and workers are not part of it until they can reach this one; let those that cannot leave and join again.",
        cluster.id,
        made_at.replace_nanosecond(0)?,
        backup.state.services().count(),
        backup.state.networks().count(),
    );
    let restored = write(&files, &cluster, addresses, backup).await;
    if restored.is_err() {
        files.forget()?;
    }
    restored.map(|()| said)
}

async fn write(
    files: &NodeFiles,
    cluster: &Cluster,
    addresses: Addresses,
    backup: Backup,
) -> Result<()> {
    let ca = authority::issuing(cluster)?;
    let roots = RootCert::list_from_pem(&cluster.trusted_roots())?;
    let node_id = NodeId::from_random(rand::random());
    let (key, csr) = new_key_and_csr()?;
    let now = OffsetDateTime::now_utc();
    let chain = ca.issue(&csr, node_id.as_str(), Role::Manager, now, NODE_CERT_VALIDITY)?;
    store(files, &NodeIdentity::from_pem(&chain, &key)?, &roots)?;
    let raft_id = backup.state.next_raft_id();
    let addr = addresses.advertise.to_string();
    let state = Bytes::from(backup.snapshot);
    let (dir, revision) = (files.raft(), backup.revision);
    keep_private(&dir)?;
    let key = files.vault().key()?;
    swarm_raft::begin_with(&dir, &key, raft_id, addr.clone(), revision, state).await?;
    // Last: with it the rest begins to count.
    files.save(&NodeConfig {
        advertise_addr: addr,
        listen_addr: addresses.listen.to_string(),
        data_path_addr: addresses.data_path,
        interface: Some(addresses.interface),
        data_path_port: cluster.spec.data_path_port,
        raft_id: Some(raft_id),
        managers: Vec::new(),
        takes_over: true,
    })
}
