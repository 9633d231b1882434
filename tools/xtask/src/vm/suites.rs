//! The tests that run in the VM: built here, run there by a script beside `run.sh`.

use crate::binaries::{VM_PROFILE, build_for_vm, target_dir, write_image};
use crate::run::{cargo, output, status, workspace};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// What a suite's script is called with.
#[derive(Clone, Copy)]
enum Needs {
    /// Test programs.
    Tests,
    /// Test programs that run a playground: all is optimized, and the suites share a script.
    Playground,
    /// The directory with the optimized programs of a host, and an image.
    Host,
}

/// A script `integration-tests/vm/NAME.sh`, called with what it needs.
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// Of the programs.
    package: &'static str,
    needs: Needs,
    /// Takes hours: only run when it is named.
    long: bool,
    /// Seconds that it may take: an emulated CPU is slow, and the machine may be busy.
    timeout: u32,
    /// `--test` or `--example`, and the target's name; in the order of the script's arguments.
    programs: &'static [(&'static str, &'static str)],
}

/// Every change of a service under traffic, with IPVS; as often as `SWARM_RUNS` says.
pub(super) const TRAFFIC: &str = "traffic";

const SUITES: [Suite; 7] = [
    Suite {
        name: "ipvs-rs",
        package: "ipvs-rs",
        needs: Needs::Tests,
        long: false,
        timeout: 300,
        programs: &[("--test", "kernel"), ("--example", "ipvs-list")],
    },
    Suite {
        name: "balancer",
        package: "swarm-balancer",
        needs: Needs::Tests,
        long: false,
        timeout: 400,
        programs: &[("--test", "ipvs"), ("--test", "nftables")],
    },
    Suite {
        name: "ipsec",
        package: "swarm-ipsec",
        needs: Needs::Tests,
        long: false,
        timeout: 300,
        programs: &[("--test", "kernel")],
    },
    Suite {
        name: "playground",
        package: "swarm-integration-tests",
        needs: Needs::Playground,
        long: false,
        timeout: 900,
        programs: &[("--test", "ipvs")],
    },
    Suite {
        name: "encrypted",
        package: "swarm-integration-tests",
        needs: Needs::Playground,
        long: false,
        timeout: 900,
        programs: &[("--test", "esp")],
    },
    Suite {
        name: "deploy",
        package: "swarmd",
        needs: Needs::Host,
        long: false,
        timeout: 400,
        programs: &[],
    },
    Suite {
        name: TRAFFIC,
        package: "swarm-integration-tests",
        needs: Needs::Playground,
        long: true,
        timeout: 5 * 60 * 60,
        programs: &[("--test", "traffic")],
    },
];

/// One suite by name, or all that do not take long.
pub(super) fn choose(only: Option<&str>) -> Result<Vec<&'static Suite>> {
    let is_chosen = |suite: &&Suite| only.map_or(!suite.long, |name| name == suite.name);
    let chosen: Vec<_> = SUITES.iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        bail!("no suite {:?}: there are {}", only.unwrap_or_default(), names.join(", "));
    }
    Ok(chosen)
}

impl Suite {
    /// Builds the programs and runs the script in the VM that `vm` starts.
    pub(super) fn run(&self, mut vm: Command) -> Result<()> {
        vm.arg("bash")
            .arg(self.script())
            .args(self.build()?)
            .env("VM_ENV", "SWARM_RUNS")
            .env("VM_TIMEOUT", self.timeout.to_string());
        status(vm.current_dir(workspace()))
    }

    fn script(&self) -> PathBuf {
        let name = match self.needs {
            Needs::Playground => "playground",
            Needs::Tests | Needs::Host => self.name,
        };
        workspace().join(format!("integration-tests/vm/{name}.sh"))
    }

    fn build(&self) -> Result<Vec<PathBuf>> {
        let mut build = cargo();
        build.args(["build", "--quiet", "--message-format", "json", "-p", self.package]);
        match self.needs {
            Needs::Tests => {}
            Needs::Playground => {
                build_for_vm()?;
                build.args(["--profile", VM_PROFILE]);
            }
            Needs::Host => {
                build_for_vm()?;
                let dir = target_dir()?.join(VM_PROFILE);
                write_image(&dir, &dir.join("whoami.tar"))?;
                return Ok(vec![dir]);
            }
        }
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
            assert!(suite.script().is_file(), "{}", suite.script().display());
        }
    }

    /// A test program of which `a` and `b::c` fail, and some succeed at the second try.
    fn second_try(fails: &str) -> (bool, String) {
        let dir = std::env::temp_dir().join(format!("xtask-tests-{}-{fails}", std::process::id()));
        let (a, b) = ("test a ... FAILED", "failures:\n    a\n    b::c\n\ntest result: FAILED.");
        let first = format!("failures:\n\n---- a stdout ----\n    oddly\n\n{a}\n{b}");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--exact*) echo \"again: $*\"; exit {fails};; esac\necho '{first}'\nexit 101\n"
        );
        // Written by the shell: what we write ourselves a child of another thread may hold open, and it could not be run.
        let write_and_run =
            "printf %s \"$2\" >\"$1\"; chmod +x \"$1\"; bash integration-tests/vm/tests.sh \"$1\"";
        let mut tests = Command::new("bash");
        tests.args(["-c", write_and_run, "-"]).arg(&dir).arg(script).current_dir(workspace());
        let output = tests.output().unwrap();
        std::fs::remove_file(&dir).unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn a_test_that_passes_at_the_second_try_is_flaky() {
        let (succeeded, said) = second_try("0");
        assert!(succeeded && said.contains("--exact a b::c\n"), "{said}");
        assert!(said.ends_with("second try: a\nFLAKY, passed at the second try: b::c\n"), "{said}");
        let (succeeded, said) = second_try("101");
        assert!(!succeeded && !said.contains("FLAKY"), "{said}");
    }

    #[test]
    fn suites_are_chosen_by_name() {
        let all = choose(None).unwrap();
        assert!(all.len() == SUITES.len() - 1 && all.iter().all(|suite| suite.name != TRAFFIC));
        assert_eq!(choose(Some(TRAFFIC)).unwrap().len(), 1);
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
