//! What a node says of itself when it opens a session, and with which certificate.

use std::net::IpAddr;
use std::sync::Arc;

use swarm_images::Platform;
use swarm_model::{
    EngineDescription, NodeDescription, NodeId, Platform as NodePlatform, Resources, TlsInfo,
};
use swarm_pki::{Connector, RootCert};

use crate::adapters::Overlay;
use crate::encryption::Encryption;
use crate::reporter::Reporter;

/// What a node says of itself, and whom it says it to.
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) addr: String,
    pub(crate) connector: Connector,
    pub(crate) reporter: Reporter,
    pub(crate) hostname: String,
    pub(crate) listen_addr: String,
    pub(crate) vtep: IpAddr,
    pub(crate) balancer: String,
    pub(crate) engine: EngineDescription,
    pub(crate) encryption: Arc<Encryption>,
}

impl Identity {
    /// Of a node that only talks.
    #[cfg(test)]
    pub(crate) fn for_test(connector: Connector) -> Identity {
        Identity {
            node: "n".into(),
            addr: "192.0.2.1".into(),
            connector,
            reporter: Reporter::default(),
            hostname: "host".into(),
            listen_addr: "192.0.2.1:2377".into(),
            vtep: [192, 0, 2, 1].into(),
            balancer: String::new(),
            engine: EngineDescription::of_this_build(),
            encryption: Arc::new(Encryption::none([192, 0, 2, 1].into(), "no kernel here".into())),
        }
    }

    /// What is true now: interfaces and routes change. What cannot be found out is left open.
    pub(crate) async fn describe(&self, overlay: &dyn Overlay) -> NodeDescription {
        let platform = Platform::host();
        let routes = overlay.routes().await;
        let routes = routes.inspect_err(|e| tracing::warn!("cannot list this node's routes: {e}"));
        let underlay_mtu = overlay.underlay_mtu().await;
        let underlay_mtu = underlay_mtu
            .inspect_err(|e| tracing::warn!("cannot tell the MTU of {}: {e}", self.vtep));
        NodeDescription {
            hostname: self.hostname.clone(),
            platform: NodePlatform { architecture: platform.architecture, os: platform.os },
            resources: resources(),
            engine: self.engine.clone(),
            underlay_mtu: underlay_mtu.ok(),
            routes: routes.ok(),
            data_path_addr: Some(self.vtep),
            balancer: self.balancer.clone(),
            listen_addr: self.listen_addr.clone(),
            encryption: self.encryption.describe(),
            tls_info: self.tls_info(),
        }
    }

    /// The certificate it has now, and the roots it trusts.
    pub(crate) fn tls_info(&self) -> TlsInfo {
        let credentials = self.connector.credentials();
        let identity = credentials.identity();
        let issuer = identity.as_ref().and_then(|identity| identity.issuer().cloned());
        TlsInfo {
            trust_root: credentials.roots().iter().map(RootCert::to_pem).collect(),
            cert_issuer_subject: issuer.as_ref().map(|i| i.subject.clone()).unwrap_or_default(),
            cert_issuer_public_key: issuer.map(|i| i.public_key).unwrap_or_default(),
        }
    }
}

/// CPUs and memory of this host.
pub fn resources() -> Resources {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    // MemTotal is the first line of proc(5)'s meminfo, in kB.
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = meminfo.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok());
    Resources { nano_cpus: cpus * 1_000_000_000, memory_bytes: kilobytes.unwrap_or(0) * 1024 }
}
