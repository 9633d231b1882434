//! What `swarmd` does when it is told to balance with IPVS, which a kernel has or lacks. Needs root and `nft`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use swarm_balancer::{Preference, choose};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that ends with this value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended on its own; then the test says so.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_node_balances_with_ipvs_or_says_what_its_kernel_lacks_and_does_not_start() {
    let chosen = choose(Preference::Ipvs).await;
    // The kernel's own word: asked for IPVS just now, it has loaded the module if there is one.
    let has_ipvs = Path::new("/proc/net/ip_vs").exists();
    let dir = tempfile::tempdir().unwrap();
    let (state, run) = (dir.path().join("state"), dir.path().join("run"));
    let mut swarmd = Command::new(env!("CARGO_BIN_EXE_swarmd"));
    swarmd.args([Path::new("--state-dir"), &state, Path::new("--run-dir"), &run]);
    swarmd.args(["--balancer", "ipvs"]);
    match chosen {
        Ok(_) => {
            assert!(has_ipvs, "IPVS is chosen on a kernel without it");
            let mut daemon = Daemon(swarmd.stdout(Stdio::null()).spawn().unwrap());
            let began = Instant::now();
            while !run.join("swarmd.sock").exists() {
                assert_eq!(daemon.0.try_wait().unwrap(), None, "it has ended");
                assert!(began.elapsed() < PATIENCE, "it does not serve");
                std::thread::sleep(Duration::from_millis(20)); // before the socket is looked for again
            }
        }
        Err(missing) => {
            assert!(!has_ipvs, "the kernel has IPVS, yet {missing}");
            let output = swarmd.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert_eq!(said, format!("error: cannot balance with --balancer ipvs: {missing}\n"));
            assert!(said.contains("this kernel has no ipvs"), "{said}");
            assert!(!state.exists() && !run.exists(), "it has begun");
        }
    }
}
