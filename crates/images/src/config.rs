//! The image configuration: what a container of this image runs, and as whom.
//!
//! Shape: OCI image spec, `config.md`; Docker's configurations have the same fields.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer};

use crate::digest::Digest;
use crate::platform::Platform;

/// Defaults an image gives its containers. All fields may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// Further words; replaced by a service's arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// Absolute path; empty means `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty means root. Names are looked up in the image's `/etc/passwd`.
    pub user: String,
    /// `80/tcp`, `53/udp`.
    pub exposed_ports: BTreeSet<String>,
    /// Paths meant to outlive the container.
    pub volumes: BTreeSet<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`, `SIGQUIT`, `15`; absent means SIGTERM.
    pub stop_signal: Option<String>,
}

/// The TCP ports that an entry of [`ImageConfig::exposed_ports`] names: `80`, `80/tcp`, `8000-8010/tcp`; none if it is of
/// another protocol.
///
/// # Errors
/// What is wrong with it, in words.
pub fn tcp_ports(exposed: &str) -> Result<Option<RangeInclusive<u16>>, String> {
    let bad = || format!("{exposed:?}, which is no PORT/PROTOCOL");
    let (ports, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<NonZeroU16>().map(NonZeroU16::get).map_err(|_| bad());
    let range = port(first)?..=port(last)?;
    match protocol.to_ascii_lowercase().as_str() {
        _ if range.is_empty() => Err(bad()),
        "tcp" => Ok(Some(range)),
        "udp" | "sctp" => Ok(None),
        _ => Err(bad()),
    }
}

/// A parsed configuration blob.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    pub(crate) platform: Platform,
    /// RFC 3339, as the image's builder wrote it.
    pub(crate) created: Option<String>,
    /// Digests of the uncompressed layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) config: ImageConfig,
}

impl ConfigFile {
    pub(crate) fn parse(blob: &[u8]) -> serde_json::Result<Self> {
        let raw: RawFile = serde_json::from_slice(blob)?;
        let platform = Platform {
            os: raw.os.filter(|os| !os.is_empty()).unwrap_or_else(|| "linux".into()),
            architecture: raw.architecture,
            variant: raw.variant.filter(|variant| !variant.is_empty()),
        };
        Ok(Self {
            platform,
            created: raw.created,
            diff_ids: raw.rootfs.diff_ids,
            config: raw.config.into(),
        })
    }
}

#[derive(Deserialize)]
struct RawFile {
    architecture: String,
    os: Option<String>,
    variant: Option<String>,
    created: Option<String>,
    rootfs: RawRootfs,
    #[serde(default, deserialize_with = "nullable")]
    config: RawConfig,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    #[serde(deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    working_dir: String,
    #[serde(deserialize_with = "nullable")]
    user: String,
    #[serde(deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

/// Go writes `null` for empty lists and maps.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl From<RawConfig> for ImageConfig {
    fn from(raw: RawConfig) -> Self {
        Self {
            entrypoint: raw.entrypoint,
            cmd: raw.cmd,
            env: raw.env,
            working_dir: raw.working_dir,
            user: raw.user,
            exposed_ports: raw.exposed_ports.into_keys().collect(),
            volumes: raw.volumes.into_keys().collect(),
            labels: raw.labels,
            stop_signal: raw.stop_signal.filter(|signal| !signal.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dockers_nulls_and_fields() {
        let file = ConfigFile::parse(
            br#"{"architecture":"arm64","variant":"v8","os":"linux","created":"2024-01-02T03:04:05Z",
                "config":{"Entrypoint":null,"Cmd":["a","b"],"Env":["X=1"],"User":"1:2","WorkingDir":"/w",
                "ExposedPorts":{"80/tcp":{}},"Volumes":null,"Labels":{"k":"v"},"StopSignal":"SIGQUIT"},
                "rootfs":{"type":"layers","diff_ids":null},"history":[{"created_by":"x"}]}"#,
        )
        .unwrap();
        assert_eq!(file.platform.to_string(), "linux/arm64/v8");
        assert_eq!(file.created.as_deref(), Some("2024-01-02T03:04:05Z"));
        assert_eq!(file.config.cmd, ["a", "b"]);
        assert!(file.config.entrypoint.is_empty() && file.config.volumes.is_empty());
        assert!(file.config.exposed_ports.contains("80/tcp"));
        assert_eq!(file.config.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn exposed_ports_are_numbers_ranges_and_protocols() {
        for (text, expected) in [
            ("80/tcp", Some(80..=80)),
            ("80", Some(80..=80)),
            ("443/TCP", Some(443..=443)),
            ("8000-8010/tcp", Some(8000..=8010)),
            ("53/udp", None),
            ("9000/sctp", None),
        ] {
            assert_eq!(tcp_ports(text), Ok(expected), "{text}");
        }
        for bad in ["", "/tcp", "http/tcp", "0/tcp", "65536/tcp", "90-80/tcp", "80/", "80/tcp/x"] {
            assert_eq!(tcp_ports(bad), Err(format!("{bad:?}, which is no PORT/PROTOCOL")));
        }
    }

    #[test]
    fn refuses_what_is_no_configuration() {
        for text in ["", "[]", "{}", r#"{"architecture":"amd64","rootfs":{"diff_ids":["../x"]}}"#] {
            assert!(ConfigFile::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
