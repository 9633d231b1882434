//! What can go wrong, in words for the person who runs the node.

use std::{fmt, io, path::PathBuf};

/// Errors of this crate. Texts name the object and the action, never a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a request over xfrm netlink.
    #[error("{action}: {source}")]
    Netlink {
        /// What was asked, naming the object.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The host's network namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] swarm_netns::Error),
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A setting of this node makes the kernel pass packets by its IPsec policies.
    #[error("{sysctl} is set: packets of encrypted networks would go round ipsec; set it to 0")]
    Bypassed {
        /// The kernel parameter.
        sysctl: String,
    },
    /// An input is out of range or contradicts itself.
    #[error("{object}: {reason}")]
    Invalid {
        /// The object, such as `peer 10.0.0.2`.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than one peer could not be programmed; all of them.
    #[error("{}", List(.0))]
    Several(Vec<Error>),
}

/// How many errors of a collection are spelled out.
const SPELLED_OUT: usize = 5;

struct List<'a>(&'a [Error]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(SPELLED_OUT).enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        if self.0.len() > SPELLED_OUT {
            write!(f, "; and {} more", self.0.len() - SPELLED_OUT)?;
        }
        Ok(())
    }
}

impl Error {
    pub(crate) fn netlink(action: impl Into<String>, source: io::Error) -> Self {
        Self::Netlink { action: action.into(), source }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::File { action, path: path.into(), source: source.into() }
    }

    pub(crate) fn invalid(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { object: object.into(), reason: reason.into() }
    }

    /// `Ok` for no error, the error itself for one, [`Error::Several`] for more.
    pub(crate) fn collect(mut errors: Vec<Error>) -> Result<(), Error> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }
}

/// What a kernel lacks for encrypted networks. Its text is a noun: "needs {}, which this node's kernel lacks".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// No xfrm netlink (`CONFIG_XFRM_USER`).
    #[error("IPsec over netlink (xfrm_user)")]
    Xfrm,
    /// No ESP (`CONFIG_INET_ESP`).
    #[error("IPsec ESP")]
    Esp,
    /// No `rfc4106(gcm(aes))`.
    #[error("the cipher rfc4106(gcm(aes)) for IPsec ESP")]
    Cipher,
    /// This process may not use it.
    #[error("permission to set up IPsec (CAP_NET_ADMIN)")]
    Permission,
    /// Something else kept an association from being made.
    #[error("a working IPsec ({0})")]
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_errors_are_counted_not_listed() {
        let errors = (0..8).map(|i| Error::invalid(format!("peer {i}"), "named twice")).collect();
        let text = Error::collect(errors).unwrap_err().to_string();
        assert!(text.starts_with("peer 0: named twice; peer 1: "));
        assert!(text.ends_with("; and 3 more"), "{text}");
    }
}
