//! A place in a container's log files, and reading on from it. Blocking.

use std::collections::VecDeque;
use std::fs::File;
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

/// Reads forward through the files of one directory.
#[derive(Debug)]
pub(super) struct Cursor {
    dir: PathBuf,
    filter: Filter,
    number: u64,
    offset: u64,
    file: Option<File>,
    block: Vec<u8>,
}

impl Cursor {
    /// At the oldest record, or with `tail` so that this many wanted records follow.
    pub(super) fn open(dir: PathBuf, filter: Filter, tail: Option<usize>) -> io::Result<Self> {
        let (number, offset) = match tail {
            Some(tail) => tail_position(&dir, &filter, tail)?,
            None => (0, 0),
        };
        Ok(Self { dir, filter, number, offset, file: None, block: vec![0; BLOCK] })
    }

    /// The wanted records of the next block, or none at the end of what there is now.
    pub(super) fn read(&mut self) -> io::Result<VecDeque<LogLine>> {
        loop {
            if self.file.is_none() && !self.open_next()? {
                return Ok(VecDeque::new());
            }
            let before = (self.number, self.offset);
            let lines = self.read_block()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            if before == (self.number, self.offset) && !self.advance()? {
                return Ok(lines);
            }
        }
    }

    /// Opens file `number`, or the oldest after it.
    fn open_next(&mut self) -> io::Result<bool> {
        let numbers = match file_numbers(&self.dir) {
            Ok(numbers) => numbers,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false), // deleted meanwhile
            Err(e) => return Err(e),
        };
        for number in numbers.into_iter().filter(|n| *n >= self.number) {
            match File::open(file_path(&self.dir, number)) {
                Ok(file) => {
                    if number != self.number {
                        (self.number, self.offset) = (number, 0);
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
        let length = file.read_at(&mut self.block, self.offset)?;
        let block = &self.block[..length];
        let Some(end) = block.iter().rposition(|&b| b == b'\n') else {
            if length == BLOCK {
                self.offset += length as u64; // no record is that long: damaged, go past it
            }
            return Ok(VecDeque::new());
        };
        self.offset += end as u64 + 1;
        Ok(block[..end]
            .split(|&b| b == b'\n')
            .filter_map(|record| self.filter.parse(record))
            .collect())
    }

    /// To the next file, if the writer has begun one and this one is read to its end.
    fn advance(&mut self) -> io::Result<bool> {
        let Ok(numbers) = file_numbers(&self.dir) else { return Ok(false) };
        if !numbers.into_iter().any(|n| n > self.number) {
            return Ok(false);
        }
        // Between our read and the look at the directory more may have been appended.
        let Some(file) = &self.file else { return Ok(false) };
        let unread =
            file.metadata()?.len() > self.offset && file.read_at(&mut self.block, self.offset)? > 0;
        if !(unread && self.block.contains(&b'\n')) {
            self.file = None;
            self.number += 1;
            self.offset = 0;
        }
        Ok(true)
    }
}

/// File and offset after which `tail` wanted records follow; searched from the end.
fn tail_position(dir: &Path, filter: &Filter, tail: usize) -> io::Result<(u64, u64)> {
    let numbers = file_numbers(dir)?;
    let mut block = vec![0; BLOCK];
    let mut missing = tail;
    for &number in numbers.iter().rev() {
        let file = match File::open(file_path(dir, number)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => break, // rotated away: nor are there older ones
            Err(e) => return Err(e),
        };
        let mut end = file.metadata()?.len();
        if missing == 0 {
            return Ok((number, end));
        }
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
                if filter.parse(record).is_some() {
                    missing -= 1;
                    if missing == 0 {
                        return Ok((number, start + at as u64));
                    }
                }
            }
            end = if cut == length || cut == 0 { start } else { start + cut as u64 };
        }
    }
    Ok((0, 0))
}

#[cfg(test)]
mod tests {
    use super::super::LogWriter;
    use super::*;
    use crate::bundle::LogLimits;

    fn written(count: usize, file_size: u64, files: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path().into(), LogLimits { file_size, files });
        for n in 0..count {
            let stream = if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
            log.push(stream, format!("{n} {}\n", "x".repeat(n % 3000)).as_bytes());
            log.flush();
        }
        dir
    }

    fn read_all(dir: &Path, options: &LogOptions) -> Vec<usize> {
        let mut cursor = Cursor::open(dir.into(), Filter::new(options), options.tail).unwrap();
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
    fn a_reader_that_was_overtaken_goes_on_with_what_is_left() {
        let dir = written(10, 1 << 20, 3);
        let mut cursor =
            Cursor::open(dir.path().into(), Filter::new(&LogOptions::default()), None).unwrap();
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
