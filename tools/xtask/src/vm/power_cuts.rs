//! `cargo xtask vm power-cuts`: three managers in a VM write to a disk; at random moments the power goes (the emulator is
//! killed, and with it all that the guest had not synced). After each boot all that was acknowledged must be there.

use super::{prepare, script};
use crate::binaries::{VM_PROFILE, build_for_vm, target_dir, write_image};
use crate::interrupt;
use crate::run::{cargo, status, workspace};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest that a boot may take until all managers serve: an emulated CPU is slow.
const SERVING: Duration = Duration::from_secs(240);
/// The power goes between these after the first write of a boot was acknowledged.
const UNDER_LOAD_MS: std::ops::Range<u64> = 200..6000;
const DISK_BYTES: u64 = 1 << 30;
const IMAGE: &str = "whoami.tar";

/// Options of `cargo xtask vm power-cuts`.
#[derive(Args)]
pub(super) struct Options {
    /// How often the power goes
    #[arg(long, default_value_t = 20)]
    pub(super) cuts: usize,
    /// One manager at a time, while the others go on; else the whole machine
    #[arg(long)]
    pub(super) one: bool,
}

/// What a boot said.
enum Word {
    Has(String),
    Serving,
    Acknowledged(String),
}

/// A machine that is on.
struct Machine {
    child: Child,
    pid_file: PathBuf,
    words: Receiver<Word>,
}

