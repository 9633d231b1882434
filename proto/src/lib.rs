//! The wire formats of a swarm: one module per file in `swarm/v1`, generated at build time. `removal` is what a status
//! carries beside its words, `level` which feature level the messages of sessions need.

#![allow(missing_docs, unreachable_pub, clippy::all)]

pub mod level;
pub mod removal;

/// The descriptors of all files, a `FileDescriptorSet`: every service and RPC there is.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Raft between managers.
pub mod raft {
    tonic::include_proto!("swarm.v1.raft");
}

/// swarmctl to a node, and to the swarm.
pub mod control {
    tonic::include_proto!("swarm.v1.control");
}

/// Workers to managers.
pub mod dispatch {
    tonic::include_proto!("swarm.v1.dispatch");
}

/// Joining, leaving, and managers among themselves.
pub mod membership {
    tonic::include_proto!("swarm.v1.membership");
}

/// Managers to the node a task runs on.
pub mod taskio {
    tonic::include_proto!("swarm.v1.taskio");
}
