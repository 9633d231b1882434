//! The `swarmctl` executable against a control API made here: what it asks for, what it prints, how it exits.
#![forbid(unsafe_code)]

mod errors;
mod exec;
mod fake;
mod images;
mod keys;
mod lists;
mod playground;
mod services;
mod support;
mod terminal;
