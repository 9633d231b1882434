//! The crates that a build takes in, as `cargo metadata` tells.

use crate::run::{cargo, output};
use anyhow::{Context, Result};
use semver::Version;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A crate in one version.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Package {
    id: String,
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) license: Option<String>,
    /// `None` for our own.
    pub(super) source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

/// All crates of a build for any of `targets`, those of tests and of building too.
pub(super) fn packages(targets: &[String]) -> Result<Vec<Package>> {
    let mut command = cargo();
    command.args(["metadata", "--locked", "--format-version", "1"]);
    for target in targets {
        command.args(["--filter-platform", target]);
    }
    parse(&output(&mut command)?)
}

fn parse(text: &str) -> Result<Vec<Package>> {
    let Metadata { packages, resolve } =
        serde_json::from_str(text).context("cannot read what cargo metadata says")?;
    // `packages` also has what only other targets need.
    let used: BTreeSet<_> = resolve.nodes.into_iter().map(|node| node.id).collect();
    Ok(packages.into_iter().filter(|package| used.contains(&package.id)).collect())
}

#[cfg(test)]
impl Package {
    pub(super) fn of(name: &str, version: &str, license: Option<&str>) -> Self {
        Self {
            id: format!("{name}@{version}"),
            name: name.to_string(),
            version: version.parse().unwrap(),
            license: license.map(String::from),
            source: Some("registry+https://github.com/rust-lang/crates.io-index".to_string()),
        }
    }
}

#[test]
fn what_no_target_needs_is_left_out() {
    let text = r#"{
        "packages": [
            {"id": "a", "name": "a", "version": "1.0.0", "license": "MIT", "source": null},
            {"id": "b", "name": "b", "version": "1.0.0", "license": null, "source": "registry+x"}
        ],
        "resolve": {"nodes": [{"id": "a"}]}
    }"#;
    let names: Vec<_> = parse(text).unwrap().into_iter().map(|package| package.name).collect();
    assert_eq!(names, ["a"]);
}
