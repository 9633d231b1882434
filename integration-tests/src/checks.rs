//! Named checks on one cluster: each is reported by its name, a failed one does not keep the others from being run, and
//! what it made is removed before the next.

use crate::{Cluster, eventually};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A check: its name and what it does.
pub type Check = (&'static str, fn(&Cluster));

/// Runs functions of a [`Cluster`], each under its own name: `checks!(&cluster, dns, balancing)`.
#[macro_export]
macro_rules! checks {
    ($cluster:expr, $($check:ident),+ $(,)?) => {
        $crate::checks::run($cluster, &[$((stringify!($check), $check as fn(&$crate::Cluster))),+])
    };
}

/// Runs all checks; services and networks that a check made are removed after it. `SWARM_CHECK=NAME` runs only that one.
///
/// # Panics
/// When one failed, naming all that did; what each said is above it.
pub fn run(cluster: &Cluster, checks: &[Check]) {
    let only = std::env::var("SWARM_CHECK").ok();
    let kept = Made::list(cluster);
    let mut failed = Vec::new();
    for (name, check) in
        checks.iter().filter(|(name, _)| only.as_deref().is_none_or(|o| o == *name))
    {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            check(cluster);
            Made::list(cluster).remove_but(&kept, cluster);
        }));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!("check {name}: {word} ({:.1} s)", started.elapsed().as_secs_f64());
        if outcome.is_err() {
            failed.push(*name);
            // The next one shall find a clean swarm; that it does not is told by its own failure.
            let _ =
                catch_unwind(AssertUnwindSafe(|| Made::list(cluster).remove_but(&kept, cluster)));
        }
    }
    assert!(failed.is_empty(), "failed checks: {}", failed.join(", "));
}

/// Ids of all services and networks.
struct Made {
    services: BTreeSet<String>,
    networks: BTreeSet<String>,
}

impl Made {
    fn list(cluster: &Cluster) -> Self {
        let ids = |line: &str| cluster.ctl(line).split_whitespace().map(str::to_owned).collect();
        Self {
            services: ids("service ls -q --no-trunc"),
            networks: ids("network ls -q --no-trunc --filter driver=overlay"),
        }
    }

    fn remove_but(&self, kept: &Self, cluster: &Cluster) {
        for id in self.services.difference(&kept.services) {
            cluster.ctl(&format!("service rm {id}"));
        }
        for id in self.networks.difference(&kept.networks) {
            // Tasks of a removed service hold their networks until they have ended.
            eventually("removal of a network", || {
                let output = cluster.ctl_output(&format!("network rm {id}"));
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() { Ok(()) } else { Err(said) }
            });
        }
    }
}
