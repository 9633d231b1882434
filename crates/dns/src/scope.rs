//! What one task may see.

use std::sync::Arc;

/// What one sandbox sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The ids of the networks it is attached to, in order of preference: the first that has a name answers. Names of other
    /// networks do not exist for it.
    pub networks: Vec<Arc<str>>,
    /// Whether names unknown here are asked of the node's resolvers. To be false if all its networks are internal: queries
    /// would carry data out of them (Docker's CVE-2024-29018).
    pub relay: bool,
}
