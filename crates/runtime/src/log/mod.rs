//! What containers print: files of JSON lines as Docker's `json-file` driver writes them
//! (`{"log":"...\n","stream":"stdout","time":"..."}`), numbered upwards (`00000001.log`), of which the newest are kept.
//! The shim writes; the daemon reads. Neither waits for the other.

mod changes;
mod cursor;
mod lines;
mod stream;
mod writer;

pub(crate) use changes::{Changes, Subscription};
pub(crate) use lines::LineSplitter;
pub(crate) use stream::open;
pub use stream::{LogLine, LogOptions, LogStream};
pub(crate) use writer::LogWriter;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a line was printed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line of a log file.
#[derive(Debug, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    stream: Stream,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// Numbers of the log files there are, ascending.
fn file_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(number) =
            name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
