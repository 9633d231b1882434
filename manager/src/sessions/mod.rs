//! The nodes' sessions with this manager: each node is told what concerns it, and says what it did.
//!
//! - [`dispatcher`] is a session's end here, `table` all of them;
//! - `views` works out what a node is told, [`reports`] takes what became of its tasks;
//! - [`link`] tells the leader which nodes have a session here and how far they are.

pub mod dispatcher;
pub(crate) mod link;
pub(crate) mod reports;
pub(crate) mod table;
pub(crate) mod views;
