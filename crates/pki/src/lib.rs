//! Trust inside a cluster: its certificate authority, join tokens, node certificates, and the mTLS
//! below all gRPC between nodes.
//!
//! - [`RootCa`] issues node certificates, [`RootCert`] is its public half;
//! - [`JoinToken`] pins the CA and carries the secret that picks a role;
//! - [`NodeIdentity`] is a node's certificate and key, kept in one file;
//! - [`Credentials`] holds what a running node presents and trusts; both can be replaced while it
//!   runs;
//! - [`TlsAcceptor`] and [`Connector`] are the two ends of a connection, [`require_manager`] and
//!   [`require_node`] the check at the top of an RPC;
//! - [`fetch_root`] gets the CA's certificate for a node that knows nothing but a join token.
#![forbid(unsafe_code)]

mod acceptor;
mod authorize;
mod base36;
mod connector;
mod credentials;
mod dial;
mod error;
mod identity;
mod issuer;
mod join;
mod name;
mod root;
mod store;
mod stream;
mod token;
mod unlock;
mod verify;

pub use acceptor::{AcceptorOptions, Incoming, TlsAcceptor};
pub use authorize::{peer, require_manager, require_node};
pub use connector::{Connector, ConnectorOptions, Dial, Dialed, Stream, server};
pub use credentials::Credentials;
pub use dial::ConnectError;
pub use error::PkiError;
pub use identity::{NodeIdentity, new_key_and_csr};
pub use issuer::IssuerInfo;
pub use join::fetch_root;
pub use name::{ExpectedPeer, PeerIdentity, PeerMismatch, Role};
pub use root::{NODE_CERT_VALIDITY, RootCa, RootCert};
pub use store::{CA_FILE, NODE_FILE, SealedIdentity, Stored, load_roots, save_roots};
pub use stream::{NodeStream, PeerInfo};
pub use token::{CaDigest, JoinSecret, JoinToken, TokenError};
pub use unlock::{NoUnlockKey, UnlockKey};
