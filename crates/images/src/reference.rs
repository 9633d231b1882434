//! Docker-style image names: `nginx`, `repo/name:tag`, `host:5000/name@sha256:...`.
//!
//! The grammar is that of `distribution/reference` (Go), with Docker's defaults: registry `docker.io`, repository
//! prefix `library/`, tag `latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest repository name, registry included (`NameTotalLengthMax` in `distribution/reference`).
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A full image name. `Display` gives the canonical form, [`Reference::familiar`] the short one people type.
///
/// There is a tag, a digest, or both; with both the digest decides what is pulled, as in Docker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("invalid image reference: it is empty")]
    Empty,
    /// The repository holds upper-case letters.
    #[error("invalid image reference {0:?}: the repository name must be lower case")]
    UpperCase(String),
    /// Registry and repository together exceed 255 characters.
    #[error("invalid image reference: the name is longer than {MAX_NAME} characters")]
    TooLong,
    /// The host part before the first slash is no host name or address with an optional port.
    #[error("invalid image reference {0:?}: {1:?} is not a registry host")]
    Registry(String, String),
    /// A path component has characters or separators that are not allowed.
    #[error("invalid image reference {0:?}: {1:?} is not a repository name")]
    Repository(String, String),
    /// The tag has characters that are not allowed or is longer than 128.
    #[error("invalid image reference {0:?}: {1:?} is not a tag")]
    Tag(String, String),
    /// The part after `@` is no digest.
    #[error("invalid image reference {0:?}: {1:?} is not a sha256 digest")]
    Digest(String, String),
    /// 64 hexadecimal digits alone: an image id, which names no repository.
    #[error("invalid image reference {0:?}: it looks like an image id, not a name")]
    Id(String),
}

impl Reference {
    /// Registry host and port; `docker.io` if none was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry, such as `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, absent for a name given by digest alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index, if given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository by digest alone: `name@sha256:...`.
    pub fn by_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same reference, pinned to a digest; the tag stays for people to read.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The shortest form that means the same: `nginx:1.29`, `user/app:latest`, `host:5000/app@sha256:...`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// Short name without tag and digest, as the REPOSITORY column of `image ls` shows it.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL_PREFIX) {
            Some(name) if !name.contains('/') => name.to_owned(),
            // Without docker.io in front, such a first component would be taken for a registry.
            _ if self.repository.split('/').next().is_some_and(is_host_like) => self.name(),
            _ => self.repository.clone(),
        }
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }

    /// What a store files this name under: by digest if there is one, else by tag.
    pub(crate) fn key(&self) -> String {
        match self.digest {
            Some(digest) => self.by_digest(digest).to_string(),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Id(text.into()));
        }
        let (rest, digest) = split_digest(text)?;
        let (name, tag) = split_tag(text, rest)?;
        let (registry, repository) = split_registry(text, name)?;
        check_repository(text, &repository)?;
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    let Some((rest, digest)) = text.split_once('@') else {
        return Ok((text, None));
    };
    let digest = digest.parse().map_err(|_| ReferenceError::Digest(text.into(), digest.into()))?;
    Ok((rest, Some(digest)))
}

/// A colon after the last slash starts the tag; one before it belongs to the registry's port.
fn split_tag<'a>(text: &str, rest: &'a str) -> Result<(&'a str, Option<&'a str>), ReferenceError> {
    let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let Some(colon) = rest[after_slash..].find(':') else {
        return Ok((rest, None));
    };
    let (name, tag) = (&rest[..after_slash + colon], &rest[after_slash + colon + 1..]);
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if valid { Ok((name, Some(tag))) } else { Err(ReferenceError::Tag(text.into(), tag.into())) }
}

