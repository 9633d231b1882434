//! The server as tasks see it: real network namespaces, real sockets, raw DNS messages. Needs root.

mod c_library;
mod lifecycle;
mod names;
mod relay;
mod support;
mod transport;
