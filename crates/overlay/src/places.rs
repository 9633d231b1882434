//! Which namespaces this node has, a connection to each, and whose turn it is to change one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_netns::Namespace;
use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;

use crate::netns;
use crate::reaper::Reaper;
use crate::rtnl::Rtnl;
use crate::{Error, message};

/// What is on this node, by id; made by this process or by one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    /// Networks, sorted.
    pub networks: Vec<String>,
    /// Tasks with a sandbox, sorted.
    pub sandboxes: Vec<String>,
}

/// A namespace and a connection to it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) netns: Namespace,
    pub(crate) rtnl: Arc<Rtnl>,
    pub(crate) reaper: Arc<Reaper>,
}

impl Place {
    fn new(netns: Namespace, rtnl: Rtnl) -> Self {
        Self { netns, rtnl: Arc::new(rtnl), reaper: Arc::default() }
    }

    pub(crate) async fn connect(netns: Namespace) -> Result<Self, Error> {
        let runtime = Handle::current();
        let rtnl = netns.run(move || Rtnl::open(&runtime)).await??;
        Ok(Self::new(netns, rtnl))
    }

    /// Makes a namespace at `path`; `prepare` runs inside before anybody sees it.
    pub(crate) async fn create(
        path: PathBuf,
        prepare: fn() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let runtime = Handle::current();
        let inside = move || prepare().and_then(|()| Rtnl::open(&runtime));
        let (netns, rtnl) = netns::create(&path, inside).await?;
        Ok(Self::new(netns, rtnl))
    }

    /// Deletes one link, if it is there.
    pub(crate) async fn delete_link(&self, name: &str) -> Result<(), Error> {
        self.reaper.delete(&self.rtnl, name).await
    }

    /// Deletes every link but the loopback.
    pub(crate) async fn delete_links(&self, object: &str) -> Result<(), Error> {
        let links = self.rtnl.links().await?;
        let names: Vec<String> =
            links.into_iter().map(|link| link.name).filter(|name| name != "lo").collect();
        self.rtnl.apply(object, message::delete_links(&names)).await
    }
}

/// A network's connection, kept open, and the turn of those who change the network.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) turn: AsyncMutex<()>,
    pub(crate) open: AsyncMutex<Option<Place>>,
}

/// All namespaces of this node.
#[derive(Debug)]
pub(crate) struct Places {
    folder: PathBuf,
    host: AsyncMutex<Place>,
    networks: Mutex<HashMap<String, Arc<Slot>>>,
    /// One builder or remover per task at a time.
    tasks: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
}

impl Places {
    pub(crate) fn new(folder: PathBuf, host: Place) -> Self {
        Self {
            folder,
            host: AsyncMutex::new(host),
            networks: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub(crate) fn network_path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("n-{id}"))
    }

    pub(crate) fn sandbox_path(&self, task: &str) -> PathBuf {
        self.folder.join(format!("t-{task}"))
    }

    pub(crate) fn slot(&self, network: &str) -> Arc<Slot> {
        lock(&self.networks).entry(network.to_owned()).or_default().clone()
    }

    pub(crate) fn task_turn(&self, task: &str) -> Arc<AsyncMutex<()>> {
        lock(&self.tasks).entry(task.to_owned()).or_default().clone()
    }

    pub(crate) fn forget_network(&self, network: &str, slot: &Arc<Slot>) {
        forget(&self.networks, network, slot);
    }

    pub(crate) fn forget_task(&self, task: &str, turn: &Arc<AsyncMutex<()>>) {
        forget(&self.tasks, task, turn);
    }

    /// The host's namespace; opened anew if the connection broke.
    pub(crate) async fn host(&self) -> Result<Place, Error> {
        let mut host = self.host.lock().await;
        if host.rtnl.is_closed() {
            *host = Place::connect(host.netns.clone()).await?;
        }
        Ok(host.clone())
    }

    /// The network's namespace; opened anew if it was replaced or the connection broke.
    pub(crate) async fn network(&self, slot: &Slot, id: &str) -> Result<Option<Place>, Error> {
        let mut open = slot.open.lock().await;
        let Some(netns) = Namespace::find(&self.network_path(id))? else {
            *open = None;
            return Ok(None);
        };
        match &*open {
            Some(place)
                if place.netns.identity() == netns.identity() && !place.rtnl.is_closed() => {}
            _ => *open = Some(Place::connect(netns).await?),
        }
        Ok(open.clone())
    }

    pub(crate) fn list(&self) -> Result<Existing, Error> {
        let failed = |e| Error::file("list folder", &self.folder, e);
        let mut existing = Existing::default();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let (list, id) = match name.to_str().and_then(|name| name.split_once('-')) {
                Some(("n", id)) => (&mut existing.networks, id),
                Some(("t", id)) => (&mut existing.sandboxes, id),
                _ => continue,
            };
            if Namespace::find(&entry.path())?.is_some() {
                list.push(id.to_owned());
            }
        }
        existing.networks.sort_unstable();
        existing.sandboxes.sort_unstable();
        Ok(existing)
    }
}

/// Drops a map's entry, unless somebody else waits for it: they would work beside whoever makes the next one.
fn forget<T>(map: &Mutex<HashMap<String, Arc<T>>>, key: &str, mine: &Arc<T>) {
    let mut map = lock(map);
    // One in the map, one in the caller.
    if Arc::strong_count(mine) <= 2 {
        map.remove(key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Guarded maps are changed by single inserts and removes, so a poisoned one is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
