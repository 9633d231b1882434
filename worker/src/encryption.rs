//! The encrypted networks of a node: from its view to what its IPsec should hold, in an order in which
//! nothing of them ever leaves in clear.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex as StdMutex, PoisonError};

use swarm_ipsec::{Changes, Desired, Ipsec, Key, Sa, Tunnel};
use swarm_model::{
    ESP_CIPHER, EspKey, Item, NodeEncryption, NodeView, SecurityAssociation, TunnelView,
};
use tokio::sync::{Mutex, watch};

/// A node's part in encrypted networks.
pub struct Encryption {
    local: IpAddr,
    port: u16,
    /// Or why there is none.
    ipsec: Result<Ipsec, String>,
    /// The incarnations that this process was. Keys made for another one may have been used by this kernel
    /// before it was restarted.
    incarnations: StdMutex<BTreeSet<u64>>,
    /// What the kernel holds, unless it drifted; none if that is not known.
    programmed: Mutex<Option<Desired>>,
}

impl Encryption {
    /// Finds out whether this node can encrypt. `port` is that of networks without encryption.
    pub async fn open(state_dir: &Path, local: IpAddr, port: u16) -> Encryption {
        match port.checked_add(1) {
            Some(port) => Encryption::new(local, port, open_ipsec(state_dir).await),
            None => Encryption::none(local, "there is no UDP port after the data path's".into()),
        }
    }

    fn new(local: IpAddr, port: u16, ipsec: Result<Ipsec, String>) -> Encryption {
        match &ipsec {
            Ok(_) => tracing::info!("encrypted networks use {ESP_CIPHER}"),
            Err(reason) => tracing::info!("no encrypted networks: {reason}"),
        }
        Encryption {
            local,
            port,
            ipsec,
            incarnations: StdMutex::default(),
            programmed: Mutex::new(None),
        }
    }

    /// Of a node that cannot, and why.
    pub fn none(local: IpAddr, reason: String) -> Encryption {
        Encryption::new(local, 0, Err(reason))
    }

    /// What managers are told.
    pub(crate) fn describe(&self) -> NodeEncryption {
        match &self.ipsec {
            Ok(ipsec) => NodeEncryption {
                cipher: ESP_CIPHER.to_owned(),
                reason: String::new(),
                incarnation: *ipsec.incarnation().borrow(),
            },
            Err(reason) => NodeEncryption { reason: reason.clone(), ..NodeEncryption::default() },
        }
    }

    /// Hears when managers must be told anew.
    pub(crate) fn incarnation(&self) -> Option<watch::Receiver<u64>> {
        self.ipsec.as_ref().ok().map(Ipsec::incarnation)
    }

    /// Before encrypted networks of `view` are programmed: blocks their port, and opens it to the nodes that
    /// there are keys for. The error says why they must not be programmed.
    pub(crate) async fn guard(&self, view: &NodeView, audit: bool) -> Result<(), String> {
        let ports = encrypted_ports(view);
        if ports.is_empty() {
            return Ok(()); // what there was stays blocked until it is gone
        }
        let ipsec = self.ipsec.as_ref().map_err(Clone::clone)?;
        if let Some(port) = ports.iter().find(|port| **port != self.port) {
            return Err(format!("its UDP port is {port}, and not {}", self.port));
        }
        self.program(ipsec, self.desired(view, ipsec), audit).await
    }

    /// After the networks were programmed: with no encrypted one left, nothing is blocked any more.
    pub(crate) async fn relax(&self, view: &NodeView, audit: bool) -> Result<(), String> {
        let Ok(ipsec) = &self.ipsec else { return Ok(()) };
        let never = self.programmed.lock().await.is_none();
        if !encrypted_ports(view).is_empty() || (never && !audit) {
            return Ok(());
        }
        let nothing =
            Desired { local: self.local, port: self.port, deny: false, tunnels: Vec::new() };
        self.program(ipsec, nothing, audit).await
    }

    /// Removes all traces: the node leaves the swarm.
    pub(crate) async fn destroy(&self) -> Result<(), String> {
        let Ok(ipsec) = &self.ipsec else { return Ok(()) };
        *self.programmed.lock().await = None;
        ipsec.destroy().await.map_err(|e| e.to_string())
    }

    async fn program(&self, ipsec: &Ipsec, desired: Desired, audit: bool) -> Result<(), String> {
        let mut programmed = self.programmed.lock().await;
        let known = programmed.take();
        let same = known.as_ref() == Some(&desired);
        if same && !audit {
            *programmed = known;
            return Ok(());
        }
        let changes = ipsec.program(&desired).await.map_err(|e| e.to_string())?;
        if same {
            report_drift(&changes);
        }
        *programmed = Some(desired);
        Ok(())
    }

    fn desired(&self, view: &NodeView, ipsec: &Ipsec) -> Desired {
        let mut incarnations = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner);
        incarnations.insert(*ipsec.incarnation().borrow());
        let tunnels = tunnels(view).map(|view| tunnel(view, &incarnations)).collect();
        Desired { local: self.local, port: self.port, deny: true, tunnels }
    }
}

