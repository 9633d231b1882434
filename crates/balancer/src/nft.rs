//! Running `nft`: finding it, feeding it a script, bounding its time. The child lives in the calling thread's namespace.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::{Error, Result};

/// Thousands of services take a second; beyond this something hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the package puts it, should the daemon's PATH lack it.
const USUAL_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// Of what nft writes to stderr no more is kept.
const MAX_COMPLAINT: usize = 64 * 1024;

/// The `nft` command.
#[derive(Debug, Clone)]
pub(crate) struct Nft {
    binary: Arc<PathBuf>,
}

impl Nft {
    /// Finds the command in PATH or where packages put it.
    pub(crate) fn find() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        Self::find_in(env::split_paths(&path).chain(USUAL_FOLDERS.map(PathBuf::from)))
    }

    fn find_in(folders: impl Iterator<Item = PathBuf>) -> Result<Self> {
        let mut files = folders.map(|folder| folder.join("nft"));
        let found = files.find(|file| file.is_file());
        found.map(|file| Self { binary: Arc::new(file) }).ok_or(Error::MissingNft)
    }

    /// Commits a script as one transaction.
    pub(crate) fn commit(&self, script: &str) -> Result<()> {
        self.run(&["-f", "-"], script).map(drop)
    }

    /// The table's text without counters; `None` if there is no table.
    pub(crate) fn list(&self) -> Result<Option<String>> {
        match self.run(&["-s", "list", "table", "ip", "swarm"], "") {
            Ok(text) => Ok(Some(text)),
            Err(Error::Refused { reason }) if reason.contains("No such file or directory") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut output = anonymous_file().map_err(failed("make a file for nft's output"))?;
        let mut child = self.spawn(arguments, input, &output).map_err(failed("start nft"))?;
        let complaint = finish(&mut child)?;
        if !child.wait().map_err(failed("wait for nft"))?.success() {
            let reason = complaint.lines().next().unwrap_or("without a reason").to_owned();
            return Err(Error::Refused { reason });
        }
        let mut text = String::new();
        output
            .rewind()
            .and_then(|()| output.read_to_string(&mut text))
            .map_err(failed("read nft's output"))?;
        Ok(text)
    }

    /// Input and output are files, so that neither side can block the other.
    fn spawn(&self, arguments: &[&str], input: &str, output: &File) -> io::Result<Child> {
        let mut script = anonymous_file()?;
        script.write_all(input.as_bytes())?;
        script.rewind()?;
        let mut command = Command::new(self.binary.as_path());
        command
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(script)
            .stdout(output.try_clone()?)
            .stderr(Stdio::piped());
        command.spawn()
    }
}

/// Whether two listings say the same: nft lists chains and elements in the order of their making, which differs after a
/// rebuild.
pub(crate) fn same(listing: Option<&str>, other: Option<&str>) -> bool {
    listing.map(words) == other.map(words)
}

/// How often each word occurs.
fn words(listing: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in listing.split([' ', '\t', '\n', ',']).filter(|word| !word.is_empty()) {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

fn anonymous_file() -> io::Result<File> {
    Ok(memfd_create(c"nft", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Reads what the child complains about until it ends, or kills it: its transaction is then made whole or not at all.
fn finish(child: &mut Child) -> Result<String> {
    let stderr = child.stderr.take().expect("stderr is piped");
    let complaint = read_until_end(stderr, Instant::now() + PATIENCE);
    if complaint.is_err() {
        child.kill().map_err(failed("kill nft"))?;
        child.wait().map_err(failed("wait for nft"))?;
    }
    complaint
}

fn read_until_end(mut stderr: ChildStderr, deadline: Instant) -> Result<String> {
    let mut complaint = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)], timeout);
        if ready.map_err(|errno| failed("wait for nft")(errno.into()))? == 0 {
            return Err(Error::NftTimeout { seconds: PATIENCE.as_secs() });
        }
        let read = stderr.read(&mut buffer).map_err(failed("read nft's complaints"))?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&complaint).into_owned());
        }
        let room = MAX_COMPLAINT.saturating_sub(complaint.len());
        complaint.extend(&buffer[..read.min(room)]);
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Nft { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_command_names_its_package() {
        let error = Nft::find_in([PathBuf::from("/proc/self/net")].into_iter()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the nft command is not installed: install the package nftables"
        );
    }

    #[test]
    fn a_refusal_carries_the_first_complaint() {
        let error = Nft::find().expect("nft is installed").commit("nonsense\nmore\n").unwrap_err();
        let Error::Refused { reason } = error else { panic!("{error}") };
        assert!(reason.contains("syntax error") && !reason.contains('\n'), "{reason}");
    }
}
