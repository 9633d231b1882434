//! Which feature level who is sent a message of a session must speak: the one place that a new one must be named in. A
//! new field of an old message needs none if whoever skips it is right to.

use crate::dispatch::{from_node, to_node};

/// What every version speaks.
const FIRST: u32 = 1;

impl to_node::Message {
    /// The level that the node must speak.
    pub fn level(&self) -> u32 {
        match self {
            to_node::Message::Delta(_)
            | to_node::Message::Managers(_)
            | to_node::Message::Heartbeat(_)
            | to_node::Message::Standing(_)
            | to_node::Message::Trust(_) => FIRST,
        }
    }
}

impl from_node::Message {
    /// The level that the manager must speak.
    pub fn level(&self) -> u32 {
        match self {
            from_node::Message::Describe(_)
            | from_node::Message::Heartbeat(_)
            | from_node::Message::Reports(_)
            | from_node::Message::Acknowledged(_)
            | from_node::Message::Trouble(_)
            | from_node::Message::Certified(_) => FIRST,
        }
    }
}
