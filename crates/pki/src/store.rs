//! A node's identity and the roots it trusts, as files that are whole or absent whatever happens.
//!
//! Certificate and key share one file: as two, a crash between their renames would leave a pair
//! that does not match.

use crate::name::parse_leaf;
use crate::root::chain_from_pem;
use crate::{NodeIdentity, PeerIdentity, PkiError, RootCert};
use rustls::pki_types::pem::{PemObject, SectionKind};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// The file with the node's private key and certificate chain, mode 0600.
pub const NODE_FILE: &str = "node.pem";

/// The file with the trusted root certificates, mode 0644.
pub const CA_FILE: &str = "ca.pem";

/// A key and a few certificates are 3 kB; a file beyond this is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The PEM section of a private key that only its owner can open.
const SEALED_KEY: &str = "SEALED PRIVATE KEY";

/// A node's identity as its file holds it.
#[derive(Debug)]
pub enum Stored {
    /// With its private key.
    Open(NodeIdentity),
    /// With a private key that is sealed.
    Sealed(SealedIdentity),
}

/// An identity without the use of its private key.
#[derive(Debug)]
pub struct SealedIdentity {
    path: PathBuf,
    subject: PeerIdentity,
    chain_pem: String,
    key: Vec<u8>,
}

impl SealedIdentity {
    /// The names in the certificate.
    pub fn subject(&self) -> &PeerIdentity {
        &self.subject
    }

    /// The identity, with the private key as `open` makes it of what [`NodeIdentity::save_sealed`] sealed. Fails if
    /// it makes none, or one that does not match.
    pub fn open(&self, open: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<NodeIdentity, PkiError> {
        let key = open(&self.key).and_then(|key| String::from_utf8(key).ok());
        let key = key.ok_or_else(|| PkiError::Key("it is sealed with another key".into()));
        key.and_then(|key| NodeIdentity::from_pem(&self.chain_pem, &key))
            .map_err(|source| PkiError::File { path: self.path.clone(), source: source.into() })
    }
}

impl NodeIdentity {
    /// As [`NodeIdentity::save`], but with the private key as `seal` makes it.
    pub fn save_sealed(&self, dir: &Path, seal: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), PkiError> {
        let key = pem::encode(&pem::Pem::new(SEALED_KEY, seal(self.key_pem().as_bytes())));
        let text = format!("{key}{}", self.chain_pem());
        write_atomic(dir, NODE_FILE, text.as_bytes(), 0o600)
    }

    /// Reads [`NODE_FILE`] from `dir`, however it was saved; `None` if there is none.
    ///
    /// Fails as [`NodeIdentity::load`] does, but for what cannot be known of a sealed one.
    pub fn load_stored(dir: &Path, now: OffsetDateTime) -> Result<Option<Stored>, PkiError> {
        let path = dir.join(NODE_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        if !text.contains(SEALED_KEY) {
            return Ok(Self::load(dir, now)?.map(Stored::Open));
        }
        let parse = || {
            let sections = pem::parse_many(&text)
                .map_err(|error| PkiError::Certificate(format!("not PEM: {error}")))?;
            let (keys, chain): (Vec<_>, Vec<_>) =
                sections.into_iter().partition(|section| section.tag() == SEALED_KEY);
            let chain_pem: String = chain.iter().map(pem::encode).collect();
            let leaf = parse_leaf(&chain_from_pem(&chain_pem)?[0])?;
            match <[pem::Pem; 1]>::try_from(keys) {
                Ok([key]) => Ok((leaf.identity, chain_pem, key.into_contents())),
                Err(keys) => Err(PkiError::Key(format!("want one, found {}", keys.len()))),
            }
        };
        match parse() {
            Ok((subject, chain_pem, key)) => {
                Ok(Some(Stored::Sealed(SealedIdentity { path, subject, chain_pem, key })))
            }
            Err(source) => Err(PkiError::File { path, source: Box::new(source) }),
        }
    }

    /// Writes [`NODE_FILE`] into `dir`, which is made (mode 0700) if missing. On return the
    /// identity survives a power cut.
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        let text = format!("{}\n{}", self.key_pem().trim_end(), self.chain_pem());
        write_atomic(dir, NODE_FILE, text.as_bytes(), 0o600)
    }

