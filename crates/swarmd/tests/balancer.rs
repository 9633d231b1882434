//! What `swarmd` does when it is told to use a balancer that this kernel lacks. Needs root and `nft`.

use std::path::Path;
use std::process::Command;

use swarm_balancer::{Preference, choose};

#[tokio::test]
async fn a_node_asked_for_what_its_kernel_lacks_says_so_and_does_not_start() {
    let Err(missing) = choose(Preference::Ipvs).await else {
        // Where the kernel has IPVS nothing is lacking; the VM's suites are about that.
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (state, run) = (dir.path().join("state"), dir.path().join("run"));
    let mut swarmd = Command::new(env!("CARGO_BIN_EXE_swarmd"));
    swarmd.args([Path::new("--state-dir"), &state, Path::new("--run-dir"), &run]);
    let output = swarmd.args(["--balancer", "ipvs"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said, format!("error: cannot balance with --balancer ipvs: {missing}\n"));
    assert!(said.contains("this kernel has no ipvs"), "{said}");
    assert!(!state.exists() && !run.exists(), "it has begun");
}
