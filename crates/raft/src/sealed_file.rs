//! A file that is encrypted in chunks: written from the front, read at any place.
//!
//! `magic (8) | id of the file (16, random) | chunks`; each chunk is sealed 64 KiB, the last one what is left. Its
//! place is the id, its number and whether it is the last, so chunks cannot be moved, exchanged or cut off.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use swarm_seal::{OVERHEAD, SealKey};

const MAGIC: &[u8; 8] = b"SWRMRFT2";
const ID: usize = 16;
const HEAD: u64 = (MAGIC.len() + ID) as u64;
/// Bytes in a chunk, before they are sealed.
const CHUNK: usize = 64 * 1024;
const SEALED_CHUNK: u64 = (CHUNK + OVERHEAD) as u64;

fn place(id: &[u8; ID], number: u64, last: bool) -> [u8; ID + 9] {
    let mut place = [0; ID + 9];
    place[..ID].copy_from_slice(id);
    place[ID..ID + 8].copy_from_slice(&number.to_le_bytes());
    place[ID + 8] = last.into();
    place
}

/// Writes such a file.
pub(crate) struct SealedWriter {
    file: File,
    key: SealKey,
    id: [u8; ID],
    number: u64,
    /// What is not written yet: at most a chunk.
    rest: Vec<u8>,
}

impl SealedWriter {
    /// Begins a new file.
    pub(crate) fn new(mut file: File, key: SealKey) -> io::Result<Self> {
        let id: [u8; ID] = rand::random();
        file.write_all(MAGIC)?;
        file.write_all(&id)?;
        Ok(Self { file, key, id, number: 0, rest: Vec::with_capacity(CHUNK) })
    }

    fn chunk(&mut self, last: bool) -> io::Result<()> {
        let sealed = self.key.seal(&place(&self.id, self.number, last), &self.rest);
        self.file.write_all(&sealed)?;
        self.number += 1;
        self.rest.clear();
        Ok(())
    }

    /// Ends the file and makes it durable.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.chunk(true)?;
        self.file.sync_all()
    }
}

impl Write for SealedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.rest.len() == CHUNK {
            self.chunk(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.rest.len());
        self.rest.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads such a file.
#[derive(Clone, Debug)]
pub(crate) struct SealedFile {
    file: Arc<File>,
    path: PathBuf,
    key: SealKey,
    id: [u8; ID],
    chunks: u64,
    len: u64,
}

impl SealedFile {
    /// Opens a file; none if it is not of this kind.
    pub(crate) fn open(path: &Path, key: SealKey) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let body = file.metadata()?.len().saturating_sub(HEAD);
        let mut head = [0; HEAD as usize];
        let read = file.read_at(&mut head, 0)?;
        if read < head.len() || &head[..MAGIC.len()] != MAGIC {
            return Ok(None);
        }
        let chunks = body.div_ceil(SEALED_CHUNK);
        let len = body.checked_sub(chunks * OVERHEAD as u64).filter(|_| chunks > 0);
        let len = len.ok_or_else(|| {
            let text = format!("{} is cut off", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        let id = head[MAGIC.len()..].try_into().expect("the rest of the head");
        Ok(Some(Self { file: Arc::new(file), path: path.to_owned(), key, id, chunks, len }))
    }

    /// How much it holds, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether both are the same open file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }

    /// Reads up to `max` bytes at `offset`; fewer only at the end.
    pub(crate) fn read_at(&self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let end = offset.saturating_add(max as u64).min(self.len);
        let mut bytes =
            Vec::with_capacity(usize::try_from(end.saturating_sub(offset)).unwrap_or(0));
        let mut at = offset;
        while at < end {
            let chunk = self.chunk(at / CHUNK as u64)?;
            let from = usize::try_from(at % CHUNK as u64).map_err(io::Error::other)?;
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let part = chunk.get(from..).unwrap_or_default();
            let part = &part[..part.len().min(left)];
            if part.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(part);
            at += part.len() as u64;
        }
        Ok(bytes)
    }

    fn chunk(&self, number: u64) -> io::Result<Vec<u8>> {
        let last = number + 1 == self.chunks;
        let before = number * CHUNK as u64;
        let plain = if last { self.len - before } else { CHUNK as u64 };
        let length = usize::try_from(plain).map_err(io::Error::other)? + OVERHEAD;
        let mut sealed = vec![0; length];
        self.file.read_exact_at(&mut sealed, HEAD + number * SEALED_CHUNK)?;
        self.key.open_in(&self.path, &place(&self.id, number, last), &sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealKey {
        SealKey::new([7; 32], "a test")
    }

    fn written(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = dir.join(name);
        let mut writer = SealedWriter::new(File::create(&path).unwrap(), key()).unwrap();
        for piece in content.chunks(1000) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    fn read(path: &Path) -> io::Result<Vec<u8>> {
        let file = SealedFile::open(path, key())?.expect("a sealed file");
        file.read_at(0, usize::MAX)
    }

    #[test]
    fn any_part_of_any_length_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 77] {
            let content = content(length);
            let path = written(dir.path(), "file", &content);
            let file = SealedFile::open(&path, key()).unwrap().unwrap();
            assert_eq!(file.len(), length as u64);
            assert!(file.read_at(0, usize::MAX).unwrap() == content, "{length}");
            for (offset, max) in [(0, 10), (CHUNK - 3, 6), (length.saturating_sub(2), 9), (5, 0)] {
                let expected = &content[offset.min(length)..length.min(offset + max)];
                assert_eq!(
                    file.read_at(offset as u64, max).unwrap(),
                    expected,
                    "{length} {offset}"
                );
            }
        }
    }

    #[test]
    fn chunks_that_are_changed_moved_exchanged_or_missing_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), "file", &content(3 * CHUNK));
        let other = std::fs::read(written(dir.path(), "other", &content(3 * CHUNK))).unwrap();
        let good = std::fs::read(&path).unwrap();
        let (head, size) = (usize::try_from(HEAD).unwrap(), CHUNK + OVERHEAD);
        let chunk = |of: &[u8], number: usize| of[head + number * size..][..size].to_vec();
        let refused = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).expect_err(what);
            assert!(error.to_string().contains("file"), "{what}: {error}");
        };
        let mut changed = good.clone();
        changed[head + size + 100] ^= 1;
        refused(&changed, "changed");
        let moved = [&good[..head], &chunk(&good, 1), &chunk(&good, 0), &chunk(&good, 2)].concat();
        refused(&moved, "moved");
        let of_other = [&good[..head], &chunk(&other, 0), &good[head + size..]].concat();
        refused(&of_other, "exchanged");
        refused(&good[..head + 2 * size], "the last one is missing");
        refused(&good[..good.len() - 1], "cut off");
        refused(&good[..head], "empty");
        std::fs::write(&path, &good).unwrap();
        assert!(read(&path).is_ok());
        let wrong = SealedFile::open(&path, SealKey::new([8; 32], "elsewhere")).unwrap().unwrap();
        assert!(wrong.read_at(0, 1).unwrap_err().to_string().contains("elsewhere"));
    }
}