    /// Reads [`NODE_FILE`] from `dir`; `None` if there is none, which is what a node has before it
    /// joins.
    ///
    /// Fails, naming the file, if it is unreadable or corrupt, if key and certificate do not match,
    /// or if the certificate is not valid at `now`.
    pub fn load(dir: &Path, now: OffsetDateTime) -> Result<Option<Self>, PkiError> {
        let path = dir.join(NODE_FILE);
        let Some(text) = read(&path)? else { return Ok(None) };
        let parse = || {
            let (chain, key) = split(&text)?;
            let identity = NodeIdentity::from_pem(&chain, &key)?;
            identity.check_validity(now)?;
            Ok(identity)
        };
        parse()
            .map(Some)
            .map_err(|source: PkiError| PkiError::File { path, source: Box::new(source) })
    }
}

/// Writes [`CA_FILE`] into `dir`, as [`NodeIdentity::save`] does.
pub fn save_roots(dir: &Path, roots: &[RootCert]) -> Result<(), PkiError> {
    let text: String = roots.iter().map(RootCert::to_pem).collect();
    write_atomic(dir, CA_FILE, text.as_bytes(), 0o644)
}

/// Reads [`CA_FILE`] from `dir`; `None` if there is none.
pub fn load_roots(dir: &Path) -> Result<Option<Vec<RootCert>>, PkiError> {
    let path = dir.join(CA_FILE);
    let Some(text) = read(&path)? else { return Ok(None) };
    let roots = RootCert::list_from_pem(&text);
    roots.map(Some).map_err(|source| PkiError::File { path, source: Box::new(source) })
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    let checked = || {
        if fs::metadata(path)?.len() > MAX_FILE_BYTES {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "larger than 1 MiB"));
        }
        fs::read_to_string(path)
    };
    match checked() {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// Takes the one private key and the certificates out of a PEM text.
fn split(text: &str) -> Result<(String, String), PkiError> {
    let (mut chain, mut keys) = (String::new(), Vec::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) =
            section.map_err(|error| PkiError::Certificate(format!("not PEM: {error}")))?;
        match kind {
            SectionKind::Certificate => chain += &pem::encode(&pem::Pem::new("CERTIFICATE", der)),
            SectionKind::PrivateKey => keys.push(pem::encode(&pem::Pem::new("PRIVATE KEY", der))),
            other => {
                return Err(PkiError::Certificate(format!("unexpected PEM section {other:?}")));
            }
        }
    }
    match <[String; 1]>::try_from(keys) {
        Ok([key]) => Ok((chain, key)),
        Err(keys) => Err(PkiError::Key(format!("want one PEM private key, found {}", keys.len()))),
    }
}

/// Replaces `dir/name`, durably; the directory is made if it is missing.
fn write_atomic(dir: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let failed =
        |action: &'static str, path: PathBuf| move |source| PkiError::Io { action, path, source };
    let create = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    create.map_err(failed("create", dir.to_owned()))?;
    let path = dir.join(name);
    swarm_durable::replace(&path, content, mode).map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NODE_CERT_VALIDITY, Role, RootCa, new_key_and_csr};

    #[test]
    fn a_sealed_key_is_not_in_the_file_and_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let ca = RootCa::generate("cluster", now).unwrap();
        let (key, csr) = new_key_and_csr().unwrap();
        let chain = ca.issue(&csr, "node", Role::Manager, now, NODE_CERT_VALIDITY).unwrap();
        let identity = NodeIdentity::from_pem(&chain, &key).unwrap();
        let flip = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
        identity.save_sealed(dir.path(), flip).unwrap();
        let text = fs::read_to_string(dir.path().join(NODE_FILE)).unwrap();
        let secret = key.lines().nth(1).unwrap();
        assert!(!text.contains(secret) && text.contains("BEGIN CERTIFICATE"), "{text}");
        let Some(Stored::Sealed(sealed)) = NodeIdentity::load_stored(dir.path(), now).unwrap()
        else {
            panic!("it is sealed")
        };
        assert_eq!(sealed.subject().node_id, "node");
        assert_eq!(sealed.open(|bytes| Some(flip(bytes))).unwrap().key_pem(), key);
        assert!(sealed.open(|bytes| Some(bytes.to_vec())).is_err());
        assert!(sealed.open(|_| None).unwrap_err().to_string().contains(NODE_FILE));
        assert!(NodeIdentity::load(dir.path(), now).is_err());
        identity.save(dir.path()).unwrap();
        assert!(matches!(NodeIdentity::load_stored(dir.path(), now), Ok(Some(Stored::Open(_)))));
    }
}
