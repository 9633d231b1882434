//! Unpacks one layer: a tar stream, plain or compressed, into a directory that overlayfs can use as a lower layer.
//!
//! Rules: OCI image spec, `layer.md`. Whiteouts become overlayfs's own; device nodes are left out, since a container gets
//! its own; a later entry replaces an earlier one of the same name, but for a directory, which is kept and gets the later
//! one's metadata.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::decompress::Decompressed;
use crate::digest::{Digest, HashingReader};
use crate::rooted::{Linked, Metadata, Refusal, Relative, Root};
use crate::tar_stream::{Entry, Kind, TarStream};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Further names of this kind are bookkeeping of AUFS, with no meaning elsewhere.
const AUFS: &[u8] = b".wh..wh.";
/// Most bytes of directory names kept to set times at the end; bounds memory.
const MAX_DIRECTORY_NAMES: usize = 64 << 20;
const COPY_BUFFER: usize = 128 * 1024;

/// What one layer may cost, against decompression bombs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes a layer may unpack to, and most bytes its files may have together, holes included.
    pub max_bytes: u64,
    /// Most entries of a layer.
    pub max_entries: u64,
    /// Most unpacked bytes per compressed byte, once more than `ratio_from` came out.
    pub max_ratio: u64,
    /// Unpacked bytes below which the ratio does not matter.
    pub ratio_from: u64,
}

impl Default for Limits {
    /// 64 GiB and a million entries a layer; 200 to 1 above 1 GiB.
    fn default() -> Self {
        Self { max_bytes: 64 << 30, max_entries: 1_000_000, max_ratio: 200, ratio_from: 1 << 30 }
    }
}

impl Limits {
    fn for_blob(&self, compressed: u64) -> u64 {
        self.max_bytes.min(self.ratio_from.max(compressed.saturating_mul(self.max_ratio)))
    }
}

/// What came out of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Digest of the uncompressed tar stream.
    pub(crate) diff_id: Digest,
    /// Bytes of all files together.
    pub(crate) size: u64,
    /// Device nodes that did not, if it has any.
    pub(crate) devices: Option<Devices>,
}

/// Device nodes of a layer, and links to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Devices {
    first: PathBuf,
    others: u64,
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.others {
            0 => write!(f, "{:?}", self.first),
            others => write!(f, "{:?} and {others} more", self.first),
        }
    }
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("entry {path:?}: {refusal}")]
    Entry { path: PathBuf, refusal: Refusal },
    #[error("it unpacks to more than {0} bytes")]
    TooBig(u64),
    #[error("it has more than {0} entries")]
    TooManyEntries(u64),
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// Unpacks `blob`, of `compressed` bytes, into the empty directory `into`.
pub(crate) fn unpack(
    blob: impl Read,
    compressed: u64,
    into: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let limit = limits.for_blob(compressed);
    // One byte more than allowed tells "at the limit" from "over it".
    let plain = Decompressed::new(blob)?.take(limit + 1);
    let mut unpacker = Unpacker {
        stream: TarStream::new(HashingReader::new(plain)),
        root: Root::open(into)?,
        limits: *limits,
        entries: 0,
        size: 0,
        devices: None,
        directories: Directories::default(),
        buffer: vec![0; COPY_BUFFER],
    };
    let result = unpacker.run();
    let devices = unpacker.devices;
    let mut rest = unpacker.stream.into_inner();
    // Data after the end marker is no part of the archive, but of what the digest covers.
    let drained = result.and_then(|size| Ok((size, io::copy(&mut rest, &mut io::sink())?)));
    if rest.get_ref().limit() == 0 {
        return Err(UnpackError::TooBig(limit));
    }
    let (size, _) = drained?;
    Ok(Unpacked { diff_id: rest.finish(), size, devices })
}

#[derive(Default)]
struct Directories {
    times: BTreeMap<Vec<u8>, (i64, u32)>,
    names: usize,
}

