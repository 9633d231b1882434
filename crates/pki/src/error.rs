//! What can go wrong with certificates, keys and the files that hold them.

use std::path::PathBuf;
use time::OffsetDateTime;

/// Failures of issuing, parsing, saving and loading certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A cluster or node id cannot be put into a certificate.
    #[error("invalid {what} {value:?}: {reason}")]
    InvalidName {
        /// Which name: `node id` or `cluster id`.
        what: &'static str,
        /// The name as given.
        value: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A certificate signing request is unreadable, wrongly signed, or for an unsupported key.
    #[error("refused the certificate request: {0}")]
    Request(String),
    /// A certificate cannot be parsed or lacks what a cluster certificate has.
    #[error("invalid certificate: {0}")]
    Certificate(String),
    /// A private key cannot be parsed.
    #[error("invalid private key: {0}")]
    Key(String),
    /// A certificate and a private key do not belong together.
    #[error("the private key does not match the certificate")]
    KeyMismatch,
    /// Making a key or a signature failed.
    #[error("cannot make the {what}: {reason}")]
    Sign {
        /// What was to be made.
        what: &'static str,
        /// The crypto library's reason.
        reason: String,
    },
    /// A certificate is past its end.
    #[error("the certificate expired at {not_after}")]
    Expired {
        /// Its end.
        not_after: OffsetDateTime,
    },
    /// A certificate begins in the future; the clocks of two hosts differ, most often.
    #[error("the certificate is not valid before {not_before}; check the clock")]
    NotYetValid {
        /// Its begin.
        not_before: OffsetDateTime,
    },
    /// No trusted root was given, or roots of several clusters.
    #[error("invalid trust: {0}")]
    Trust(&'static str),
    /// What a file holds cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<PkiError>,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}
