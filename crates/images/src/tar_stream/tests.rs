//! The reader against archives of the `tar` crate, hand-made headers, and noise.

use super::*;
use proptest::prelude::*;

fn header(path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(2000);
    header.set_mtime(1_700_000_000);
    header.set_path(path).unwrap();
    header.set_cksum();
    header
}

fn entries(archive: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
    let mut stream = TarStream::new(archive);
    let mut all = Vec::new();
    while let Some(entry) = stream.next_entry()? {
        let mut data = Vec::new();
        stream.read_to_end(&mut data)?;
        all.push((entry, data));
    }
    Ok(all)
}

#[test]
fn reads_fields_content_and_long_names() {
    let long = "d/".repeat(120) + "file";
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header("a", 5), b"hello".as_slice()).unwrap();
    builder.append_data(&mut header("x", 3), &long, b"abc".as_slice()).unwrap();
    let mut link = header("x", 0);
    link.set_entry_type(tar::EntryType::Symlink);
    builder.append_link(&mut link, "link", &long).unwrap();
    let all = entries(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(all.len(), 3);
    let (first, data) = &all[0];
    assert_eq!((first.path.as_slice(), data.as_slice()), (b"a".as_slice(), b"hello".as_slice()));
    assert_eq!(
        (first.mode, first.uid, first.gid, first.mtime),
        (0o4755, 1000, 2000, (1_700_000_000, 0))
    );
    assert_eq!(
        (all[1].0.path.as_slice(), all[1].1.as_slice()),
        (long.as_bytes(), b"abc".as_slice())
    );
    assert_eq!((all[2].0.kind, all[2].0.link.as_slice()), (Kind::Symlink, long.as_bytes()));
}

#[test]
fn pax_records_may_hold_newlines_and_override_the_header() {
    let records: [(&str, &[u8]); 5] = [
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n\n=5 x"),
        ("path", b"the/real/name"),
        ("uid", b"3000000"),
        ("mtime", b"-1.25"),
        ("SCHILY.xattr.user.a", b"b"),
    ];
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records).unwrap();
    builder.append(&header("a", 1), b"z".as_slice()).unwrap();
    builder.append(&header("b", 1), b"z".as_slice()).unwrap();
    let all = entries(&builder.into_inner().unwrap()).unwrap();
    let entry = &all[0].0;
    assert_eq!(entry.path, b"the/real/name");
    assert_eq!((entry.uid, entry.mtime), (3_000_000, (-2, 750_000_000)));
    assert_eq!(entry.xattrs[0].1, b"\x01\0\0\x02\n\n=5 x");
    assert_eq!(entry.xattrs[1], (b"user.a".to_vec(), b"b".to_vec()));
    assert!(all[1].0.xattrs.is_empty() && all[1].0.path == b"b");
}

#[test]
fn sparse_files_give_their_pieces() {
    let mut header = header("s", 512 + 3);
    header.set_entry_type(tar::EntryType::GNUSparse);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(10_000);
    gnu.sparse[0].set_offset(1024);
    gnu.sparse[0].set_length(512);
    gnu.sparse[1].set_offset(5000);
    gnu.sparse[1].set_length(3);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, [7; 515].as_slice()).unwrap();
    let all = entries(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(all[0].0.pieces, Some(vec![(1024, 512), (5000, 3)]));
    assert_eq!((all[0].0.size, all[0].1.len()), (10_000, 515));
}

#[test]
fn base256_sizes_are_read_and_absurd_ones_refused() {
    let mut big = header("a", 0);
    big.set_size(1 << 40);
    big.set_cksum();
    let error = entries(big.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    big.as_mut_bytes()[124..136].copy_from_slice(&[0xbf; 12]);
    big.set_cksum();
    assert_eq!(entries(big.as_bytes()).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn long_extension_headers_are_refused_before_they_are_read() {
    let mut huge = header("x", MAX_EXTENSION + 1);
    huge.set_entry_type(tar::EntryType::GNULongName);
    huge.set_cksum();
    let error = entries(huge.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "extension header is too long");
}

#[test]
fn cut_off_archives_are_noticed_everywhere() {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header("a", 700), [1; 700].as_slice()).unwrap();
    let whole = builder.into_inner().unwrap();
    for length in 1..512 + 1024 {
        let result = entries(&whole[..length]);
        // A cut exactly between header and nothing is where an archive without end marker ends too.
        assert!(result.is_err() || length == 0, "{length} bytes passed for a whole archive");
    }
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..2048), at in 0usize..512, byte: u8) {
        entries(&noise).ok();
        let mut damaged = header("a", 4).as_bytes().to_vec();
        damaged.extend([b'x'; 512]);
        damaged[at] = byte;
        let mut fixed = tar::Header::from_byte_slice(&damaged[..512]).clone();
        fixed.set_cksum();
        damaged[..512].copy_from_slice(fixed.as_bytes());
        entries(&damaged).ok();
    }
}
