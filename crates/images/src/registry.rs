//! The registry client: manifests and blobs over the distribution API, and its errors in our words.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream};
use oci_client::errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{ACCEPTED, Descriptor, MAX_MANIFEST};
use crate::reference::Reference;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A manifest is small: this is for all of it.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Most characters shown of what a server says.
const MAX_SAID: usize = 300;

/// Talks to all registries, anonymously. Clients are made when first needed: they read all certificate authorities of
/// the machine, which takes memory, and fails where there are none.
pub(crate) struct Registry {
    insecure: Vec<String>,
    read_timeout: Duration,
    tls: OnceLock<oci_client::Client>,
    plain: OnceLock<oci_client::Client>,
}

/// An error, and whether the same request may succeed a moment later.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) retry: bool,
}

/// Part of a blob from `offset` on, or from the start if the registry knows no ranges.
pub(crate) struct Body {
    pub(crate) offset: u64,
    pub(crate) pieces: BoxStream<'static, io::Result<Vec<u8>>>,
}

impl Registry {
    /// `insecure`: `host:port` of registries spoken to over plain HTTP; `read_timeout`: longest silence of any.
    pub(crate) fn new(insecure: Vec<String>, read_timeout: Duration) -> Self {
        Self { insecure, read_timeout, tls: OnceLock::new(), plain: OnceLock::new() }
    }

    fn client(&self, image: &Reference) -> Result<&oci_client::Client> {
        let insecure = self.insecure.iter().any(|host| host == image.registry());
        let cell = if insecure { &self.plain } else { &self.tls };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        // Fails only if the process has a provider already, which is then used.
        rustls::crypto::ring::default_provider().install_default().ok();
        let config = ClientConfig {
            protocol: if insecure { ClientProtocol::Http } else { ClientProtocol::Https },
            // A registry declared insecure needs no certificate where it redirects either, as with Docker.
            accept_invalid_certificates: insecure,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(self.read_timeout),
            user_agent: concat!("swarmd/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = oci_client::Client::try_from(config)
            .map_err(|error| unreachable(image, format!("cannot use TLS: {}", deepest(&error))))?;
        Ok(cell.get_or_init(|| client))
    }

    /// A manifest or index, and its digest; verified if the reference has a digest.
    pub(crate) async fn manifest(&self, image: &Reference) -> Result<(Vec<u8>, Digest)> {
        let (reference, auth) = (foreign(image), RegistryAuth::Anonymous);
        let client = self.client(image)?;
        let request = client.pull_manifest_raw(&reference, &auth, &ACCEPTED);
        let (body, _) = match tokio::time::timeout(MANIFEST_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| failure(image, error).error)?,
            Err(_) => return Err(unreachable(image, "timed out".into())),
        };
        if body.len() as u64 > MAX_MANIFEST {
            let reason = format!("its manifest is larger than {MAX_MANIFEST} bytes");
            return Err(Error::Malformed { image: image.familiar(), reason });
        }
        let digest = Digest::of(&body);
        match image.digest() {
            Some(expected) if expected != digest => {
                Err(Error::BlobDigest { image: image.familiar(), expected, actual: digest })
            }
            _ => Ok((body.to_vec(), digest)),
        }
    }

    /// The content of a blob from `offset` on. Not verified.
    pub(crate) async fn blob(
        &self,
        image: &Reference,
        blob: &Descriptor,
        offset: u64,
    ) -> Result<Body, Failure> {
        let reference = foreign(image);
        // Layers may name further addresses to fetch them from; only the registry is asked here.
        let descriptor =
            OciDescriptor { digest: blob.digest.to_string(), ..OciDescriptor::default() };
        let client = self.client(image).map_err(|error| Failure { error, retry: false })?;
        client.store_auth_if_needed(reference.resolve_registry(), &RegistryAuth::Anonymous).await;
        let request = client.pull_blob_stream_partial(&reference, &descriptor, offset, None);
        match request.await.map_err(|error| failure(image, error))? {
            BlobResponse::Full(body) => Ok(Body { offset: 0, pieces: pieces(body) }),
            BlobResponse::Partial(body) => Ok(Body { offset, pieces: pieces(body) }),
        }
    }
}

fn pieces(body: SizedStream) -> BoxStream<'static, io::Result<Vec<u8>>> {
    body.stream.map(|piece| piece.map(Vec::from)).boxed()
}

