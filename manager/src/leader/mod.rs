//! What the leader does beside leading Raft.
//!
//! - [`lead`] is its loop: it looks at what changed, decides and proposes;
//! - `agenda` is which services it looks at next;
//! - [`plan`] is the deciding, a pure function of the state and of what was heard;
//! - [`fleet`] is what was heard of the nodes;
//! - `demotions` takes from the quorum the managers that are to be workers.

pub(crate) mod agenda;
pub(crate) mod demotions;
pub mod fleet;
pub mod lead;
pub mod plan;
