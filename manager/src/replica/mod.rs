//! The replicated state on this manager, and the way to change it.
//!
//! - [`store`] is the replica that Raft drives, `affected` says which nodes a change concerns;
//! - `dialect` is what this manager understands;
//! - [`proposer`] proposes changes, by the leader if another manager leads; `pieces` cuts many of them;
//! - [`backup`] is the file of a saved state;
//! - `lock` has the manager's files follow the unlock key.

pub(crate) mod affected;
pub mod backup;
pub(crate) mod dialect;
pub(crate) mod lock;
pub(crate) mod pieces;
pub mod proposer;
pub mod store;
