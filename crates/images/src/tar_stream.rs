//! Reads a tar stream, entry by entry, in bounded memory.
//!
//! Formats: v7, ustar (POSIX.1-1988), pax (POSIX.1-2001, with global headers), GNU (long names, base-256 numbers,
//! sparse files of type `S`). The `tar` crate reads extension headers of any length into memory and splits pax records
//! at newlines, which breaks binary attribute values such as `security.capability`; layers come from strangers, so
//! this reader does neither.

use std::collections::BTreeMap;
use std::io::{self, Read};

use header::{BLOCK, Block};

mod header;

/// Most bytes an extension header (long name, pax records, sparse map) may have.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharacterDevice,
    BlockDevice,
    Fifo,
    /// A type flag this reader does not know.
    Unknown(u8),
}

/// One member of the archive. Its content is what [`TarStream::read`] yields until the next call of `next_entry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As written: may be absolute, hold `..`, or end in a slash.
    pub(crate) path: Vec<u8>,
    /// Target of a link, as written.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(crate) mtime: (i64, u32),
    /// Length of the file once written, holes included.
    pub(crate) size: u64,
    /// Extended attributes (`SCHILY.xattr.` records).
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file, offset and length of each piece of data; holes lie between.
    pub(crate) pieces: Option<Vec<(u64, u64)>>,
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The reader. Errors of kind `InvalidData` mean the archive is malformed, `UnexpectedEof` that it is cut off.
pub(crate) struct TarStream<R> {
    inner: R,
    /// Content of the current entry not yet read.
    content: u64,
    /// Filler after it, up to the next block.
    padding: u64,
    global: Records,
}

impl<R: Read> TarStream<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, content: 0, padding: 0, global: Records::new() }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or none at the end of the archive. What was left unread of the previous one is skipped.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut local = Records::new();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.skip_content()?;
            let Some(block) = Block::read(&mut self.inner)? else {
                return Ok(None);
            };
            match block.flag() {
                b'L' => long_path = Some(self.long_name(&block)?),
                b'K' => long_link = Some(self.long_name(&block)?),
                b'x' | b'X' => local = parse_records(&self.extension(&block)?)?,
                b'g' => {
                    let records = parse_records(&self.extension(&block)?)?;
                    self.merge_global(records)?;
                }
                _ => return self.finish_entry(block, local, long_path, long_link).map(Some),
            }
        }
    }

    fn finish_entry(
        &mut self,
        block: Block,
        mut records: Records,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        for (key, value) in &self.global {
            records.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(invalid("sparse files in pax format are not supported"));
        }
        let mut kind = block.kind();
        let path = records.remove(b"path".as_slice()).or(long_path).unwrap_or_else(|| block.path());
        if kind == Kind::File && block.flag() == 0 && path.ends_with(b"/") {
            // v7 archives have no type for directories.
            kind = Kind::Directory;
        }
        let stored = match number_record(&records, b"size")? {
            Some(size) => size,
            None => block.size()?,
        };
        let has_content = matches!(kind, Kind::File | Kind::Unknown(_));
        self.start_content(if has_content { stored } else { 0 })?;
        let pieces = if block.flag() == b'S' {
            Some(block.sparse_pieces(&mut self.inner, stored)?)
        } else {
            None
        };
        let id = |key: &[u8], field: u64| -> io::Result<u32> {
            let id = number_record(&records, key)?.unwrap_or(field);
            // The highest number means "leave it" to chown(2).
            let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| invalid("owner is out of range"))
        };
        Ok(Entry {
            link: records
                .get(b"linkpath".as_slice())
                .cloned()
                .or(long_link)
                .unwrap_or_else(|| block.link()),
            kind,
            mode: block.mode()?,
            uid: id(b"uid", block.uid()?)?,
            gid: id(b"gid", block.gid()?)?,
            mtime: records
                .get(b"mtime".as_slice())
                .map_or_else(|| block.mtime(), |text| parse_time(text))?,
            size: if pieces.is_some() { block.real_size()? } else { self.content },
            xattrs: xattrs(&records),
            pieces,
            path,
        })
    }

    fn start_content(&mut self, length: u64) -> io::Result<()> {
        self.content = length;
        self.padding = length.wrapping_neg() % BLOCK as u64;
        length.checked_add(self.padding).map(|_| ()).ok_or_else(|| invalid("size is out of range"))
    }

    fn skip_content(&mut self) -> io::Result<()> {
        let left = self.content + self.padding;
        (self.content, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.inner.by_ref().take(left), &mut io::sink())?;
        if skipped == left { Ok(()) } else { Err(cut_off()) }
    }

    fn extension(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        let size = block.size()?;
        if size > MAX_EXTENSION {
            return Err(invalid("extension header is too long"));
        }
        self.start_content(size)?;
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    fn long_name(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        let mut name = self.extension(block)?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn merge_global(&mut self, records: Records) -> io::Result<()> {
        self.global.extend(records);
        let total: usize = self.global.iter().map(|(key, value)| key.len() + value.len()).sum();
        if total as u64 > MAX_EXTENSION {
            return Err(invalid("global extension headers are too long"));
        }
        Ok(())
    }
}

/// Content of the current entry; for a sparse file the pieces, without the holes.
impl<R: Read> Read for TarStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let want = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        match self.inner.read(&mut buffer[..want])? {
            0 => Err(cut_off()),
            read => {
                self.content -= read as u64;
                Ok(read)
            }
        }
    }
}

/// Records are `<length> <key>=<value>\n`, where the length counts the whole record and the value may hold anything.
fn parse_records(mut data: &[u8]) -> io::Result<Records> {
    let malformed = || invalid("malformed pax record");
    let mut records = Records::new();
    while !data.is_empty() && data[0] != 0 {
        let space = data.iter().take(20).position(|&b| b == b' ').ok_or_else(malformed)?;
        let length: usize = parse_decimal(&data[..space]).ok_or_else(malformed)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(malformed)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        data = &data[length..];
    }
    Ok(records)
}

fn xattrs(records: &Records) -> Vec<(Vec<u8>, Vec<u8>)> {
    let prefix = b"SCHILY.xattr.".as_slice();
    let named = records.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    named.map(|(name, value)| (name.to_vec(), value.clone())).collect()
}

fn number_record(records: &Records, key: &[u8]) -> io::Result<Option<u64>> {
    let Some(text) = records.get(key) else {
        return Ok(None);
    };
    parse_decimal(text).map(Some).ok_or_else(|| invalid("malformed number in a pax record"))
}

fn parse_decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`.
fn parse_time(text: &[u8]) -> io::Result<(i64, u32)> {
    let malformed = || invalid("malformed time in a pax record");
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| malformed())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    match (text.starts_with('-'), nanos) {
        (true, 1..) => Ok((seconds - 1, 1_000_000_000 - nanos)),
        _ => Ok((seconds, nanos)),
    }
}

pub(crate) fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "archive is truncated")
}

#[cfg(test)]
mod tests;
