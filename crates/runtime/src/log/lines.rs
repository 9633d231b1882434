//! A stream of bytes cut into lines, and long lines into pieces, as Docker's copier does.

/// Longest piece, newline excluded (moby `loggerutils`' buffer size).
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// Collects bytes and hands out lines, each with its newline; a piece of a longer line has none.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let end = bytes.iter().take(room + 1).position(|&b| b == b'\n');
            let (take, complete) = match end {
                Some(at) => (at + 1, true),
                None => (room.min(bytes.len()), bytes.len() >= room),
            };
            // Whole lines pass without a copy.
            if complete && self.pending.is_empty() {
                line(&bytes[..take]);
            } else {
                self.pending.extend_from_slice(&bytes[..take]);
                if complete {
                    line(&self.pending);
                    self.pending.clear();
                }
            }
            bytes = &bytes[take..];
        }
    }

    /// The end of the stream: what is left is a line, if without its newline.
    pub(crate) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            line(&self.pending);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for chunk in chunks {
            splitter.feed(chunk, |l| lines.push(l.to_vec()));
        }
        splitter.finish(|l| lines.push(l.to_vec()));
        lines
    }

    #[test]
    fn lines_are_cut_at_newlines_however_they_arrive() {
        let expected: Vec<Vec<u8>> = vec![b"one\n".to_vec(), b"\n".to_vec(), b"two".to_vec()];
        assert_eq!(split(&[b"one\n\ntwo"]), expected);
        let bytes: Vec<&[u8]> = b"one\n\ntwo".chunks(1).collect();
        assert_eq!(split(&bytes), expected);
    }

    #[test]
    fn long_lines_are_cut_at_16_kib() {
        let mut text = vec![b'x'; MAX_LINE];
        text.push(b'\n');
        assert_eq!(
            split(&[&text]),
            [text.clone()],
            "a line of exactly the limit keeps its newline"
        );
        let long = vec![b'y'; 2 * MAX_LINE + 3];
        let pieces: Vec<usize> = split(&[&long]).iter().map(Vec::len).collect();
        assert_eq!(pieces, [MAX_LINE, MAX_LINE, 3]);
        let lengths = |chunk| {
            split(&long.chunks(chunk).collect::<Vec<_>>()).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(1000), pieces);
    }
}
