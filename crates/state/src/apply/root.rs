//! The cluster's authority and its join tokens. A rotation adds the next authority beside the present one, which
//! stays until every node has a certificate of the next.

use swarm_model::{Cluster, JoinTokens, Node, NodeId, RootRotation, TlsInfo};

use super::Context;
use super::node::no_node;
use crate::command::{Rejected, RotateRoot, Touched};
use crate::tables::State;

impl State {
    /// The nodes, live or not, that have no certificate yet of the authority that is to follow; none if none is.
    pub fn without_next_certificate(&self) -> impl Iterator<Item = &Node> {
        let next = self.cluster().and_then(|cluster| cluster.root_rotation.as_ref());
        let nodes = next.into_iter().flat_map(|next| self.nodes().map(move |node| (next, node)));
        nodes.filter_map(|(next, node)| {
            let key = &node.description.tls_info.cert_issuer_public_key;
            (*key != next.issuer_public_key).then_some(&**node)
        })
    }

    pub(super) fn set_join_tokens(
        &mut self,
        cx: &mut Context,
        tokens: JoinTokens,
    ) -> Result<(), Rejected> {
        self.change_cluster(cx, |cluster| {
            // They were made for another authority than the one there is by now.
            if digest(&cluster.join_tokens.worker) != digest(&tokens.worker) {
                return Err(out_of_date());
            }
            // One is replaced at a time: else the other one was, meanwhile.
            let now = &cluster.join_tokens;
            if now.worker != tokens.worker && now.manager != tokens.manager {
                return Err(Rejected::OutOfDate("the join tokens".into()));
            }
            cluster.join_tokens = tokens;
            Ok(())
        })
    }

    pub(super) fn rotate_root(
        &mut self,
        cx: &mut Context,
        next: RotateRoot,
    ) -> Result<(), Rejected> {
        let revision = cx.revision;
        self.change_cluster(cx, |cluster| {
            if cluster.meta.version.index != next.version {
                return Err(out_of_date());
            }
            cluster.root_rotation = Some(RootRotation {
                root_ca: next.root_ca,
                cross_signed_pem: next.cross_signed_pem,
                issuer_public_key: next.issuer_public_key,
                revision,
            });
            cluster.join_tokens = next.join_tokens;
            Ok(())
        })
    }

    pub(super) fn finish_root_rotation(
        &mut self,
        cx: &mut Context,
        revision: u64,
    ) -> Result<(), Rejected> {
        // A node may have joined since that was decided.
        let waits = self.without_next_certificate().next().is_some();
        self.change_cluster(cx, |cluster| match cluster.root_rotation.take() {
            Some(next) if next.revision == revision && !waits => {
                cluster.root_ca = next.root_ca;
                Ok(())
            }
            _ => Err(out_of_date()),
        })
    }

    pub(super) fn set_node_tls(
        &mut self,
        cx: &mut Context,
        id: &NodeId,
        tls_info: TlsInfo,
    ) -> Result<(), Rejected> {
        let mut node = (**self.node(id).ok_or_else(|| no_node(id))?).clone();
        node.description.tls_info = tls_info;
        node.meta.touch(cx.revision, cx.now);
        self.put_node(node);
        cx.touch(Touched::NodeCertificate(id.clone()));
        Ok(())
    }

    pub(super) fn change_cluster(
        &mut self,
        cx: &mut Context,
        change: impl FnOnce(&mut Cluster) -> Result<(), Rejected>,
    ) -> Result<(), Rejected> {
        let current = self.cluster.as_ref();
        let current = current.ok_or_else(|| Rejected::NotFound("the cluster".into()))?;
        let mut cluster = (**current).clone();
        change(&mut cluster)?;
        cluster.meta.touch(cx.revision, cx.now);
        self.cluster = Some(cluster.into());
        cx.touch(Touched::Cluster);
        Ok(())
    }
}

/// The part of a join token that stands for the authority: all but the secret.
fn digest(token: &str) -> &str {
    token.rsplit_once('-').map_or("", |(digest, _)| digest)
}

fn out_of_date() -> Rejected {
    Rejected::OutOfDate("the cluster's CA".into())
}
