//! Learning of containers' ends from their shims, and taking over containers after a restart of the daemon.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use crate::bundle::{Bundle, Manifest, RunState, read_json, write_exit};
use crate::cgroup::Cgroup;
use crate::error::{FileContext, RuntimeError};
use crate::process::{ProcessId, Watched, signal_unless_ended};
use crate::runtime::{Container, Inner, blocking};
use crate::spec::{ContainerSpec, ContainerState, Exit, Started, validate_id};

/// Watches a running container's shim; its end is the container's.
pub(crate) fn watch(container: Arc<Container>, shim: Watched) {
    tokio::spawn(async move {
        if let Err(e) = shim.ended().await {
            tracing::error!("watch the shim of container {}: {e}", container.id);
        }
        let (bundle, cgroup) = (container.bundle.clone(), container.cgroup.clone());
        let exit =
            match blocking(move || exit_status(&bundle, &cgroup, "its shim was killed")).await {
                Ok(exit) => exit,
                Err(e) => lost(&format!("its exit status is unknown: {e}")),
            };
        container.state.send_replace(ContainerState::Exited(exit));
    });
}

fn lost(reason: &str) -> Exit {
    Exit {
        code: 128 + libc::SIGKILL,
        signal: Some(libc::SIGKILL),
        oom_killed: false,
        finished_at: SystemTime::now(),
        error: Some(format!("container lost: {reason}")),
    }
}

/// What was written down of a container's end. A broken file is none: it must not keep the others from being adopted.
fn written_exit(bundle: &Bundle) -> Option<Exit> {
    read_json(&bundle.exit()).unwrap_or_else(|e| {
        tracing::warn!("cannot tell how a container ended: {e}");
        None
    })
}

/// How a container without a shim ended. If nobody wrote it down, what is left of it is killed, and that is written down.
fn exit_status(bundle: &Bundle, cgroup: &Cgroup, reason: &str) -> Result<Exit, RuntimeError> {
    if let Some(exit) = written_exit(bundle) {
        return Ok(exit);
    }
    cgroup.destroy()?;
    let exit = lost(reason);
    if bundle.dir.exists() {
        write_exit(bundle, &exit)?;
    }
    Ok(exit)
}

/// What was found of a container.
enum Found {
    Running { shim: OwnedFd, init: Option<OwnedFd>, started: Started },
    Exited(Exit),
}

/// Takes over every container in the directories that is not known yet.
pub(crate) async fn adopt(inner: &Arc<Inner>) -> Result<(), RuntimeError> {
    let directories = inner.clone();
    for id in blocking(move || ids(&directories)).await? {
        if inner.get(&id).is_ok() {
            continue;
        }
        let (context, name) = (inner.clone(), id.clone());
        let (container, found) = blocking(move || look(&context, &name)).await?;
        let container = Arc::new(container);
        let shim =
            match found {
                Found::Exited(exit) => {
                    container.state.send_replace(ContainerState::Exited(exit));
                    None
                }
                Found::Running { shim, init, started } => {
                    container.set_init(init);
                    container.state.send_replace(ContainerState::Running(started));
                    let watched = Watched::new(shim);
                    Some(watched.map_err(|source| RuntimeError::System {
                        action: "watch a shim",
                        source,
                    })?)
                }
            };
        if inner.add(container.clone())
            && let Some(shim) = shim
        {
            watch(container, shim);
        }
    }
    Ok(())
}

/// Names in both directories: after a restart of the machine a container has left only what is on disk.
fn ids(inner: &Inner) -> Result<BTreeSet<String>, RuntimeError> {
    let mut ids = BTreeSet::new();
    for dir in [&inner.options.run_dir, &inner.options.state_dir] {
        for entry in fs::read_dir(dir).at("list", dir)? {
            let name = entry.at("list", dir)?.file_name();
            // Anything else was not made by us.
            ids.extend(name.into_string().ok().filter(|n| validate_id(n).is_ok()));
        }
    }
    Ok(ids)
}

fn look(inner: &Inner, id: &str) -> Result<(Container, Found), RuntimeError> {
    let bundle = inner.bundle(id);
    // A broken manifest must not keep the others from being adopted.
    let manifest: Option<Manifest> = read_json(&bundle.manifest()).unwrap_or_else(|e| {
        tracing::warn!("adopt container {id}: {e}");
        None
    });
    let in_manifest = manifest.as_ref().map(|m| m.cgroup.clone());
    let spec =
        manifest.map_or_else(|| ContainerSpec { id: id.into(), ..Default::default() }, |m| m.spec);
    let mut container = Container::new(inner, &spec, ContainerState::Starting)?;
    if let Some(cgroup) = in_manifest {
        container.cgroup = cgroup;
    }
    let found = match living_shim(&container.bundle)? {
        Some(shim) => look_at_living(&container, shim)?,
        None => Found::Exited(exit_status(
            &container.bundle,
            &container.cgroup,
            absence(&container.bundle),
        )?),
    };
    Ok((container, found))
}

/// Why a container may have neither shim nor exit status.
fn absence(bundle: &Bundle) -> &'static str {
    match (bundle.dir.exists(), bundle.run_state().exists()) {
        (false, _) => "the node was restarted",
        (true, false) => "the daemon ended while it was being started",
        (true, true) => "its shim was killed",
    }
}

fn look_at_living(container: &Container, shim: OwnedFd) -> Result<Found, RuntimeError> {
    let bundle = &container.bundle;
    if let Some(exit) = written_exit(bundle) {
        return Ok(Found::Exited(exit));
    }
    let Some(run) = read_json::<RunState>(&bundle.run_state())? else {
        signal_unless_ended(&shim, libc::SIGKILL).at("kill the shim of", &bundle.dir)?;
        return exit_status(bundle, &container.cgroup, absence(bundle)).map(Found::Exited);
    };
    let init = run.init.open().at("watch the container of", &bundle.dir)?;
    Ok(Found::Running {
        shim,
        init,
        started: Started { pid: run.init.pid, started_at: run.started_at },
    })
}

/// The shim's pidfd, if it lives: it holds its lock, and the process named there is the one meant.
fn living_shim(bundle: &Bundle) -> Result<Option<OwnedFd>, RuntimeError> {
    let path = bundle.lock();
    let lock = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at("open", &path)?,
    };
    match lock.try_lock() {
        Ok(()) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).at("test the lock", &path),
        Err(TryLockError::WouldBlock) => match read_json::<ProcessId>(&path)? {
            Some(shim) => shim.open().at("watch the shim of", &bundle.dir),
            None => Ok(None),
        },
    }
}
