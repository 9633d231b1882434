//! The tests that run in the VM: built here, run there by a script beside `run.sh`.

use crate::run::{cargo, output, status, workspace};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// Seconds that a suite may take: an emulated CPU is slow, and the machine may be busy.
const TIMEOUT: &str = "300";

/// A script `integration-tests/vm/NAME.sh`, called with the programs it needs.
pub(super) struct Suite {
    pub(super) name: &'static str,
    package: &'static str,
    /// `--test` or `--example`, and the target's name; in the order of the script's arguments.
    programs: &'static [(&'static str, &'static str)],
}

const SUITES: [Suite; 3] = [
    Suite {
        name: "ipvs-rs",
        package: "ipvs-rs",
        programs: &[("--test", "kernel"), ("--example", "ipvs-list")],
    },
    Suite { name: "balancer", package: "swarm-balancer", programs: &[("--test", "ipvs")] },
    Suite { name: "ipsec", package: "swarm-ipsec", programs: &[("--test", "kernel")] },
];

/// One suite by name, or all.
pub(super) fn choose(only: Option<&str>) -> Result<Vec<&'static Suite>> {
    let chosen: Vec<_> =
        SUITES.iter().filter(|suite| only.is_none_or(|name| name == suite.name)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        bail!("no suite {:?}: there are {}", only.unwrap_or_default(), names.join(", "));
    }
    Ok(chosen)
}

impl Suite {
    /// Builds the programs and runs the script in the VM that `vm` starts.
    pub(super) fn run(&self, mut vm: Command) -> Result<()> {
        let script = workspace().join("integration-tests/vm").join(format!("{}.sh", self.name));
        vm.arg("bash").arg(script).args(self.build()?).env("VM_TIMEOUT", TIMEOUT);
        status(vm.current_dir(workspace()))
    }

    fn build(&self) -> Result<Vec<PathBuf>> {
        let mut build = cargo();
        build.args(["build", "--quiet", "--message-format", "json", "-p", self.package]);
        build.args(self.programs.iter().flat_map(|(kind, name)| [kind, name]));
        let built = executables(&output(&mut build)?)?;
        let path = |(_, name): &(_, &str)| {
            built.get(*name).cloned().with_context(|| format!("cargo built no program {name}"))
        };
        self.programs.iter().map(path).collect()
    }
}

/// The programs that cargo says it built, by target.
fn executables(messages: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for line in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cannot read cargo's messages")?;
        if let (Some(name), Some(path)) =
            (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_its_script() {
        for suite in &SUITES {
            let script = workspace().join(format!("integration-tests/vm/{}.sh", suite.name));
            assert!(script.is_file(), "{}", script.display());
        }
    }

    #[test]
    fn suites_are_chosen_by_name() {
        assert_eq!(choose(None).unwrap().len(), SUITES.len());
        assert_eq!(choose(Some("ipvs-rs")).unwrap()[0].name, "ipvs-rs");
        let error = choose(Some("nosuch")).err().unwrap();
        assert!(error.to_string().starts_with("no suite \"nosuch\": there are ipvs-rs"));
    }

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let expected = [("kernel".to_owned(), PathBuf::from("/t/kernel-1"))];
        assert_eq!(executables(messages).unwrap(), expected.into());
    }
}