async fn open_ipsec(state_dir: &Path) -> Result<Ipsec, String> {
    Ipsec::probe(None)
        .await
        .map_err(|lacking| format!("needs {lacking}, which this node's kernel lacks"))?;
    // The view with its keys outlives a reboot, so what was spent of them must too.
    let options = swarm_ipsec::Options { dir: state_dir.to_owned(), host_netns: None };
    Ipsec::open(options).await.map_err(|e| e.to_string())
}

fn report_drift(changes: &Changes) {
    if !changes.is_empty() {
        tracing::warn!(
            "the keys and policies of encrypted networks had drifted, repaired: {changes}"
        );
    }
}

/// The UDP ports of the encrypted networks.
fn encrypted_ports(view: &NodeView) -> BTreeSet<u16> {
    // A view may hold thousands of other items: networks come first.
    let networks = view.items.values().map_while(|item| match item {
        Item::Network(network) => Some(network),
        _ => None,
    });
    networks.filter(|network| network.encrypted).map(|network| network.port).collect()
}

/// The tunnels.
fn tunnels(view: &NodeView) -> impl Iterator<Item = &TunnelView> {
    view.items.values().filter_map(|item| match item {
        Item::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    })
}

/// Without keys that were made for another life of this kernel: it may have sent with them.
fn tunnel(view: &TunnelView, incarnations: &BTreeSet<u64>) -> Tunnel {
    let ours = incarnations.contains(&view.incarnation);
    let receiving = view.receiving.iter().filter(|_| ours).map(association);
    Tunnel {
        remote: view.vtep,
        reqid: view.reqid,
        sending: ours.then(|| association(&view.sending)),
        receiving: receiving.collect(),
    }
}

fn association(view: &SecurityAssociation) -> Sa {
    let EspKey(key) = view.key;
    Sa { spi: view.spi, key: Key::new(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_model::{ItemKey, NetworkView, codec};

    fn network(id: &str, port: u16, encrypted: bool) -> (ItemKey, Item) {
        let view = NetworkView {
            name: id.into(),
            vni: 4097,
            port,
            subnet: "10.0.1.0/24".parse().unwrap(),
            gateway: [10, 0, 1, 1].into(),
            mtu: 1416,
            internal: false,
            encrypted,
        };
        (ItemKey::Network(id.into()), Item::Network(view))
    }

    fn peer(id: &str, incarnation: u64) -> (ItemKey, Item) {
        let association = |spi| SecurityAssociation { spi, key: EspKey([9; 20]) };
        let tunnel = TunnelView {
            vtep: [192, 0, 2, 2].into(),
            reqid: 2,
            incarnation,
            sending: association(1 << 31),
            receiving: vec![association(1 << 31 | 1), association(1 << 31 | 2)],
        };
        (ItemKey::Tunnel(id.into()), Item::Tunnel(tunnel))
    }

    fn view(items: impl IntoIterator<Item = (ItemKey, Item)>) -> NodeView {
        NodeView { items: items.into_iter().collect() }
    }

    #[tokio::test]
    async fn a_node_that_cannot_encrypt_refuses_encrypted_networks_and_no_others() {
        let encryption = Encryption::none([192, 0, 2, 1].into(), "no kernel here".into());
        let plain = view([network("a", 4789, false)]);
        assert_eq!(encryption.guard(&plain, false).await, Ok(()));
        assert_eq!(encryption.relax(&plain, true).await, Ok(()));
        let both = view([network("a", 4789, false), network("b", 4790, true), peer("n", 1)]);
        assert_eq!(encryption.guard(&both, false).await, Err("no kernel here".into()));
        assert_eq!(encryption.describe().reason, "no kernel here");
    }

    #[tokio::test]
    async fn without_a_port_of_their_own_there_are_no_encrypted_networks() {
        let dir = tempfile::tempdir().unwrap();
        let encryption = Encryption::open(dir.path(), [192, 0, 2, 1].into(), u16::MAX).await;
        assert!(!encryption.describe().is_capable());
        assert!(encryption.describe().reason.contains("no UDP port"));
    }

    #[test]
    fn ports_and_tunnels_are_found_among_all_items() {
        let view = view([
            network("a", 4789, false),
            network("b", 4790, true),
            network("z", 4790, true),
            peer("n1", 1),
            peer("n2", 1),
        ]);
        assert_eq!(encrypted_ports(&view), BTreeSet::from([4790]));
        assert_eq!(tunnels(&view).count(), 2);
        let copy: NodeView = codec::decode(&codec::encode(&view)).unwrap();
        assert_eq!(copy, view);
    }

    #[test]
    fn keys_of_a_former_life_of_the_kernel_are_not_used_again() {
        let (_, Item::Tunnel(told)) = peer("n", 7) else { unreachable!() };
        let used = tunnel(&told, &BTreeSet::from([6, 7]));
        assert_eq!((used.sending.map(|sa| sa.spi), used.receiving.len()), (Some(1 << 31), 2));
        let unused = tunnel(&told, &BTreeSet::from([8]));
        assert_eq!((unused.sending, unused.receiving.len(), unused.reqid), (None, 0, 2));
    }
}
