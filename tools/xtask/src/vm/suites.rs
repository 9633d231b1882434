//! The tests that run in the VM: built here, run there by a script beside `run.sh`.

use crate::binaries::{VM_PROFILE, build_for_vm, target_dir, write_image};
use crate::run::{cargo, output, status, workspace};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// `--test` or `--example`, and the target's name.
type Program = (&'static str, &'static str);

/// What a suite runs, which its script is called with.
#[derive(Clone, Copy)]
enum Runs {
    /// Programs of a package, in the order of the script's arguments.
    Programs(&'static str, &'static [Program]),
    /// A test of clusters on a playground: all is optimized, and these suites share a script.
    Playground(&'static str),
    /// What a host has installed: the directory of the optimized programs, with an image.
    Host,
}

/// A script `integration-tests/vm/NAME.sh`, called with what it runs.
pub(super) struct Suite {
    pub(super) name: &'static str,
    runs: Runs,
    /// Takes hours: only run when it is named.
    long: bool,
    /// Seconds that it may take: an emulated CPU is slow, and the machine may be busy.
    timeout: u32,
}

/// Every change of a service under traffic, with IPVS; as often as `SWARM_RUNS` says.
pub(super) const TRAFFIC: &str = "traffic";

const IPVS_RS: &[Program] = &[("--test", "kernel"), ("--example", "ipvs-list")];
const BALANCER: &[Program] = &[("--test", "ipvs"), ("--test", "nftables")];
const IPSEC: &[Program] = &[("--test", "kernel")];

const SUITES: [Suite; 7] = [
    suite("ipvs-rs", Runs::Programs("ipvs-rs", IPVS_RS), 300),
    suite("balancer", Runs::Programs("swarm-balancer", BALANCER), 400),
    suite("ipsec", Runs::Programs("swarm-ipsec", IPSEC), 300),
    suite("playground", Runs::Playground("ipvs"), 900),
    suite("encrypted", Runs::Playground("esp"), 900),
    suite("deploy", Runs::Host, 400),
    Suite { long: true, ..suite(TRAFFIC, Runs::Playground("traffic"), 5 * 60 * 60) },
];

const fn suite(name: &'static str, runs: Runs, timeout: u32) -> Suite {
    Suite { name, runs, long: false, timeout }
}

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
            .env("VM_ENV", "SWARM_RUNS SWARM_PAUSE")
            .env("VM_TIMEOUT", self.timeout.to_string());
        status(vm.current_dir(workspace()))
    }

    fn script(&self) -> PathBuf {
        let name = match self.runs {
            Runs::Playground(_) => "playground",
            Runs::Programs(..) | Runs::Host => self.name,
        };
        workspace().join(format!("integration-tests/vm/{name}.sh"))
    }

    /// Builds what the suite runs; gives the script's arguments.
    fn build(&self) -> Result<Vec<PathBuf>> {
        match self.runs {
            Runs::Programs(package, programs) => build_programs(package, programs, "dev"),
            Runs::Playground(test) => {
                build_for_vm()?;
                build_programs("swarm-integration-tests", &[("--test", test)], VM_PROFILE)
            }
            Runs::Host => {
                build_for_vm()?;
                let dir = target_dir()?.join(VM_PROFILE);
                write_image(&dir, &dir.join("whoami.tar"))?;
                Ok(vec![dir])
            }
        }
    }
}

fn build_programs(package: &str, programs: &[Program], profile: &str) -> Result<Vec<PathBuf>> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--message-format", "json", "-p", package]);
    build.args(["--profile", profile]);
    build.args(programs.iter().flat_map(|(kind, name)| [kind, name]));
    let built = executables(&output(&mut build)?)?;
    let path = |(_, name): &Program| {
        built.get(*name).cloned().with_context(|| format!("cargo built no program {name}"))
    };
    programs.iter().map(path).collect()
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
