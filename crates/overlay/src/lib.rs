//! Overlay networks on one node: desired state -> kernel, by diff, over rtnetlink.
//!
//! [`Overlay::ensure`] brings a network's namespace (bridge, VXLAN device, neighbours, forwarding entries) into its desired state;
//! [`Overlay::create_sandbox`] builds a task's namespace on it. Both read the kernel first and program the difference, so they are
//! also what repairs drift and what adopts the work of an earlier process. See OVERVIEW.md.
//!
//! | module | idea |
//! |---|---|
//! | `overlay` | the public type |
//! | `places` | which namespaces there are, a connection to each, whose turn it is |
//! | `network`, `ensure` | desired state of a network, and getting there |
//! | `sandbox` | the same for a task's namespace |
//! | `egress` | the way out: node-local bridge, masquerade |
//! | `host` | is this node fit, what does it already use |
//! | `listeners` | what listens in a task's namespace |
//! | `port` | bridge ports of tasks |
//! | `carrier` | waiting until a link carries frames |
//! | `reaper` | deletes many links at the price of one |
//! | `delta` | the difference of two tables; pure |
//! | `netns`, `events` | namespaces as bind mounts; changes of addresses |
//! | `rtnl`, `message`, `observed` | a connection; requests; answers |
//! | `settings` | what VXLAN devices and bridge ports are made from |
//! | `names`, `sysctl` | derived names and MACs; kernel parameters |

#![forbid(unsafe_code)]

mod carrier;
mod changes;
mod delta;
mod egress;
mod ensure;
mod error;
mod events;
mod host;
mod listeners;
mod message;
mod names;
mod netns;
mod network;
mod observed;
mod overlay;
mod places;
mod port;
mod reaper;
mod rtnl;
mod sandbox;
mod settings;
mod sysctl;

pub use changes::Changes;
pub use error::Error;
pub use events::AddressEvents;
pub use host::{InterfaceAddress, addresses, routes};
pub use listeners::Listeners;
pub use network::{Network, Remote};
pub use overlay::{Options, Overlay, VXLAN_PORT};
pub use places::Existing;
pub use sandbox::{Interface, Sandbox, SandboxHandle};
