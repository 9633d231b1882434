//! What we depend on: no crate in two versions, no licence and no source that we do not know, but for the exceptions in
//! `deny.toml`. That file is cargo-deny's; these three checks are small, while building cargo-deny takes a clean machine longer
//! than a good part of the tests.

mod graph;
mod policy;

use crate::run::workspace;
use anyhow::{Context, Result, bail};
use graph::Package;
use policy::{Licenses, Policy, expression};
use std::collections::BTreeMap;

/// Checks the crates in `Cargo.lock` against `deny.toml`.
pub(crate) fn run() -> Result<()> {
    let file = workspace().join("deny.toml");
    let text = std::fs::read_to_string(&file).context("cannot read deny.toml")?;
    let policy = toml::from_str(&text).context("cannot understand deny.toml")?;
    let complaints = check(&policy, &graph::packages(&policy.graph.targets)?);
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("dependencies:\n    {}", complaints.join("\n    "))
}

fn check(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let mut complaints = duplicates(policy, packages);
    let foreign = || packages.iter().filter(|package| package.source.is_some());
    complaints.extend(foreign().filter_map(|package| license(&policy.licenses, package)));
    complaints.extend(foreign().filter_map(|package| source(policy, package)));
    complaints.extend(unused(policy, packages));
    complaints
}

