//! A container as an OCI `config.json`, with Docker's defaults (moby `oci/defaults.go`, `oci/caps/defaults.go`).
//!
//! There is no seccomp profile: libcontainer applies one only with its `libseccomp` feature, which needs a C library.

use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::{Bundle, Manifest};
use crate::cgroup::Cgroup;
use crate::spec::ContainerSpec;
use crate::user::User;

/// Docker's default for images that set no `PATH`.
pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The whole `config.json`.
pub(crate) fn config(bundle: &Bundle, manifest: &Manifest, user: &User) -> Value {
    let spec = &manifest.spec;
    let cgroup = &manifest.cgroup;
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
        json!({"type": "network", "path": spec.netns}),
    ];
    let mut read_only = READ_ONLY.to_vec();
    if cgroup.is_v2() {
        namespaces.push(json!({"type": "cgroup"}));
    } else {
        read_only.push("/sys/fs/cgroup");
    }
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": bundle.rootfs()},
        "hostname": spec.effective_hostname(),
        "process": process(&spec.args, &environment(spec, user), &cwd(spec), user, cgroup),
        "mounts": mounts(bundle, cgroup),
        "annotations": spec.labels,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup.path,
            "resources": resources(spec),
            "maskedPaths": MASKED,
            "readonlyPaths": read_only,
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
        },
    })
}

/// The `process` object, of a container or of an exec.
pub(crate) fn process(
    args: &[String],
    env: &[String],
    cwd: &str,
    user: &User,
    cgroup: &Cgroup,
) -> Value {
    // Without a device filter (v1's devices controller) the right to make device nodes is a way to the host's disks.
    let granted: Vec<&str> =
        CAPABILITIES.into_iter().filter(|c| *c != "CAP_MKNOD" || !cgroup.is_v2()).collect();
    let none: &[&str] = &[];
    // As execve(2) leaves it for those who are not root.
    let active = if user.uid == 0 { granted.as_slice() } else { none };
    json!({
        "terminal": false,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups, "umask": 0o022},
        "args": args,
        "env": env,
        "cwd": cwd,
        "noNewPrivileges": false,
        // Not the daemon's, which may be protected from the OOM killer.
        "oomScoreAdj": 0,
        "capabilities": {
            "bounding": granted, "effective": active, "permitted": active, "inheritable": none, "ambient": none,
        },
    })
}

/// The container's working directory.
pub(crate) fn cwd(spec: &ContainerSpec) -> String {
    if spec.cwd.is_empty() { "/".into() } else { spec.cwd.clone() }
}

/// The container's environment, defaults first; of doubled names the last wins.
pub(crate) fn environment(spec: &ContainerSpec, user: &User) -> Vec<String> {
    let defaults = [
        DEFAULT_PATH.into(),
        format!("HOSTNAME={}", spec.effective_hostname()),
        format!("HOME={}", user.home),
    ];
    merge_environment(&defaults, &spec.env)
}

/// `base` with `over` laid over it: later values replace earlier ones in place.
pub(crate) fn merge_environment(base: &[String], over: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut merged: Vec<String> = Vec::with_capacity(base.len() + over.len());
    for entry in base.iter().chain(over) {
        match merged.iter_mut().find(|m| name(m) == name(entry)) {
            Some(earlier) => earlier.clone_from(entry),
            None => merged.push(entry.clone()),
        }
    }
    merged
}

fn resources(spec: &ContainerSpec) -> Value {
    // libcgroups allows the standard devices after this on v1.
    let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
    if let Some(bytes) = spec.memory_limit {
        resources["memory"] = json!({"limit": bytes});
    }
    if let Some(nano_cpus) = spec.cpu_limit {
        const PERIOD: i64 = 100_000;
        // The kernel takes no quota below a millisecond.
        let quota = (i128::from(nano_cpus) * i128::from(PERIOD) / 1_000_000_000).max(1_000);
        resources["cpu"] = json!({"quota": quota as i64, "period": PERIOD});
    }
    if let Some(limit) = spec.pids_limit {
        resources["pids"] = json!({"limit": limit});
    }
    resources
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn bind(destination: &str, source: &Path, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

fn mounts(bundle: &Bundle, cgroup: &Cgroup) -> Vec<Value> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    mounts.extend(cgroup_mounts(cgroup));
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    mounts.push(mount(
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    ));
    for file in ["hosts", "hostname", "resolv.conf"] {
        mounts.push(bind(&format!("/etc/{file}"), &bundle.dir.join(file), &["bind"]));
    }
    mounts
}

/// The container's own cgroup, read only. On v1 these are bind mounts of our own: libcontainer would make them writable.
fn cgroup_mounts(cgroup: &Cgroup) -> Vec<Value> {
    const SAFE: [&str; 4] = ["nosuid", "noexec", "nodev", "ro"];
    if cgroup.is_v2() {
        return vec![mount("/sys/fs/cgroup", "cgroup", "cgroup", &SAFE)];
    }
    let mut mounts = vec![mount(
        "/sys/fs/cgroup",
        "tmpfs",
        "tmpfs",
        &["nosuid", "noexec", "nodev", "mode=755", "size=64k"],
    )];
    for (hierarchy, dir) in cgroup.dirs() {
        let name = hierarchy.file_name().unwrap_or_default().to_string_lossy();
        mounts.push(bind(
            &format!("/sys/fs/cgroup/{name}"),
            &dir,
            &["bind", "nosuid", "noexec", "nodev", "ro"],
        ));
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_keeps_order_and_the_last_value() {
        let base = ["PATH=/bin".to_owned(), "HOME=/".into()];
        let over = ["X=1".to_owned(), "PATH=/sbin".into(), "X=2".into()];
        assert_eq!(merge_environment(&base, &over), ["PATH=/sbin", "HOME=/", "X=2"]);
    }
}
