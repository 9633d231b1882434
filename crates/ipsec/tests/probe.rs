//! What a kernel without IPsec says. In the VM, where there is one, `tests/kernel.rs` asks the same.

use swarm_ipsec::{Ipsec, Unsupported};

/// CI's kernel has no ESP; a developer's may.
#[tokio::test]
async fn a_kernel_without_esp_says_what_it_lacks() {
    let Err(lacking) = Ipsec::probe(None).await else { return };
    println!("{lacking:?}: {lacking}");
    assert!(matches!(lacking, Unsupported::Xfrm | Unsupported::Esp), "{lacking:?}");
}

#[tokio::test]
async fn a_namespace_that_is_none_is_named() {
    let error = Ipsec::probe(Some("/nosuch/netns".as_ref())).await.unwrap_err().to_string();
    assert!(error.contains("open network namespace /nosuch/netns: No such file"), "{error}");
}
