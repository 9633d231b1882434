//! How the manager is told to others over gRPC: `status` is which error is which code.

mod status;
