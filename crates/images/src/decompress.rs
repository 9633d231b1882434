//! Plain, gzip or zstd, told apart by their first bytes: media types are sometimes wrong, magic numbers are not.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER: usize = 128 * 1024;

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// The uncompressed form of a stream.
pub(crate) enum Decompressed<R: Read> {
    Plain(Source<R>),
    /// `Multi`: gzip allows several members in a row, and pigz and eStargz write them.
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(zstd::Decoder<'static, Source<R>>),
}

impl<R: Read> Decompressed<R> {
    pub(crate) fn new(mut inner: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(ZSTD.len());
        inner.by_ref().take(ZSTD.len() as u64).read_to_end(&mut head)?;
        let (gzip, zstd) = (head.starts_with(&GZIP), head.starts_with(&ZSTD));
        let source = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(inner));
        Ok(match (gzip, zstd) {
            (true, _) => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            // The decoder refuses windows over 128 MiB by default, which bounds its memory.
            (_, true) => Self::Zstd(zstd::Decoder::with_buffer(source)?),
            _ => Self::Plain(source),
        })
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn inflate(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompressed::new(data)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn tells_formats_apart() {
        let data = b"some text, some text, some text".as_slice();
        assert_eq!(inflate(data).unwrap(), data);
        assert_eq!(inflate(&gzip(data)).unwrap(), data);
        assert_eq!(inflate(&[gzip(data), gzip(data)].concat()).unwrap(), [data, data].concat());
        assert_eq!(inflate(&zstd::encode_all(data, 1).unwrap()).unwrap(), data);
        assert_eq!(inflate(b"").unwrap(), b"");
        assert_eq!(inflate(b"x").unwrap(), b"x");
    }

    #[test]
    fn truncated_streams_are_errors() {
        let data = [7; 10_000];
        for whole in [gzip(&data), zstd::encode_all(&data[..], 1).unwrap()] {
            assert!(inflate(&whole[..whole.len() - 3]).is_err());
        }
    }
}
