//! One inotify descriptor for all followed log directories: the kernel allows few descriptors per user, but many watches.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::sys;

/// Tells followers that something was written in the directory they follow.
#[derive(Debug)]
pub(crate) struct Changes {
    shared: Arc<Shared>,
    reader: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    inotify: AsyncFd<Descriptor>,
    watches: Mutex<HashMap<WatchDescriptor, watch::Sender<()>>>,
}

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// One follower's interest in one directory.
#[derive(Debug)]
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    watch: WatchDescriptor,
    receiver: Option<watch::Receiver<()>>,
}

impl Changes {
    /// Starts the task that reads the events; must be called within a tokio runtime.
    pub(crate) fn start() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let inotify = sys::async_fd(Descriptor(inotify), Interest::READABLE)?;
        let shared = Arc::new(Shared { inotify, watches: Mutex::default() });
        let reader = shared.clone();
        let reader = tokio::spawn(async move {
            loop {
                if let Err(e) = reader.read_events().await {
                    tracing::error!("read inotify events: {e}; followers of logs see no more");
                    return;
                }
            }
        });
        Ok(Self { shared, reader: reader.abort_handle() })
    }

    /// Changes of `dir` from now on.
    pub(crate) fn subscribe(&self, dir: &Path) -> io::Result<Subscription> {
        let mut watches = self.shared.lock();
        let events = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        let watch = self.shared.inotify.get_ref().0.add_watch(dir, events)?;
        let receiver = watches.entry(watch).or_insert_with(|| watch::channel(()).0).subscribe();
        Ok(Subscription { shared: self.shared.clone(), watch, receiver: Some(receiver) })
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    async fn read_events(&self) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        let events = match ready.try_io(|d| d.get_ref().0.read_events().map_err(io::Error::from)) {
            Ok(events) => events?,
            Err(_would_block) => return Ok(()),
        };
        let watches = self.lock();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                watches.values().for_each(|w| w.send_replace(()));
            } else if let Some(sender) = watches.get(&event.wd) {
                sender.send_replace(());
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, watch::Sender<()>>> {
        // Nothing panics with the lock held; if it did, the map would still be whole.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Waits for a change after the last call (or the subscription).
    pub(crate) async fn changed(&mut self) {
        let alive = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !alive {
            std::future::pending().await
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watches = self.shared.lock();
        self.receiver = None;
        if watches.get(&self.watch).is_some_and(|sender| sender.receiver_count() == 0) {
            watches.remove(&self.watch);
            // It is gone already if the directory was removed.
            let _ = self.shared.inotify.get_ref().0.rm_watch(self.watch);
        }
    }
}