/// What stands before the first slash is a registry if it could be no repository: it has a dot, a colon, upper-case
/// letters, or is `localhost` (Docker's rule).
fn split_registry(text: &str, name: &str) -> Result<(String, String), ReferenceError> {
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if is_host_like(host) => {
            if !is_host(host) {
                return Err(ReferenceError::Registry(text.into(), host.into()));
            }
            (host, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        return Ok((registry.into(), format!("{OFFICIAL_PREFIX}{repository}")));
    }
    Ok((registry.into(), repository.into()))
}

fn is_host_like(host: &str) -> bool {
    host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            return address.parse::<std::net::Ipv6Addr>().is_ok()
                && (rest.is_empty()
                    || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn check_repository(text: &str, repository: &str) -> Result<(), ReferenceError> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase(text.into()));
    }
    if !repository.split('/').all(is_component) {
        let name = repository.strip_prefix(OFFICIAL_PREFIX).unwrap_or(repository);
        return Err(ReferenceError::Repository(text.into(), name.into()));
    }
    Ok(())
}

/// `[a-z0-9]+` groups separated by one of: a dot, one or two underscores, any number of dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separators = component.split(|c: char| c.is_ascii() && alphanumeric(c as u8));
    let (first, last) = (component.bytes().next(), component.bytes().next_back());
    let separator = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    first.is_some_and(alphanumeric) && last.is_some_and(alphanumeric) && separators.all(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn forms(text: &str) -> (String, String) {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        (reference.to_string(), reference.familiar())
    }

    #[test]
    fn docker_defaults() {
        let d = format!("sha256:{HEX}");
        let table = [
            ("nginx", "docker.io/library/nginx:latest".to_owned(), "nginx:latest".to_owned()),
            ("nginx:1.29", "docker.io/library/nginx:1.29".into(), "nginx:1.29".into()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".into(), "nginx:latest".into()),
            (
                "index.docker.io/nginx",
                "docker.io/library/nginx:latest".into(),
                "nginx:latest".into(),
            ),
            ("user/app:V1", "docker.io/user/app:V1".into(), "user/app:V1".into()),
            ("library/a/b", "docker.io/library/a/b:latest".into(), "library/a/b:latest".into()),
            ("localhost/app", "localhost/app:latest".into(), "localhost/app:latest".into()),
            ("host:5000/app", "host:5000/app:latest".into(), "host:5000/app:latest".into()),
            (
                "10.0.0.1:5000/a/b_c__d-e.f:t",
                "10.0.0.1:5000/a/b_c__d-e.f:t".into(),
                "10.0.0.1:5000/a/b_c__d-e.f:t".into(),
            ),
            ("[::1]:5000/app:x", "[::1]:5000/app:x".into(), "[::1]:5000/app:x".into()),
            ("Host/app", "Host/app:latest".into(), "Host/app:latest".into()),
            (&format!("nginx@{d}"), format!("docker.io/library/nginx@{d}"), format!("nginx@{d}")),
            (&format!("h:5/a:t@{d}"), format!("h:5/a:t@{d}"), format!("h:5/a:t@{d}")),
        ];
        for (text, canonical, familiar) in table {
            assert_eq!(forms(text), (canonical, familiar), "{text}");
        }
    }

    #[test]
    fn refusals_say_why() {
        let long = "a/".repeat(130) + "a";
        let table = [
            ("", "it is empty"),
            ("Nginx", "must be lower case"),
            ("user/App:1", "must be lower case"),
            (HEX, "looks like an image id"),
            ("nginx:", "is not a tag"),
            ("nginx:-x", "is not a tag"),
            ("nginx:a b", "is not a tag"),
            ("nginx@sha256:12", "is not a sha256 digest"),
            ("nginx@md5:00", "is not a sha256 digest"),
            ("a//b", "is not a repository name"),
            ("/a", "is not a repository name"),
            ("a/", "is not a repository name"),
            ("a..b", "is not a repository name"),
            ("_a", "is not a repository name"),
            ("é", "is not a repository name"),
            ("host:99999/a", "is not a registry host"),
            ("-x.y/a", "is not a registry host"),
            ("../etc/passwd", "is not a registry host"),
            (&long, "longer than 255"),
        ];
        for (text, reason) in table {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_canonical_form_is_a_fixed_point(text in "\\PC{0,60}|[a-zA-Z0-9._:/@-]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
            }
        }
    }
}
