//! Encrypted networks on a kernel that has IPsec, each test with hosts of its own. `cargo xtask vm test` runs these.

mod capture;
mod clear;
mod drift;
mod flow;
mod forge;
mod lab;
mod namespace;
mod others;
mod rotation;
mod size;

/// Room for ESP on any link.
const NETWORK_MTU: u32 = 1400;
/// Enough for one of them to get through on a slow machine, if any does.
const TRIES: usize = 100;
