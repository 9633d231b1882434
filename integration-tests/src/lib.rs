//! Whole clusters on one machine, and the words in which tests speak about them. The tests are in `tests/`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cluster`](Cluster) | a playground of one test program: made, cleaned up, its logs shown on failure |
//! | [`client`](Client) | `swarmctl` on one node: commands, tasks, nodes, networks |
//! | [`calls`](Calls) | what the sample image's tools say from inside a task: calls, names, pings |
//! | [`calls_while`] | calls that go on while something changes |
//! | [`host`](containers) | what is on a host itself: its containers; `swarmd` as a command |
//! | [`kernel`] | what the kernel of a node really holds: balancers, namespaces |
//! | [`capture`](Capture) | what really is on the underlay |
//! | [`registry`], [`debian`] | a registry, and images of Debian packages for it |
//! | [`outage`] | how long a lost node stays in use |
//! | [`outside`] | servers outside the swarm |
//! | [`image`] | an image with a shell, for what `whoami` cannot do |
//! | [`checks`] | several named checks on one cluster, each reported by name |
//!
//! Everything here panics with a full message when something is not as it must be: it is for tests alone. A cluster takes
//! seconds to make, so a test program makes one and runs its checks on it, unless a check breaks the cluster.
#![forbid(unsafe_code)]

mod calls;
mod capture;
pub mod checks;
mod client;
mod cluster;
pub mod debian;
mod host;
pub mod image;
pub mod kernel;
mod load;
pub mod outage;
pub mod outside;
pub mod registry;
mod wait;

pub use calls::{Answer, Calls};
pub use capture::Capture;
pub use client::{Client, Task};
pub use cluster::Cluster;
pub use host::{containers, said, swarmd};
pub use load::{calls_by_while, calls_while};
pub use wait::{PATIENCE, eventually};
