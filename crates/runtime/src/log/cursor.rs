//! A place in a container's log files, and reading on from it. Blocking.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{LogLine, LogOptions, Record, Stream, file_numbers, file_path};

/// Bytes read at once; more than the longest record (16 KiB of control characters, six bytes each).
const BLOCK: usize = 128 * 1024;

/// Which records are wanted.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    stdout: bool,
    stderr: bool,
    since: Option<OffsetDateTime>,
}

impl Filter {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            stdout: options.stdout,
            stderr: options.stderr,
            since: options.since.map(OffsetDateTime::from),
        }
    }

    /// The record as a line, if it is one that is wanted. What is not a record (a torn write) is not.
    fn parse(&self, bytes: &[u8]) -> Option<LogLine> {
        let record: Record<'_> = serde_json::from_slice(bytes).ok()?;
        let wanted = match record.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        let time = OffsetDateTime::parse(&record.time, &Rfc3339).ok()?;
        if !wanted || self.since.is_some_and(|since| time < since) {
            return None;
        }
        let mut line = record.log.into_owned().into_bytes();
        let partial = line.last() != Some(&b'\n');
        if !partial {
            line.pop();
        }
        Some(LogLine { time: time.into(), stream: record.stream, line, partial })
    }
}

/// A file and an offset in it. Files are numbered from 1: the default is before all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    number: u64,
    offset: u64,
}

/// Reads forward through the files of one directory.
#[derive(Debug)]
pub(super) struct Cursor {
    dir: PathBuf,
    filter: Filter,
    at: Place,
    /// Where reading ends although more may come: a reader that does not follow gets what there was when it asked, and
    /// comes to an end however fast the container prints.
    until: Option<Place>,
    file: Option<File>,
    block: Vec<u8>,
}

impl Cursor {
    /// At the oldest record, or so that the last `tail` wanted ones of those that are there now follow.
    pub(super) fn open(dir: PathBuf, options: &LogOptions) -> io::Result<Self> {
        let filter = Filter::new(options);
        let end = end(&dir)?;
        let at = match options.tail {
            Some(tail) => tail_position(&dir, &filter, tail, end)?,
            None => Place::default(),
        };
        let until = (!options.follow).then_some(end);
        Ok(Self { dir, filter, at, until, file: None, block: vec![0; BLOCK] })
    }

    /// The wanted records of the next block, or none at the end.
    pub(super) fn read(&mut self) -> io::Result<VecDeque<LogLine>> {
        loop {
            if self.file.is_none() && !self.open_next()? {
                return Ok(VecDeque::new());
            }
            let before = self.at;
            let lines = self.read_block()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            if before == self.at && (self.is_in_last() || !self.advance()?) {
                return Ok(lines);
            }
        }
    }

    /// Whether no further file is to be read.
    fn is_in_last(&self) -> bool {
        self.until.is_some_and(|until| self.at.number >= until.number)
    }

    /// Opens file `number`, or the oldest after it.
    fn open_next(&mut self) -> io::Result<bool> {
        let numbers = match file_numbers(&self.dir) {
            Ok(numbers) => numbers,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false), // deleted meanwhile
            Err(e) => return Err(e),
        };
        let last = self.until.map_or(u64::MAX, |until| until.number);
        for number in numbers.into_iter().filter(|n| (self.at.number..=last).contains(n)) {
            match File::open(file_path(&self.dir, number)) {
                Ok(file) => {
                    if number != self.at.number {
                        self.at = Place { number, offset: 0 };
                    }
                    self.file = Some(file);
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // rotated away just now
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }

    fn read_block(&mut self) -> io::Result<VecDeque<LogLine>> {
        let Some(file) = &self.file else { return Ok(VecDeque::new()) };
        let room = match self.until {
            Some(until) if until.number == self.at.number => until.offset - self.at.offset,
            _ => u64::MAX,
        };
        let room = BLOCK.min(usize::try_from(room).unwrap_or(BLOCK));
        let length = file.read_at(&mut self.block[..room], self.at.offset)?;
        let block = &self.block[..length];
        let Some(end) = block.iter().rposition(|&b| b == b'\n') else {
            if length == BLOCK {
                self.at.offset += length as u64; // no record is that long: damaged, go past it
            }
            return Ok(VecDeque::new());
        };
        self.at.offset += end as u64 + 1;
        Ok(block[..end]
            .split(|&b| b == b'\n')
            .filter_map(|record| self.filter.parse(record))
            .collect())
    }

    /// To the next file, if the writer has begun one and this one is read to its end.
    fn advance(&mut self) -> io::Result<bool> {
        let Ok(numbers) = file_numbers(&self.dir) else { return Ok(false) };
        if !numbers.into_iter().any(|n| n > self.at.number) {
            return Ok(false);
        }
        // Between our read and the look at the directory more may have been appended.
        let Some(file) = &self.file else { return Ok(false) };
        let unread = file.metadata()?.len() > self.at.offset
            && file.read_at(&mut self.block, self.at.offset)? > 0;
        if !(unread && self.block.contains(&b'\n')) {
            self.file = None;
            self.at = Place { number: self.at.number + 1, offset: 0 };
        }
        Ok(true)
    }
}

/// The end of what there is.
fn end(dir: &Path) -> io::Result<Place> {
    let find = || -> io::Result<Place> {
        let Some(&number) = file_numbers(dir)?.last() else { return Ok(Place::default()) };
        let offset = fs::metadata(file_path(dir, number))?.len();
        Ok(Place { number, offset })
    };
    match find() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Place::default()), // deleted meanwhile
        found => found,
    }
}