fn foreign(image: &Reference) -> oci_client::Reference {
    let (registry, repository) = (image.registry().to_owned(), image.repository().to_owned());
    match (image.digest(), image.tag()) {
        (Some(digest), _) => {
            oci_client::Reference::with_digest(registry, repository, digest.to_string())
        }
        (None, tag) => oci_client::Reference::with_tag(
            registry,
            repository,
            tag.unwrap_or("latest").to_owned(),
        ),
    }
}

fn unreachable(image: &Reference, mut reason: String) -> Error {
    if reason.contains("InvalidContentType") {
        // rustls read HTTP where TLS should be.
        reason = "it does not speak TLS (plain HTTP needs --insecure-registry)".to_owned();
    }
    Error::Unreachable { image: image.familiar(), registry: image.registry().to_owned(), reason }
}

/// A broken connection in the middle of a body.
pub(crate) fn interrupted(image: &Reference, error: &io::Error) -> Error {
    unreachable(image, deepest(error))
}

fn failure(image: &Reference, error: OciDistributionError) -> Failure {
    let registry = || image.registry().to_owned();
    let denied = || Error::Denied { image: image.familiar(), registry: registry() };
    let answered =
        |reason: String| Error::Registry { image: image.familiar(), registry: registry(), reason };
    let last = |error| Failure { error, retry: false };
    match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let has = |codes: &[OciErrorCode]| {
                envelope.errors.iter().any(|error| codes.contains(&error.code))
            };
            if has(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
            ]) {
                return last(Error::NotFound(image.familiar()));
            }
            if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                return last(denied());
            }
            Failure {
                retry: has(&[OciErrorCode::Toomanyrequests]),
                error: answered(said(&envelope)),
            }
        }
        OciDistributionError::ImageManifestNotFoundError(_) => {
            last(Error::NotFound(image.familiar()))
        }
        OciDistributionError::ServerError { code: 404, .. } => {
            last(Error::NotFound(image.familiar()))
        }
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::ServerError { code: 401 | 403, .. } => last(denied()),
        OciDistributionError::ServerError { code, .. } => Failure {
            retry: code >= 500 || code == 429,
            error: answered(format!("HTTP status {code}")),
        },
        OciDistributionError::DigestError(DigestError::VerificationError { expected, actual }) => {
            last(answered(format!(
                "manifest {expected} is corrupt: its content has digest {actual}"
            )))
        }
        OciDistributionError::RequestError(error) => {
            Failure { error: unreachable(image, deepest(&error)), retry: !error.is_builder() }
        }
        OciDistributionError::IoError(error) => {
            Failure { error: interrupted(image, &error), retry: true }
        }
        other => last(answered(one_line(&other.to_string()))),
    }
}

fn said(envelope: &OciEnvelope) -> String {
    let texts: Vec<_> = envelope.errors.iter().map(|error| one_line(&error.message)).collect();
    if texts.iter().all(String::is_empty) { "it gave no reason".into() } else { texts.join(", ") }
}

/// The root cause, which says more than the layers of "error sending request" above it.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    one_line(&error.to_string())
}

/// What a server says is shown to people: one line of bounded length, without control characters.
fn one_line(text: &str) -> String {
    let words =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    words.flat_map(|word| [" ", word]).skip(1).flat_map(str::chars).take(MAX_SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_clear_errors() {
        let image: Reference = "host:5000/app:1".parse().unwrap();
        let envelope = |code: &str| -> OciDistributionError {
            let text = format!(r#"{{"errors":[{{"code":"{code}","message":"two\nlines"}}]}}"#);
            OciDistributionError::RegistryError {
                envelope: serde_json::from_str(&text).unwrap(),
                url: "u".into(),
            }
        };
        let status = |code| OciDistributionError::ServerError {
            code,
            url: "u".into(),
            message: "<html>".into(),
        };
        for (error, text, retry) in [
            (envelope("MANIFEST_UNKNOWN"), "image not found: host:5000/app:1", false),
            (envelope("NAME_UNKNOWN"), "image not found: host:5000/app:1", false),
            (envelope("DENIED"), "access denied by host:5000", false),
            (envelope("TOOMANYREQUESTS"), "registry host:5000: two lines", true),
            (status(404), "image not found", false),
            (status(503), "HTTP status 503", true),
        ] {
            let failure = failure(&image, error);
            assert!(failure.error.to_string().contains(text), "{}", failure.error);
            assert_eq!(failure.retry, retry, "{text}");
        }
    }
}
