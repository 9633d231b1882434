//! What is done at one name of an open directory, and to an open file: no path is resolved here.

use std::os::fd::OwnedFd;

use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{Refusal, Result};

/// Marks a directory that hides those below it (kernel, `Documentation/filesystems/overlayfs.rst`).
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Owner, permissions and time of an entry.
pub(crate) struct Metadata<'a> {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// What a name stands for already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Directory,
    /// Ours: those in archives are left out.
    Whiteout,
    Other,
}

pub(super) fn found_at(parent: &OwnedFd, name: &[u8]) -> Result<Found> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Directory,
            FileType::CharacterDevice => Found::Whiteout,
            _ => Found::Other,
        }),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(errno) => Err(errno.into()),
    }
}

/// A directory no entry described. In place of a whiteout it is opaque: what was below stays hidden.
pub(super) fn make_directory(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    let found = found_at(parent, name)?;
    match found {
        Found::Nothing => {}
        Found::Whiteout => fs::unlinkat(parent, name, AtFlags::empty())?,
        Found::Directory | Found::Other => return Err(Refusal::ParentNotDirectory),
    }
    fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    // Once more, as the umask took its share.
    fs::chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
    if found == Found::Whiteout { make_opaque(parent, name) } else { Ok(()) }
}

pub(super) fn make_opaque(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Mode::empty())?;
    Ok(fs::fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?)
}

/// Removes a directory and all in it, following no link.
pub(super) fn remove_tree(parent: &OwnedFd, name: &[u8]) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        match fs::unlinkat(&directory, child, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(&directory, child)?,
            other => other?,
        }
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Owner first: changing it clears setuid bits and capabilities.
pub(super) fn set_metadata(
    fd: impl rustix::fd::AsFd + Copy,
    metadata: &Metadata<'_>,
) -> Result<()> {
    fs::fchown(fd, uid(metadata), gid(metadata))?;
    fs::fchmod(fd, Mode::from_raw_mode(metadata.mode))?;
    for (name, value) in metadata.xattrs.iter().filter(|(name, _)| is_allowed_xattr(name)) {
        fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty())?;
    }
    Ok(())
}

pub(super) fn set_owner_and_time(
    parent: &OwnedFd,
    name: &[u8],
    metadata: &Metadata<'_>,
) -> Result<()> {
    fs::chownat(parent, name, uid(metadata), gid(metadata), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(fs::utimensat(parent, name, &timestamps(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// File capabilities and users' own attributes. Others (`trusted.overlay.*`, labels) would steer the host's kernel.
fn is_allowed_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

pub(super) fn uid(metadata: &Metadata<'_>) -> Option<Uid> {
    Some(Uid::from_raw(metadata.uid))
}

pub(super) fn gid(metadata: &Metadata<'_>) -> Option<Gid> {
    Some(Gid::from_raw(metadata.gid))
}

pub(super) fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
