//! A playground: several hosts on one machine, to try a swarm and to test it.
//!
//! Every host is an init process in namespaces of its own (network, mount, pid, uts, ipc, cgroup) with one interface on
//! a shared bridge and one `swarmd`. Killing that init is a power cut: the kernel ends everything that ran on the host.
//!
//! | module | what it holds |
//! |---|---|
//! | [`playground`](Playground) | make, find and remove a whole playground |
//! | [`node`](Node) | one host: run commands, cut its power or its cable |
//! | `lan` | the bridge, its ports, partitions |
//! | `way_out` | masquerading through the machine |
//! | `host` | boot of one host: namespaces, mounts, PID 1 ([`host_main`]) |
//! | `cgroup` | where a host's processes are counted, frozen and found |
//! | `swarm` | init and joins through `swarmctl` |
//! | [`sample_image`] | the `whoami` image |
//! | `libraries` | what a program that is linked dynamically needs beside it |
//! | [`cli`] | the words of `swarm-playground`, which `swarmctl playground` runs |
#![forbid(unsafe_code)]

mod binaries;
mod cgroup;
pub mod cli;
mod error;
mod host;
mod lan;
mod libraries;
mod node;
mod options;
mod playground;
mod process;
mod record;
pub mod sample_image;
mod swarm;
mod wait;
mod way_out;

pub use binaries::Binaries;
pub use error::{Error, Result};
pub use host::{HOST_COMMAND, host_main};
pub use lan::Cut;
pub use node::{Node, NodeState};
pub use options::Options;
pub use playground::{Guard, Playground};
pub use wait::wait_until;
