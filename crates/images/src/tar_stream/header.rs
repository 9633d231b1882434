//! The 512-byte tar header and its fields (POSIX.1-1988 ustar, GNU tar's `tar.h`).

use std::io::{self, Read};
use std::ops::Range;

use super::{Kind, cut_off, invalid};

/// Everything in a tar archive comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const PREFIX: Range<usize> = 345..500;
/// GNU: four pieces of a sparse file, 24 bytes each, then whether more follow and the file's real size.
const SPARSE: Range<usize> = 386..482;
const SPARSE_MORE: usize = 482;
const REAL_SIZE: Range<usize> = 483..495;
/// A continuation block has 21 pieces.
const CONTINUED: Range<usize> = 0..504;
const CONTINUED_MORE: usize = 504;
/// Most pieces a sparse file may have; bounds memory.
const MAX_PIECES: usize = 65_536;

pub(super) struct Block([u8; BLOCK]);

impl Block {
    /// The next header; none at the end marker or at the end of the stream.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut block = [0; BLOCK];
        if !fill(from, &mut block)? || block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let block = Self(block);
        let sum = block
            .0
            .iter()
            .enumerate()
            .map(|(at, &b)| if CHECKSUM.contains(&at) { 0x20 } else { u64::from(b) });
        if block.number(CHECKSUM).ok() != Some(sum.sum()) {
            return Err(invalid("not a tar archive, or a damaged one: header checksum mismatch"));
        }
        Ok(Some(block))
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[FLAG]
    }

    pub(super) fn kind(&self) -> Kind {
        match self.flag() {
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharacterDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Unknown(other),
        }
    }

    /// Name, with ustar's prefix in front; GNU uses those bytes for other things.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(NAME);
        let prefix = if &self.0[MAGIC] == b"ustar\0" { self.text(PREFIX) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(LINK).to_vec()
    }

    pub(super) fn mode(&self) -> io::Result<u32> {
        Ok((self.number(MODE)? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> io::Result<u64> {
        self.number(UID)
    }

    pub(super) fn gid(&self) -> io::Result<u64> {
        self.number(GID)
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        self.number(SIZE)
    }

    /// Times before 1970 need base-256 numbers of two's complement; they are clamped to the epoch.
    pub(super) fn mtime(&self) -> io::Result<(i64, u32)> {
        if self.0[MTIME.start] == 0xff {
            return Ok((0, 0));
        }
        let seconds =
            i64::try_from(self.number(MTIME)?).map_err(|_| invalid("time is out of range"))?;
        Ok((seconds, 0))
    }

    pub(super) fn real_size(&self) -> io::Result<u64> {
        self.number(REAL_SIZE)
    }

    /// Pieces of a sparse file that stores `stored` bytes; reads continuation blocks from the stream.
    pub(super) fn sparse_pieces(
        &self,
        from: &mut impl Read,
        stored: u64,
    ) -> io::Result<Vec<(u64, u64)>> {
        let mut pieces = Vec::new();
        self.collect_pieces(SPARSE, &mut pieces)?;
        let mut more = self.0[SPARSE_MORE] != 0;
        while more {
            let mut block = Self([0; BLOCK]);
            if !fill(from, &mut block.0)? {
                return Err(cut_off());
            }
            block.collect_pieces(CONTINUED, &mut pieces)?;
            more = block.0[CONTINUED_MORE] != 0;
        }
        self.check_pieces(&pieces, stored)?;
        Ok(pieces)
    }

    fn collect_pieces(&self, at: Range<usize>, pieces: &mut Vec<(u64, u64)>) -> io::Result<()> {
        for start in at.step_by(24) {
            if self.0[start] == 0 {
                break;
            }
            pieces.push((self.number(start..start + 12)?, self.number(start + 12..start + 24)?));
        }
        if pieces.len() > MAX_PIECES {
            return Err(invalid("sparse file has too many pieces"));
        }
        Ok(())
    }

    fn check_pieces(&self, pieces: &[(u64, u64)], stored: u64) -> io::Result<()> {
        let malformed = || invalid("malformed sparse file");
        let (mut end, mut total) = (0, 0u64);
        for &(offset, length) in pieces {
            if offset < end {
                return Err(malformed());
            }
            end = offset.checked_add(length).ok_or_else(malformed)?;
            total += length;
        }
        if end > self.real_size()? || total != stored { Err(malformed()) } else { Ok(()) }
    }

    fn text(&self, at: Range<usize>) -> &[u8] {
        let field = &self.0[at];
        &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
    }

    /// Octal digits ended by a space or NUL (blank is 0), or, if the top bit is set, a big-endian number (GNU).
    fn number(&self, at: Range<usize>) -> io::Result<u64> {
        let field = &self.0[at];
        if field[0] & 0x80 != 0 {
            return base256(field);
        }
        let digits = field.trim_ascii_start();
        let end = digits.iter().position(|&b| b == 0 || b == b' ').unwrap_or(digits.len());
        digits[..end].iter().try_fold(0u64, |number, digit| match digit {
            b'0'..=b'7' => Ok(number << 3 | u64::from(digit - b'0')),
            _ => Err(invalid("malformed number in a header")),
        })
    }
}

fn base256(field: &[u8]) -> io::Result<u64> {
    let first = field[0] & 0x7f;
    std::iter::once(&first).chain(&field[1..]).try_fold(0u64, |number, &byte| {
        if number >> 56 == 0 {
            Ok(number << 8 | u64::from(byte))
        } else {
            Err(invalid("number is out of range"))
        }
    })
}

/// Fills the buffer; false if the stream was at its end.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(cut_off()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
