//! A node's identity and the roots it trusts, as files that are whole or absent whatever happens.
//!
//! Certificate and key share one file: as two, a crash between their renames would leave a pair
//! that does not match.

use crate::{NodeIdentity, PkiError, RootCert};
use rustls::pki_types::pem::{PemObject, SectionKind};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use time::OffsetDateTime;

/// The file with the node's private key and certificate chain, mode 0600.
pub const NODE_FILE: &str = "node.pem";

/// The file with the trusted root certificates, mode 0644.
pub const CA_FILE: &str = "ca.pem";

/// A key and a few certificates are 3 kB; a file beyond this is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl NodeIdentity {
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

/// Replaces `dir/name`: a new file, synced, renamed over the old one, and the folder synced.
fn write_atomic(dir: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let (path, temporary) = (dir.join(name), dir.join(format!(".{name}.new")));
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| PkiError::Io { action, path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        // A leftover of a crash keeps its old mode when opened again, and the umask may have taken
        // bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(failed("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(failed("replace", &path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}
