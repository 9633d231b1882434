//! The step between the machine and the host: a process that leaves the machine's namespaces and spawns PID 1 in new ones.

use super::{HOST_COMMAND, HostSpec};
use crate::error::IoContext;
use crate::process::ProcessId;
use crate::{Error, Result};
use nix::sched::{CloneFlags, unshare};
use std::path::Path;
use std::process::Command;

/// Spawns the host's init and writes down who it is. The caller's stdio becomes that of the host.
pub(super) fn run(spec: &HostSpec, spec_file: &Path) -> Result<()> {
    nix::unistd::setsid().io("start a session for", &spec.hostname)?;
    std::env::set_current_dir("/").io("change to", "/")?;
    // The cgroup of this moment becomes the root of the new cgroup namespace.
    join(&spec.cgroup_root_files)?;
    // Not the mount namespace: init makes its own, so that this process still sees the machine's /proc and /run.
    let namespaces = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).io("make namespaces for", &spec.hostname)?;
    join(&spec.cgroup_member_files)?;
    let exe = std::env::current_exe().io("find", "the running executable")?;
    let init = Command::new(&exe)
        .args([HOST_COMMAND, "init"])
        .arg(spec_file)
        .spawn()
        .io("run", exe.display())?;
    // A parent sees its child's pid as in its own namespace, which is that of the machine.
    let pid = i32::try_from(init.id()).map_err(std::io::Error::other).io("use pid", init.id())?;
    let init = ProcessId::of(pid).ok_or_else(|| Error::Boot {
        node: spec.hostname.clone(),
        reason: "its init ended at once".to_owned(),
        log: String::new(),
    })?;
    let json = serde_json::to_vec(&init).map_err(std::io::Error::from);
    let file = spec.init_file.as_path();
    std::fs::write(file, json.io("encode", file.display())?).io("write", file.display())
}

/// Moves this process into the cgroups of these `cgroup.procs` files ("0" is the writer).
fn join(files: &[std::path::PathBuf]) -> Result<()> {
    for file in files {
        std::fs::write(file, "0").io("join cgroup", file.display())?;
    }
    Ok(())
}