/// The place after which `tail` wanted records follow until `end`; searched from there.
fn tail_position(dir: &Path, filter: &Filter, tail: usize, end: Place) -> io::Result<Place> {
    let mut numbers = file_numbers(dir)?;
    numbers.retain(|number| *number <= end.number);
    let mut block = vec![0; BLOCK];
    let mut missing = tail;
    if missing == 0 {
        return Ok(end);
    }
    for &number in numbers.iter().rev() {
        let file = match File::open(file_path(dir, number)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => break, // rotated away: nor are there older ones
            Err(e) => return Err(e),
        };
        let mut end = if number == end.number { end.offset } else { file.metadata()?.len() };
        while end > 0 {
            let start = end.saturating_sub(BLOCK as u64);
            let length = file.read_at(&mut block[..(end - start) as usize], start)?;
            // The first record of a block is whole only at the file's beginning.
            let cut = if start == 0 {
                0
            } else {
                block[..length].iter().position(|&b| b == b'\n').map_or(0, |n| n + 1)
            };
            let mut at = length;
            for record in block[cut..length].split_inclusive(|&b| b == b'\n').rev() {
                at -= record.len();
                // What is not whole yet is none of those that are there.
                if record.ends_with(b"\n") && filter.parse(record).is_some() {
                    missing -= 1;
                    if missing == 0 {
                        return Ok(Place { number, offset: start + at as u64 });
                    }
                }
            }
            end = if cut == length || cut == 0 { start } else { start + cut as u64 };
        }
    }
    Ok(Place::default())
}

#[cfg(test)]
mod tests {
    use super::super::LogWriter;
    use super::*;
    use crate::bundle::LogLimits;

    fn written(count: usize, file_size: u64, files: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path().into(), LogLimits { file_size, files });
        write(&mut log, 0..count);
        dir
    }

    fn write(log: &mut LogWriter, numbers: std::ops::Range<usize>) {
        for n in numbers {
            let stream = if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
            log.push(stream, format!("{n} {}\n", "x".repeat(n % 3000)).as_bytes());
            log.flush();
        }
    }

    fn read_all(dir: &Path, options: &LogOptions) -> Vec<usize> {
        let mut cursor = Cursor::open(dir.into(), options).unwrap();
        read_on(&mut cursor)
    }

    fn read_on(cursor: &mut Cursor) -> Vec<usize> {
        let mut numbers = Vec::new();
        loop {
            let lines = cursor.read().unwrap();
            if lines.is_empty() {
                return numbers;
            }
            for line in lines {
                let text = String::from_utf8(line.line).unwrap();
                numbers.push(text.split(' ').next().unwrap().parse().unwrap());
            }
        }
    }

    #[test]
    fn everything_is_read_in_order_over_files() {
        let dir = written(2000, 100_000, 1000);
        assert_eq!(read_all(dir.path(), &LogOptions::default()), (0..2000).collect::<Vec<_>>());
    }

    #[test]
    fn tail_gives_the_last_lines_that_are_wanted() {
        let dir = written(2000, 100_000, 1000);
        for tail in [0, 1, 7, 500, 1999, 2000, 5000] {
            let options = LogOptions { tail: Some(tail), ..Default::default() };
            assert_eq!(
                read_all(dir.path(), &options),
                (2000 - tail.min(2000)..2000).collect::<Vec<_>>(),
                "{tail}"
            );
        }
        let errors = LogOptions { tail: Some(3), stdout: false, ..Default::default() };
        assert_eq!(read_all(dir.path(), &errors), [1995, 1997, 1999]);
    }

    #[test]
    fn what_is_printed_after_the_question_is_for_followers_only() {
        // In the file that is read, and in further ones.
        for (file_size, then) in [(1 << 30, 100..105), (1 << 30, 100..700), (50_000, 100..700)] {
            let dir = tempfile::tempdir().unwrap();
            let limits = LogLimits { file_size, files: 1000 };
            let mut log = LogWriter::new(dir.path().into(), limits);
            let open = |tail, follow| {
                let options = LogOptions { tail, follow, ..LogOptions::default() };
                Cursor::open(dir.path().into(), &options).unwrap()
            };
            let (mut none, mut all) = (open(Some(5), false), open(None, true));
            write(&mut log, 0..100);
            let (mut last, mut there) = (open(Some(3), false), open(None, false));
            let (mut follower, mut new) = (open(Some(3), true), open(Some(0), true));
            write(&mut log, then.clone());
            assert!(read_on(&mut none).is_empty());
            assert_eq!(read_on(&mut last), [97, 98, 99]);
            assert_eq!(read_on(&mut there), (0..100).collect::<Vec<_>>());
            assert_eq!(read_on(&mut follower), (97..then.end).collect::<Vec<_>>());
            assert_eq!(read_on(&mut new), then.clone().collect::<Vec<_>>());
            assert_eq!(read_on(&mut all), (0..then.end).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_reader_that_was_overtaken_goes_on_with_what_is_left() {
        let dir = written(10, 1 << 20, 3);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut cursor = Cursor::open(dir.path().into(), &options).unwrap();
        assert_eq!(cursor.read().unwrap().len(), 10);
        std::fs::remove_file(file_path(dir.path(), 1)).unwrap();
        let mut text = Vec::new();
        text.extend_from_slice(
            b"{\"log\":\"new\\n\",\"stream\":\"stdout\",\"time\":\"2020-01-01T00:00:00Z\"}\n",
        );
        std::fs::write(file_path(dir.path(), 5), text).unwrap();
        assert_eq!(cursor.read().unwrap()[0].line, b"new");
        assert!(cursor.read().unwrap().is_empty());
    }
}