struct Unpacker<R> {
    stream: TarStream<R>,
    root: Root,
    limits: Limits,
    entries: u64,
    size: u64,
    devices: Option<Devices>,
    directories: Directories,
    buffer: Vec<u8>,
}

impl<R: Read> Unpacker<R> {
    fn run(&mut self) -> Result<u64, UnpackError> {
        while let Some(entry) = self.stream.next_entry()? {
            self.account(&entry)?;
            self.entry(&entry).map_err(|refusal| refused(&entry.path, refusal))?;
        }
        for (path, mtime) in &self.directories.times {
            self.root.set_directory_time(path, *mtime).map_err(|refusal| refused(path, refusal))?;
        }
        Ok(self.size)
    }

    fn account(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        self.entries += 1;
        self.size = self.size.saturating_add(entry.size);
        if self.size > self.limits.max_bytes {
            return Err(UnpackError::TooBig(self.limits.max_bytes));
        }
        if self.entries > self.limits.max_entries || self.directories.names > MAX_DIRECTORY_NAMES {
            return Err(UnpackError::TooManyEntries(self.limits.max_entries.min(self.entries - 1)));
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let path = Relative::new(&entry.path)?;
        if let Some((directory, name)) = path.split() {
            if name == OPAQUE {
                return self.root.opaque(&directory);
            }
            if name.starts_with(AUFS) {
                return Ok(());
            }
            if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                return self.root.whiteout(&directory, hidden);
            }
        }
        self.create(entry, &path)
    }

    fn create(&mut self, entry: &Entry, path: &Relative<'_>) -> Result<(), Refusal> {
        let metadata = Metadata {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: &entry.xattrs,
        };
        match entry.kind {
            Kind::File => {
                let (stream, buffer) = (&mut self.stream, &mut self.buffer);
                self.root.file(path, &metadata, |file| copy(stream, file, entry, buffer))
            }
            Kind::Directory => {
                self.root.directory(path, &metadata)?;
                self.directories.remember(path.bytes(), entry.mtime);
                Ok(())
            }
            Kind::Symlink => self.root.symlink(path, &entry.link, &metadata),
            Kind::HardLink => {
                if self.root.hard_link(path, &entry.link)? == Linked::LeftOut {
                    self.note_device(&entry.path);
                }
                Ok(())
            }
            Kind::Fifo => self.root.fifo(path, &metadata),
            Kind::CharacterDevice | Kind::BlockDevice => {
                self.root.leave_out(path)?;
                self.note_device(&entry.path);
                Ok(())
            }
            Kind::Unknown(flag) => Err(Refusal::UnknownType(flag.into())),
        }
    }

    fn note_device(&mut self, path: &[u8]) {
        match &mut self.devices {
            Some(devices) => devices.others += 1,
            none => *none = Some(Devices { first: shown(path), others: 0 }),
        }
    }
}

impl Directories {
    fn remember(&mut self, path: Vec<u8>, mtime: (i64, u32)) {
        self.names += path.len();
        self.times.insert(path, mtime);
    }
}

/// Writes the entry's content; the holes of a sparse file stay holes.
fn copy<R: Read>(
    stream: &mut TarStream<R>,
    file: &mut std::fs::File,
    entry: &Entry,
    buffer: &mut [u8],
) -> io::Result<()> {
    let Some(pieces) = &entry.pieces else {
        return copy_piece(stream, file, entry.size, buffer);
    };
    for &(offset, length) in pieces {
        file.seek(SeekFrom::Start(offset))?;
        copy_piece(stream, file, length, buffer)?;
    }
    file.set_len(entry.size)
}

fn copy_piece(
    from: &mut impl Read,
    to: &mut impl Write,
    mut left: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = from.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}

fn refused(path: &[u8], refusal: Refusal) -> UnpackError {
    match refusal {
        // A cut-off or damaged stream is the layer's fault, not this entry's.
        Refusal::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
            ) =>
        {
            UnpackError::Stream(error)
        }
        refusal => UnpackError::Entry { path: shown(path), refusal },
    }
}

fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(path.to_vec()))
}
