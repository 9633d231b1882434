//! `deny.toml`, in cargo-deny's words: what we use of them. A word that is not here is an error, so nothing in that file is
//! without effect.

use anyhow::{Context, Result, bail};
use semver::{Version, VersionReq};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee};

/// What dependencies may be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) graph: Graph,
    pub(super) bans: Bans,
    pub(super) licenses: Licenses,
    pub(super) sources: Sources,
}

/// Which dependencies count.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Graph {
    /// Those of these targets.
    pub(super) targets: Vec<String>,
}

/// Which crates may be there in several versions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Bans {
    #[serde(rename = "multiple-versions")]
    pub(super) _multiple_versions: Deny,
    pub(super) skip: Vec<Skip>,
}

/// Versions that do not count as one too many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Skip {
    #[serde(rename = "crate")]
    pub(super) krate: Spec,
    pub(super) reason: String,
}

/// Which licences are fine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Licenses {
    pub(super) allow: Vec<Name>,
    pub(super) exceptions: Vec<Exception>,
    pub(super) clarify: Vec<Clarify>,
}

/// Licences of one crate alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exception {
    #[serde(rename = "crate")]
    pub(super) krate: Spec,
    pub(super) allow: Vec<Name>,
}

/// The licence of a crate that names none.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Clarify {
    #[serde(rename = "crate")]
    pub(super) krate: Spec,
    pub(super) expression: String,
    /// Empty: `crate` names the version that was looked at.
    #[serde(rename = "license-files")]
    pub(super) _license_files: [(); 0],
}

/// Where crates may come from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Sources {
    #[serde(rename = "unknown-registry")]
    pub(super) _unknown_registry: Deny,
    #[serde(rename = "unknown-git")]
    pub(super) _unknown_git: Deny,
    pub(super) allow_registry: Vec<String>,
}

/// The one level that we use: we have no warnings.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Deny {
    Deny,
}

/// The name of a licence.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name(Licensee);

impl Name {
    pub(super) fn satisfies(&self, wanted: &LicenseReq) -> bool {
        self.0.satisfies(wanted)
    }
}

impl TryFrom<String> for Name {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        Ok(Self(Licensee::parse(&text).with_context(|| format!("{text} is no SPDX licence"))?))
    }
}

/// `NAME@VERSION`; a version of one or two numbers means all that begin so.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Spec {
    pub(super) text: String,
    name: String,
    version: VersionReq,
}

impl Spec {
    pub(super) fn matches(&self, name: &str, version: &Version) -> bool {
        self.name == name && self.version.matches(version)
    }
}

impl TryFrom<String> for Spec {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let Some((name, version)) = text.split_once('@') else {
            bail!("{text} is not NAME@VERSION");
        };
        let version = VersionReq::parse(&format!("={version}"))
            .with_context(|| format!("{text} is not NAME@VERSION"))?;
        Ok(Self { name: name.to_string(), version, text })
    }
}

/// A licence as a crate's manifest writes it; older ones separate alternatives by a slash.
pub(super) fn expression(text: &str) -> Result<Expression> {
    Ok(Expression::parse_mode(text, spdx::ParseMode::LAX)?)
}
