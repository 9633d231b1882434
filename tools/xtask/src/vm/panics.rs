//! A panic of the guest must fail whatever runs there, with its console: provoked, so that the suites can rely on it.

use super::in_vm;
use anyhow::{Context, Result, ensure};
use std::process::Output;

/// What run.sh exits with when the guest died.
const DIED: i32 = 125;

pub(super) fn check() -> Result<()> {
    let mut vm = in_vm();
    vm.args(["bash", "-c", "echo c >/proc/sysrq-trigger; echo it goes on"]);
    judge(&vm.output().context("cannot run the VM")?)
}

fn judge(output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    let console = "sysrq triggered crash";
    ensure!(
        output.status.code() == Some(DIED) && said.contains(console) && output.stdout.is_empty(),
        "a panic of the guest should end the run with {DIED} and its console; it ended with {}: {said}",
        output.status
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_panic_that_passes_unseen_is_an_error() {
        let outcome = |script: &str| {
            judge(&Command::new("sh").args(["-c", script]).output().unwrap()).is_ok()
        };
        assert!(outcome("echo Kernel panic: sysrq triggered crash >&2; exit 125"));
        assert!(!outcome("echo Kernel panic: sysrq triggered crash >&2; exit 0"));
        assert!(!outcome("exit 125"));
        assert!(!outcome("echo it goes on; echo sysrq triggered crash >&2; exit 125"));
    }
}
