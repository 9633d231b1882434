//! The shim's side of the log: records are gathered per read and written at once; files are rotated by size; what cannot
//! be written is counted and noted, and the container goes on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Stream, file_path};
use crate::bundle::LogLimits;

/// Gathered bytes above which a write happens.
const FLUSH_AT: usize = 64 * 1024;

pub(crate) struct LogWriter {
    dir: PathBuf,
    limits: LogLimits,
    number: u64,
    file: Option<File>,
    /// Bytes of whole records in `file`.
    size: u64,
    buffer: Vec<u8>,
    /// Records in `buffer`.
    gathered: u64,
    /// Records that could not be written since the last one that could.
    lost: u64,
}

impl LogWriter {
    /// Starts with the directory's first file.
    pub(crate) fn new(dir: PathBuf, limits: LogLimits) -> Self {
        Self {
            dir,
            limits,
            number: 1,
            file: None,
            size: 0,
            buffer: Vec::new(),
            gathered: 0,
            lost: 0,
        }
    }

    /// Adds one line, printed now.
    pub(crate) fn push(&mut self, stream: Stream, line: &[u8]) {
        encode(&mut self.buffer, stream, line, SystemTime::now());
        self.gathered += 1;
        if self.buffer.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// Writes what was gathered.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if self.lost > 0 {
            let mut note = Vec::new();
            let text = format!("[{} lines lost: the log could not be written]\n", self.lost);
            encode(&mut note, Stream::Stderr, text.as_bytes(), SystemTime::now());
            self.buffer.splice(0..0, note);
        }
        match self.write() {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += self.gathered, // told as soon as writing works again
        }
        self.buffer.clear();
        self.gathered = 0;
    }

    fn write(&mut self) -> io::Result<()> {
        let length = self.buffer.len() as u64;
        if self.size > 0 && self.size + length > self.limits.file_size {
            self.rotate()?;
        }
        if self.file.is_none() {
            let path = file_path(&self.dir, self.number);
            self.file = Some(File::options().append(true).create(true).open(path)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Err(e) = file.write_all(&self.buffer) {
            // Half a record would spoil the next. If not even this works, readers skip the broken line.
            let _ = file.set_len(self.size);
            return Err(e);
        }
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        self.size = 0;
        self.number += 1;
        let Some(oldest) = self.number.checked_sub(self.limits.files).filter(|n| *n > 0) else {
            return Ok(());
        };
        match fs::remove_file(file_path(&self.dir, oldest)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// Appends a record. Written by hand: it is all the JSON that the small watcher process makes per line.
fn encode(out: &mut Vec<u8>, stream: Stream, line: &[u8], now: SystemTime) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    let time = OffsetDateTime::from(now).format(&Rfc3339).unwrap_or_default();
    for part in ["\",\"stream\":\"", stream.name(), "\",\"time\":\"", &time, "\"}\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn escape(out: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Record, file_numbers};
    use super::*;

    #[test]
    fn records_are_json_whatever_was_printed() {
        let mut printed: Vec<u8> = (0..=127).collect();
        printed.extend_from_slice("ä€😀".as_bytes());
        let mut out = Vec::new();
        encode(&mut out, Stream::Stderr, &printed, SystemTime::UNIX_EPOCH);
        let record: Record<'_> = serde_json::from_slice(&out).unwrap();
        assert_eq!(record.log.as_bytes(), printed);
        assert_eq!((record.stream, &*record.time), (Stream::Stderr, "1970-01-01T00:00:00Z"));

        out.clear();
        encode(&mut out, Stream::Stdout, b"a\xffb", SystemTime::UNIX_EPOCH);
        assert_eq!(serde_json::from_slice::<Record<'_>>(&out).unwrap().log, "a\u{fffd}b");
    }

    #[test]
    fn old_files_go_when_new_ones_come() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path().into(), LogLimits { file_size: 1000, files: 3 });
        for _ in 0..100 {
            log.push(Stream::Stdout, &[b'x'; 100]);
            log.flush();
        }
        let numbers = file_numbers(dir.path()).unwrap();
        assert_eq!(numbers.len(), 3);
        for number in numbers {
            assert!(fs::metadata(file_path(dir.path(), number)).unwrap().len() <= 1000);
        }
    }

    #[test]
    fn a_loss_is_noted_when_writing_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let mut log = LogWriter::new(logs.clone(), LogLimits { file_size: 1000, files: 3 });
        for _ in 0..2 {
            log.push(Stream::Stdout, b"lost\n");
            log.flush();
        }
        fs::create_dir(&logs).unwrap();
        log.push(Stream::Stdout, b"kept\n");
        log.flush();
        let text = fs::read_to_string(file_path(&logs, 1)).unwrap();
        let lines: Vec<Record<'_>> =
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].log.starts_with("[2 lines lost"), "{}", lines[0].log);
        assert_eq!(lines[1].log, "kept\n");
    }
}
