//! Deleting many links at the price of one.
//!
//! Every deletion waits for RCU grace periods, 10 ms and more, while it holds up whoever wants to change a link. The kernel deletes
//! all links of a *group* in one go (net/core/rtnetlink.c, `rtnl_group_dellink`), so those who come while a deletion runs are
//! collected and go together in the next.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use crate::Error;
use crate::message;
use crate::rtnl::Rtnl;

/// Deletions waiting in one namespace.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    waiting: Mutex<Vec<String>>,
    turn: AsyncMutex<()>,
}

impl Reaper {
    /// Deletes a link, if it is there; when this returns it is gone.
    pub(crate) async fn delete(&self, rtnl: &Rtnl, name: &str) -> Result<(), Error> {
        self.waiting().push(name.to_owned());
        let _turn = self.turn.lock().await;
        let doomed = std::mem::take(&mut *self.waiting());
        if doomed.iter().any(|waiting| waiting == name) {
            return rtnl.apply("delete links", message::delete_links(&doomed)).await;
        }
        // Somebody took it along; whether that went well only they were told.
        match rtnl.link(name).await? {
            None => Ok(()),
            Some(_) => rtnl.apply(name, vec![message::delete_link(name)]).await,
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        // A push or a take cannot leave half a list.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
