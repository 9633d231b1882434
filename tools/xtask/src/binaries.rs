//! `cargo xtask build`: the programs that a playground runs, all in the directory of the debug profile; for
//! `cargo xtask bench` in that of a profile to measure.

use crate::run::{cargo, output, status};
use anyhow::{Context, Result};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use swarm_playground::{Binaries, sample_image};

/// The sample server, which is linked statically here: its image is smaller, and it starts faster.
const WHOAMI: &str = "swarm-whoami";
/// The packages of a playground's programs, `whoami` apart.
const PLAYGROUND: [&str; 6] = ["-p", "swarmd", "-p", "swarm-cli", "-p", "swarm-playground"];

/// Builds everything; gives the directory.
pub(crate) fn build() -> Result<PathBuf> {
    let dir = target_dir()?.join("debug");
    let packages = [&PLAYGROUND[..], &["-p", "swarm-runtime"]].concat();
    status(cargo().args(["build", "--quiet", "--bins"]).args(packages))?;
    build_whoami(&dir)?;
    Ok(dir)
}

/// The profile of what runs on the VM's emulated CPU.
pub(crate) const VM_PROFILE: &str = "vm";

/// Builds what a playground in the VM runs.
pub(crate) fn build_for_vm() -> Result<()> {
    status(cargo().args(["build", "--quiet", "--profile", VM_PROFILE, "--bins"]).args(PLAYGROUND))?;
    build_whoami(&target_dir()?.join(VM_PROFILE))
}

/// The optimized programs that are put under load.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Programs {
    /// Use the programs as they were built last
    #[arg(long)]
    no_build: bool,
    /// Use programs that build in less time and are a little slower: to work on what measures them
    #[arg(long)]
    quick_build: bool,
}

impl Programs {
    /// Builds the programs, and what measures them, unless those of the last time are wanted; gives the directory.
    pub(crate) fn build(self) -> Result<PathBuf> {
        let profile = if self.quick_build { "bench-dev" } else { "release" };
        let dir = target_dir()?.join(profile);
        if !self.no_build {
            eprintln!("building");
            let packages = [&PLAYGROUND[..], &["-p", "swarm-bench"]].concat();
            status(
                cargo().args(["build", "--quiet", "--profile", profile, "--bins"]).args(packages),
            )?;
            build_whoami(&dir)?;
        }
        Ok(dir)
    }
}

/// Builds `whoami` statically and puts it into `dir`. A target directory of its own keeps these flags from rebuilding anything else.
pub(crate) fn build_whoami(dir: &Path) -> Result<()> {
    let target = host_target()?;
    let own_dir = target_dir()?.join("static");
    status(
        cargo()
            .args(["rustc", "--quiet", "-p", "whoami", "--bin", WHOAMI, "--release"])
            .args(["--target", &target, "--target-dir"])
            .arg(&own_dir)
            .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]),
    )?;
    let built = own_dir.join(target).join("release").join(WHOAMI);
    replace(&built, &dir.join(WHOAMI))
}

/// Writes the sample image of the programs in `dir`.
pub(crate) fn write_image(dir: &Path, image: &Path) -> Result<()> {
    let whoami = Binaries::in_dir(dir)?.whoami;
    let file =
        fs::File::create(image).with_context(|| format!("cannot create {}", image.display()))?;
    sample_image::write(&whoami, file)?;
    Ok(())
}

/// Copies by way of a new file: the old one may be running in a playground.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension("new");
    fs::copy(from, &temporary).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&temporary, to).with_context(|| format!("cannot write {}", to.display()))
}

pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata =
        output(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("cannot read cargo metadata")?;
    let dir = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(dir))
}

/// The triple of this machine, which must be named for crt-static not to apply to build scripts.
fn host_target() -> Result<String> {
    let version = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