/// Crates that are there in more than one version, skipped versions aside.
fn duplicates(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let mut versions = BTreeMap::<&str, Vec<String>>::new();
    for Package { name, version, .. } in packages {
        if !policy.bans.skip.iter().any(|skip| skip.krate.matches(name, version)) {
            versions.entry(name).or_default().push(version.to_string());
        }
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    several.map(|(name, versions)| format!("{name} comes in {}", versions.join(" and "))).collect()
}

fn license(licenses: &Licenses, package: &Package) -> Option<String> {
    let Package { name, version, .. } = package;
    let clarified = licenses.clarify.iter().find(|clarify| clarify.krate.matches(name, version));
    let text = clarified.map(|clarify| &clarify.expression).or(package.license.as_ref());
    let Some(text) = text else {
        return Some(format!("{name} {version} names no licence"));
    };
    let Ok(expression) = expression(text) else {
        return Some(format!("{name} {version} has a licence that is no SPDX expression: {text}"));
    };
    let exceptions = licenses.exceptions.iter().filter(|e| e.krate.matches(name, version));
    let allowed: Vec<_> =
        licenses.allow.iter().chain(exceptions.flat_map(|exception| &exception.allow)).collect();
    let fine = expression.evaluate(|wanted| allowed.iter().any(|name| name.satisfies(wanted)));
    (!fine).then(|| format!("{name} {version} has a licence that is not allowed: {text}"))
}

fn source(policy: &Policy, package: &Package) -> Option<String> {
    let source = package.source.as_deref()?;
    let known = source
        .strip_prefix("registry+")
        .is_some_and(|registry| policy.sources.allow_registry.iter().any(|url| url == registry));
    let Package { name, version, .. } = package;
    (!known).then(|| format!("{name} {version} comes from {source}, which is not allowed"))
}

/// Exceptions that nothing needs any more, since the crate or its other versions are gone, and such without a reason.
fn unused(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let Licenses { exceptions, clarify, .. } = &policy.licenses;
    let of_licenses =
        exceptions.iter().map(|e| &e.krate).chain(clarify.iter().map(|clarify| &clarify.krate));
    let mut complaints: Vec<_> = policy
        .bans
        .skip
        .iter()
        .map(|skip| &skip.krate)
        .chain(of_licenses)
        .filter(|spec| !packages.iter().any(|p| spec.matches(&p.name, &p.version)))
        .map(|spec| format!("deny.toml has an exception for {}, which is not there", spec.text))
        .collect();
    let alone = policy.bans.skip.iter().filter(|skip| {
        let same = |p: &Package| skip.krate.matches(&p.name, &p.version);
        let found = packages.iter().find(|p| same(p));
        found.is_some_and(|found| packages.iter().filter(|p| p.name == found.name).all(same))
    });
    complaints.extend(alone.map(|skip| {
        format!("deny.toml skips {}, of which there is no other version", skip.krate.text)
    }));
    let without = policy.bans.skip.iter().filter(|skip| skip.reason.trim().is_empty());
    complaints.extend(
        without.map(|skip| format!("deny.toml skips {} without a reason", skip.krate.text)),
    );
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [graph]
        targets = []
        [bans]
        multiple-versions = "deny"
        skip = [{ crate = "old@0.1", reason = "it is" }]
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        exceptions = [{ crate = "odd@1", allow = ["MPL-2.0"] }]
        clarify = [{ crate = "silent@1.0.0", expression = "MIT", license-files = [] }]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
        allow-registry = ["https://github.com/rust-lang/crates.io-index"]
    "#;

    /// What is wrong when these are there beside what the exceptions are for.
    fn complaints(more: &[Package]) -> Vec<String> {
        let mut packages = vec![
            Package::of("old", "0.1.7", Some("MIT")),
            Package::of("old", "0.2.0", Some("MIT/Apache-2.0")),
            Package::of("odd", "1.2.3", Some("MPL-2.0 OR LGPL-3.0-or-later")),
            Package::of("silent", "1.0.0", None),
        ];
        packages.extend(more.iter().cloned());
        check(&toml::from_str(POLICY).unwrap(), &packages)
    }

    #[test]
    fn exceptions_hold() {
        assert_eq!(complaints(&[]), [""; 0]);
    }

    #[test]
    fn a_second_version_is_named() {
        let third = Package::of("old", "0.3.0", Some("MIT"));
        assert_eq!(complaints(&[third]), ["old comes in 0.2.0 and 0.3.0"]);
    }

    #[test]
    fn a_licence_counts_for_the_crate_it_is_allowed_for() {
        let more = [
            Package::of("a", "1.0.0", Some("MPL-2.0")),
            Package::of("b", "1.0.0", Some("MIT AND ISC")),
            Package::of("c", "1.0.0", None),
            Package::of("d", "1.0.0", Some("mine")),
        ];
        let expected = [
            "a 1.0.0 has a licence that is not allowed: MPL-2.0",
            "b 1.0.0 has a licence that is not allowed: MIT AND ISC",
            "c 1.0.0 names no licence",
            "d 1.0.0 has a licence that is no SPDX expression: mine",
        ];
        assert_eq!(complaints(&more), expected);
    }

    #[test]
    fn only_the_registry_is_a_source() {
        let mut fork = Package::of("a", "1.0.0", Some("MIT"));
        fork.source = Some("git+https://example.org/a".to_string());
        let expected = "a 1.0.0 comes from git+https://example.org/a, which is not allowed";
        assert_eq!(complaints(&[fork]), [expected]);
    }

    #[test]
    fn an_exception_ends_with_what_it_is_for() {
        let policy = toml::from_str(POLICY).unwrap();
        assert_eq!(check(&policy, &[]).len(), 3);
    }

    #[test]
    fn a_skip_ends_with_the_other_version() {
        let policy = toml::from_str(POLICY).unwrap();
        let complaints = check(&policy, &[Package::of("old", "0.1.7", Some("MIT"))]);
        let expected = "deny.toml skips old@0.1, of which there is no other version";
        assert!(complaints.iter().any(|complaint| complaint == expected), "{complaints:?}");
    }

    #[test]
    fn words_without_effect_are_refused() {
        for (word, other) in [("[bans]", "[bans]\nwildcards = \"deny\""), ("\"it is\"", "1")] {
            assert!(toml::from_str::<Policy>(&POLICY.replacen(word, other, 1)).is_err());
        }
        let warns = POLICY.replace("versions = \"deny\"", "versions = \"warn\"");
        assert!(toml::from_str::<Policy>(&warns).is_err());
    }
}
