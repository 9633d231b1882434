//! Kernel parameters of a network namespace. `/proc/sys/net` shows the namespace of the *reading thread*, so call this inside one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// A parameter below `/proc/sys`, as a path, and the value it must have.
pub(crate) type Setting = (&'static str, &'static str);

/// What a network's namespace needs before its links are made; new interfaces inherit the `default` values.
/// `ip_forward` comes first: writing it resets others.
pub(crate) const NETWORK: &[Setting] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
];

/// What the network's bridge must have, as [`NETWORK`] does not reach an interface that exists.
pub(crate) const NETWORK_BRIDGE: &[Setting] =
    &[("net/ipv4/conf/br0/send_redirects", "0"), ("net/ipv4/conf/br0/rp_filter", "0")];

/// Networks are IPv4 only; without this every link would send router solicitations and MLD reports. Absent on a kernel without IPv6.
pub(crate) const NO_IPV6: &[Setting] =
    &[("net/ipv6/conf/all/disable_ipv6", "1"), ("net/ipv6/conf/default/disable_ipv6", "1")];

/// Task interfaces have no IPv6; the loopback keeps `::1`, which programs expect.
pub(crate) const TASK_NO_IPV6: &[Setting] = &[("net/ipv6/conf/default/disable_ipv6", "1")];

/// As Docker: ping and low ports without capabilities, for the namespace is the task's own.
pub(crate) const TASK: &[Setting] =
    &[("net/ipv4/ping_group_range", "0 2147483647"), ("net/ipv4/ip_unprivileged_port_start", "0")];

/// The host forwards between the egress bridge and its other interfaces.
pub(crate) const HOST: &[Setting] = &[("net/ipv4/ip_forward", "1")];

/// Thousands of endpoints must fit into the neighbour tables.
const NEIGHBOUR_LIMITS: &[(&str, u64)] = &[
    ("net/ipv4/neigh/default/gc_thresh1", 8192),
    ("net/ipv4/neigh/default/gc_thresh2", 32768),
    ("net/ipv4/neigh/default/gc_thresh3", 65536),
];

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// Writes those settings that differ; the number written.
pub(crate) fn ensure(settings: &[Setting]) -> Result<usize, Error> {
    let mut written = 0;
    for (key, wanted) in settings {
        let path = path(key);
        let now = fs::read_to_string(&path).map_err(|e| Error::file("read sysctl", &path, e))?;
        if !now.split_whitespace().eq(wanted.split_whitespace()) {
            fs::write(&path, wanted).map_err(|e| Error::file("write sysctl", &path, e))?;
            written += 1;
        }
    }
    Ok(written)
}

/// As [`ensure`], but a parameter that this kernel does not have is skipped.
pub(crate) fn ensure_if_present(settings: &[Setting]) -> Result<usize, Error> {
    settings.iter().try_fold(0, |written, setting| match ensure(&[*setting]) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(written),
        other => other.map(|n| written + n),
    })
}

/// Raises the neighbour table limits where they are lower. Permanent entries do not count against them since Linux 5.0
/// (net/core/neighbour.c, `neigh_alloc`); older kernels and learned entries do. Only the initial namespace shows them.
pub(crate) fn raise_neighbour_limits() -> Result<usize, Error> {
    let mut written = 0;
    for (key, wanted) in NEIGHBOUR_LIMITS {
        let path = path(key);
        let now = match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(|e| Error::file("read sysctl", &path, e))?,
        };
        if now.trim().parse::<u64>().is_ok_and(|n| n < *wanted) {
            fs::write(&path, wanted.to_string())
                .map_err(|e| Error::file("write sysctl", &path, e))?;
            written += 1;
        }
    }
    Ok(written)
}

/// Whether bridged frames can be handed to netfilter in this namespace.
pub(crate) fn has_bridge_netfilter() -> bool {
    path("net/bridge/bridge-nf-call-iptables").exists()
}
