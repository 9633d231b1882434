//! The Debian packages that tests need; only those that are missing are installed, without starting a server.

use crate::run::{output, succeeds};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Network tools, servers to put into images, and what a playground is made with.
const PACKAGES: [&str; 13] = [
    "nftables",
    "iproute2",
    "iputils-ping",
    "tcpdump",
    "curl",
    "docker-registry",
    "nginx-light",
    "redis-server",
    "busybox-static",
    "iperf3",
    "conntrack",
    "util-linux",
    "procps",
];

/// What the VM needs: an emulator, what unpacks its kernel, and what its tests call.
const VM_PACKAGES: [&str; 14] = [
    "qemu-system-x86",
    "kmod",
    "dmsetup",
    "e2fsprogs",
    "busybox-static",
    "xz-utils",
    "zstd",
    "iproute2",
    "nftables",
    "conntrack",
    "ipvsadm",
    "systemd",
    "tcpdump",
    "procps",
];

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what tests need and is missing; says what it does only then.
pub(crate) fn install() -> Result<()> {
    install_missing(&PACKAGES)
}

/// Installs what the VM needs and is missing.
pub(crate) fn install_for_vm() -> Result<()> {
    install_missing(&VM_PACKAGES)
}

fn install_missing(packages: &[&str]) -> Result<()> {
    if !succeeds(Command::new("apt-get").arg("--version")) {
        println!("no apt-get here: these must be there already: {}", packages.join(" "));
        return Ok(());
    }
    let missing: Vec<&str> =
        packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    let _policy = NoServers::forbid()?;
    output(apt_get().args(["update", "-qq"]))?;
    output(apt_get().args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing))?;
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    output(&mut query).is_ok_and(|status| status == "installed")
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// A policy-rc.d that forbids maintainer scripts to start servers, unless the machine has a policy of its own.
struct NoServers {
    ours: bool,
}

impl NoServers {
    fn forbid() -> Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            // 101: "action forbidden by policy" (invoke-rc.d).
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")
                .with_context(|| format!("cannot write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("cannot make {POLICY} executable"))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServers {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}: {error}");
        }
    }
}
