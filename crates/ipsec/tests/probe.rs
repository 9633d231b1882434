//! What the probe says of a kernel, beside what iproute2 hears from it. CI's kernel lacks what encrypted networks need; in
//! the VM, where it is there, `tests/kernel` asks the same.

use std::process::Command;

use swarm_ipsec::{Ipsec, Unsupported};

/// A network namespace that goes with this value.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("ipsec-probe-{}", std::process::id());
        let (made, said) = ip(&format!("netns add {name}"));
        assert!(made, "{said}");
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // If it stays, `ip netns` shows it.
        ip(&format!("netns del {}", self.0));
    }
}

/// Whether iproute2 succeeds, and what it says.
fn ip(line: &str) -> (bool, String) {
    let output = Command::new("ip").args(line.split_whitespace()).output().expect("iproute2");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn the_probe_finds_what_iproute2_finds() {
    let namespace = Namespace::new();
    let name = &namespace.0;
    let probed = Ipsec::probe(Some(format!("/run/netns/{name}").as_ref())).await;
    let (listed, left) = ip(&format!("-n {name} xfrm state"));
    let (has, said) = ip(&format!(
        "-n {name} xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x5001 reqid 1 mode transport \
         aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"
    ));
    println!("{probed:?}; iproute2: {has} {said}");
    match probed {
        Ok(()) => assert!(has && listed, "the kernel refuses it: {said}"),
        Err(Unsupported::Xfrm | Unsupported::Esp | Unsupported::Cipher) => {
            assert!(!has, "the kernel has it, yet the probe says {probed:?}");
        }
        Err(other) => panic!("{other:?}: {other}"),
    }
    assert!(!listed || left.is_empty(), "the probe leaves behind {left}");
}

#[tokio::test]
async fn a_namespace_that_is_none_is_named() {
    let error = Ipsec::probe(Some("/nosuch/netns".as_ref())).await.unwrap_err().to_string();
    assert!(error.contains("open network namespace /nosuch/netns: No such file"), "{error}");
}