/// Cuts the power again and again; fails if anything acknowledged is lost.
pub(super) fn run(options: &Options) -> Result<()> {
    prepare()?;
    eprintln!("building");
    build_for_vm()?;
    let load = ["build", "--quiet", "--profile", VM_PROFILE, "--bins", "-p", "swarm-bench"];
    status(cargo().args(load))?;
    interrupt::catch()?;
    let dir = std::env::temp_dir().join(format!("power-cuts-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let done = cut_in(options, &dir);
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    done
}

fn cut_in(options: &Options, dir: &Path) -> Result<()> {
    let disk = dir.join("disk");
    fs::File::create(&disk)?.set_len(DISK_BYTES)?;
    status(Command::new("mkfs.ext4").arg("-q").arg(&disk))?;
    // What the services that are created are of: an image that does not exist would be refused.
    write_image(&target_dir()?.join(VM_PROFILE), &dir.join(IMAGE))?;
    if options.one { cut_one(options.cuts, dir, &disk) } else { cut(options.cuts, dir, &disk) }
}

/// All of it happens in one run of the VM.
fn cut_one(cuts: usize, dir: &Path, disk: &Path) -> Result<()> {
    let mut vm = script("run.sh");
    vm.arg("bash").arg(workspace().join("integration-tests/vm/power-cut-one.sh"));
    vm.arg(target_dir()?.join(VM_PROFILE)).arg(dir.join(IMAGE)).arg(cuts.to_string());
    let patience = SERVING.as_secs() * (1 + cuts as u64);
    vm.env("VM_DISK", disk).env("VM_MEM", "2G").env("VM_TIMEOUT", patience.to_string());
    status(vm.current_dir(workspace()))
}

fn cut(cuts: usize, dir: &Path, disk: &Path) -> Result<()> {
    let mut acknowledged = BTreeSet::new();
    let mut slowest = Duration::ZERO;
    for number in 0..=cuts {
        interrupt::check()?;
        let began = Instant::now();
        let machine = Machine::on(dir, disk, &format!("b{number}"))?;
        let has = machine.until_serving()?;
        let took = began.elapsed();
        slowest = slowest.max(took);
        let lost: Vec<_> = acknowledged.difference(&has).collect();
        ensure!(
            lost.is_empty(),
            "after {number} cuts {} acknowledged writes are lost: {lost:?}",
            lost.len()
        );
        if number == cuts {
            machine.off()?;
            break;
        }
        let new = machine.under_load()?;
        println!(
            "cut {:>3}: {:>6} acknowledged before, all there; {:>4} more; serving {:.1} s after power-on",
            number + 1,
            acknowledged.len(),
            new.len(),
            took.as_secs_f64()
        );
        acknowledged.extend(new);
    }
    println!(
        "{cuts} power cuts: {} writes acknowledged, 0 lost; serving at most {:.1} s after power-on (emulated)",
        acknowledged.len(),
        slowest.as_secs_f64()
    );
    Ok(())
}

impl Machine {
    fn on(dir: &Path, disk: &Path, prefix: &str) -> Result<Machine> {
        let pid_file = dir.join("pid");
        let programs = target_dir()?.join(VM_PROFILE);
        let mut vm = script("run.sh");
        vm.arg("bash").arg(workspace().join("integration-tests/vm/power-cut.sh"));
        vm.arg(programs).arg(dir.join(IMAGE)).arg(prefix);
        vm.env("VM_DISK", disk).env("VM_PID", &pid_file).env("VM_MEM", "2G");
        vm.env("VM_TIMEOUT", "600").current_dir(workspace());
        // That the guest died is no news here.
        vm.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join("stderr"))?);
        let mut child = vm.spawn().context("cannot run the VM")?;
        let output = child.stdout.take().context("the VM has no output")?;
        let (tell, words) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(word) = word(&line)
                    && tell.send(word).is_err()
                {
                    return;
                }
            }
        });
        Ok(Machine { child, pid_file, words })
    }

    /// What is there once all managers serve.
    fn until_serving(&self) -> Result<BTreeSet<String>> {
        let deadline = Instant::now() + SERVING;
        let mut has = BTreeSet::new();
        loop {
            match self.hear(deadline)? {
                Word::Has(name) => drop(has.insert(name)),
                Word::Serving => return Ok(has),
                Word::Acknowledged(name) => bail!("{name} was acknowledged before all served"),
            }
        }
    }

    /// Takes the power away at some moment; what was acknowledged until then.
    fn under_load(self) -> Result<BTreeSet<String>> {
        let mut acknowledged = BTreeSet::new();
        let mut end = Instant::now() + SERVING;
        loop {
            match self.words.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Word::Acknowledged(name)) => {
                    if acknowledged.is_empty() {
                        end = Instant::now() + moment();
                    }
                    acknowledged.insert(name);
                }
                Ok(Word::Has(_) | Word::Serving) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => bail!("{}", self.last_words()),
            }
        }
        ensure!(!acknowledged.is_empty(), "no write was acknowledged: {}", self.last_words());
        let words = self.off()?;
        // Acknowledged, but not heard of yet when the power went.
        acknowledged.extend(words.into_iter().filter_map(|word| match word {
            Word::Acknowledged(name) => Some(name),
            Word::Has(_) | Word::Serving => None,
        }));
        Ok(acknowledged)
    }

    /// Kills the emulator; what it had said.
    fn off(mut self) -> Result<Vec<Word>> {
        let pid = fs::read_to_string(&self.pid_file).context("the emulator has no process id")?;
        kill(Pid::from_raw(pid.trim().parse()?), Signal::SIGKILL)
            .context("cannot cut the power")?;
        self.child.wait().context("cannot wait for the VM")?;
        Ok(self.words.iter().collect())
    }

    fn hear(&self, deadline: Instant) -> Result<Word> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.words.recv_timeout(left).map_err(|_| anyhow::anyhow!("{}", self.last_words()))
    }

    /// The end of what the guest complained of.
    fn last_words(&self) -> String {
        let path = self.pid_file.with_file_name("stderr");
        let text = fs::read_to_string(path).unwrap_or_else(|e| e.to_string());
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        format!("the VM does not serve: {}", lines.into_iter().rev().collect::<Vec<_>>().join("; "))
    }
}

fn word(line: &str) -> Option<Word> {
    if line == "serving" {
        return Some(Word::Serving);
    }
    let (kind, name) = line.split_once(' ')?;
    match kind {
        "has" => Some(Word::Has(name.to_owned())),
        "acknowledged" => Some(Word::Acknowledged(name.to_owned())),
        _ => None,
    }
}

/// A time under load that nobody chose: the hash of nothing by a hasher with random keys.
fn moment() -> Duration {
    let random = RandomState::new().hash_one(());
    let span = UNDER_LOAD_MS.end - UNDER_LOAD_MS.start;
    Duration::from_millis(UNDER_LOAD_MS.start + random % span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() {
        assert!(matches!(word("has a-1"), Some(Word::Has(name)) if name == "a-1"));
        assert!(
            matches!(word("acknowledged a-2"), Some(Word::Acknowledged(name)) if name == "a-2")
        );
        assert!(matches!(word("serving"), Some(Word::Serving)));
        assert!(word("a-3: unavailable").is_none() && word("").is_none());
    }

    #[test]
    fn moments_are_within_bounds() {
        for _ in 0..100 {
            let moment = moment().as_millis() as u64;
            assert!(UNDER_LOAD_MS.contains(&moment));
        }
    }
}
