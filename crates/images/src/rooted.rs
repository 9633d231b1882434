//! File operations that cannot leave a layer's root.
//!
//! Every path is resolved by the kernel, from a descriptor of the root, with `openat2(2)` and `RESOLVE_BENEATH`: `..`,
//! an absolute symbolic link, or a chain of relative ones cannot lead out, whatever earlier entries made. The last
//! component is never followed: it is created exclusively, or removed, through its parent's descriptor.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use absent::Absent;
use at::{
    Found, found_at, gid, make_directory, make_opaque, remove_tree, set_metadata,
    set_owner_and_time, timestamps, uid,
};
pub(crate) use at::{Metadata, OPAQUE};

mod absent;
mod at;

/// Tries of an `openat2` that lost a race against a rename elsewhere on the system (`EAGAIN`, see openat2(2)).
const RESOLVE_TRIES: u32 = 256;

/// Why one entry was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("path has a \"..\" component")]
    DotDot,
    #[error("path leaves the layer's root through a symbolic link")]
    Escape,
    #[error("path is empty, too long, or has a NUL byte")]
    BadPath,
    #[error("a parent of it is not a directory")]
    ParentNotDirectory,
    #[error("hard link target {0:?} is not in the layer, or leaves its root")]
    LinkTarget(PathBuf),
    #[error("the layer has more than {0} device nodes")]
    TooManyDevices(usize),
    #[error("unknown entry type {0:?}")]
    UnknownType(char),
    #[error("malformed whiteout")]
    Whiteout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::XDEV => Self::Escape,
            Errno::NAMETOOLONG => Self::BadPath,
            other => Self::Io(other.into()),
        }
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// A path relative to the root, without empty, `.` or `..` components. Empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relative<'a>(Vec<&'a [u8]>);

impl<'a> Relative<'a> {
    /// Names in layers may start with a slash (some builders write them so); they mean the layer's root.
    pub(crate) fn new(path: &'a [u8]) -> Result<Self> {
        if path.is_empty() || path.len() >= 4096 || path.contains(&0) {
            return Err(Refusal::BadPath);
        }
        let components: Vec<_> =
            path.split(|&b| b == b'/').filter(|&c| !matches!(c, b"" | b".")).collect();
        if components.contains(&b"..".as_slice()) {
            return Err(Refusal::DotDot);
        }
        Ok(Self(components))
    }

    /// Parent and last component; none for the root.
    pub(crate) fn split(&self) -> Option<(Relative<'a>, &'a [u8])> {
        let (name, parent) = self.0.split_last()?;
        Some((Self(parent.to_vec()), name))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }
}

/// The root of a layer being unpacked. Nobody else writes below it meanwhile.
pub(crate) struct Root {
    fd: Rc<OwnedFd>,
    /// The directory used last: entries come grouped by directory.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    absent: Absent,
}

/// What became of a hard link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linked {
    Made,
    /// Its target was left out, and so is it.
    LeftOut,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = Rc::new(fs::open(path, flags, Mode::empty())?);
        Ok(Self { fd, last: None, absent: Absent::default() })
    }

    /// Makes a regular file and lets `fill` write it.
    pub(crate) fn file(
        &mut self,
        at: &Relative<'_>,
        metadata: &Metadata<'_>,
        fill: impl FnOnce(&mut std::fs::File) -> io::Result<()>,
    ) -> Result<()> {
        let (parent, name) = self.place(at)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file =
            std::fs::File::from(fs::openat(&*parent, name, flags, Mode::from_raw_mode(0o600))?);
        fill(&mut file)?;
        set_metadata(&file, metadata)?;
        fs::futimens(&file, &timestamps(metadata.mtime))?;
        Ok(())
    }

    /// Makes a directory, or takes the one that is there, and sets its metadata but for the time: entries made in it
    /// later would change that again; see [`Root::set_directory_time`].
    pub(crate) fn directory(&mut self, at: &Relative<'_>, metadata: &Metadata<'_>) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some((parent, name)) = at.split() else {
            return set_metadata(&*self.fd, metadata);
        };
        let parent = self.parent(&parent)?;
        let found = found_at(&parent, name)?;
        if found != Found::Directory {
            self.clear(&parent, name, found)?;
            fs::mkdirat(&*parent, name, Mode::from_raw_mode(0o700))?;
        }
        let directory = fs::openat(&*parent, name, flags, Mode::empty())?;
        if found == Found::Whiteout {
            fs::fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?;
        }
        set_metadata(&directory, metadata)
    }

    /// Sets a directory's modification time. What is no directory any more is left alone.
    pub(crate) fn set_directory_time(&self, at: &[u8], mtime: (i64, u32)) -> Result<()> {
        let at = if at.is_empty() { b"." } else { at };
        match self.resolve(at, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            Ok(directory) => Ok(fs::futimens(&directory, &timestamps(mtime))?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a symbolic link; the target is stored as it is, absolute or not, and resolved by nobody here.
    pub(crate) fn symlink(
        &mut self,
        at: &Relative<'_>,
        target: &[u8],
        metadata: &Metadata<'_>,
    ) -> Result<()> {
        let (parent, name) = self.place(at)?;
        fs::symlinkat(target, &*parent, name)?;
        set_owner_and_time(&parent, name, metadata)
    }

    /// Makes a named pipe.
    pub(crate) fn fifo(&mut self, at: &Relative<'_>, metadata: &Metadata<'_>) -> Result<()> {
        let (parent, name) = self.place(at)?;
        fs::mknodat(&*parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        fs::chownat(&*parent, name, uid(metadata), gid(metadata), AtFlags::SYMLINK_NOFOLLOW)?;
        // chmod follows links, but this name is the pipe just made.
        fs::chmodat(&*parent, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())?;
        fs::utimensat(&*parent, name, &timestamps(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Makes nothing, in place of what the layer had under this name; links to it will be left out, too.
    pub(crate) fn leave_out(&mut self, at: &Relative<'_>) -> Result<()> {
        let (parent, name) = self.place(at)?;
        self.absent.insert(&parent, name)
    }

    /// Makes another name for a file of this layer. A target that starts with a slash means the layer's root, as names do.
    pub(crate) fn hard_link(&mut self, at: &Relative<'_>, target: &[u8]) -> Result<Linked> {
        let refusal = || Refusal::LinkTarget(PathBuf::from(OsString::from_vec(target.to_vec())));
        let path = Relative::new(target).map_err(|_| refusal())?;
        let (directory, target_name) = path.split().ok_or_else(refusal)?;
        let directory = self.open_directory(&directory.bytes()).map_err(|_| refusal())?;
        let stat = fs::statat(&*directory, target_name, AtFlags::SYMLINK_NOFOLLOW);
        let linkable = |stat: &fs::Stat| {
            matches!(
                FileType::from_raw_mode(stat.st_mode),
                FileType::RegularFile | FileType::Symlink | FileType::Fifo
            )
        };
        let Some(stat) = stat.ok().filter(linkable) else {
            if !self.absent.contains(&directory, target_name)? {
                return Err(refusal());
            }
            self.leave_out(at)?;
            return Ok(Linked::LeftOut);
        };
        let (parent, name) = at.split().ok_or(Refusal::BadPath)?;
        let parent = self.parent(&parent)?;
        if let Ok(there) = fs::statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(Linked::Made);
        }
        let found = found_at(&parent, name)?;
        self.clear(&parent, name, found)?;
        fs::linkat(&*directory, target_name, &*parent, name, AtFlags::empty())?;
        Ok(Linked::Made)
    }

    /// Hides `name` of the layers below: overlayfs's whiteout, a character device 0/0 (kernel,
    /// `Documentation/filesystems/overlayfs.rst`). Whiteouts speak of lower layers only, so what this layer itself has
    /// under the name stays; a directory then becomes opaque.
    pub(crate) fn whiteout(&mut self, directory: &Relative<'_>, name: &[u8]) -> Result<()> {
        if matches!(name, b"" | b"." | b"..") {
            return Err(Refusal::Whiteout);
        }
        let parent = self.parent(directory)?;
        match found_at(&parent, name)? {
            Found::Nothing => Ok(fs::mknodat(
                &*parent,
                name,
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o600),
                0,
            )?),
            Found::Directory => make_opaque(&parent, name),
            Found::Whiteout | Found::Other => Ok(()),
        }
    }

    /// Hides all that the layers below have in `directory`.
    pub(crate) fn opaque(&mut self, directory: &Relative<'_>) -> Result<()> {
        let directory = self.parent(directory)?;
        make_opaque(&directory, b".")
    }

    /// Parent and name for something new that is no directory; what was there is gone.
    fn place<'a>(&mut self, at: &Relative<'a>) -> Result<(Rc<OwnedFd>, &'a [u8])> {
        let (parent, name) = at.split().ok_or(Refusal::BadPath)?;
        let parent = self.parent(&parent)?;
        let found = found_at(&parent, name)?;
        self.clear(&parent, name, found)?;
        Ok((parent, name))
    }

    fn clear(&mut self, parent: &OwnedFd, name: &[u8], found: Found) -> Result<()> {
        match found {
            Found::Nothing => return Ok(()),
            Found::Directory => remove_tree(parent, name)?,
            Found::Whiteout | Found::Other => fs::unlinkat(parent, name, AtFlags::empty())?,
        }
        // The directory used last may have been reached through what is gone now.
        self.last = None;
        Ok(())
    }

    /// The directory at `path`, made (root's, 0755) where it is missing.
    fn parent(&mut self, path: &Relative<'_>) -> Result<Rc<OwnedFd>> {
        let bytes = path.bytes();
        if let Some((last, fd)) = &self.last
            && *last == bytes
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.open_directory(&bytes) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_directories(path)?,
            other => other?,
        };
        self.last = Some((bytes, Rc::clone(&fd)));
        Ok(fd)
    }

    fn make_directories(&mut self, path: &Relative<'_>) -> Result<Rc<OwnedFd>> {
        let mut directory = Rc::clone(&self.fd);
        for (depth, name) in path.0.iter().enumerate() {
            let prefix = path.0[..=depth].join(&b'/');
            directory = match self.open_directory(&prefix) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    make_directory(&directory, name)?;
                    self.open_directory(&prefix)?
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    fn open_directory(&self, path: &[u8]) -> std::result::Result<Rc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.fd));
        }
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY).map(Rc::new)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        for _ in 1..RESOLVE_TRIES {
            match fs::openat2(&*self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        fs::openat2(&*self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_relative_or_refused() {
        let components =
            |path: &'static str| Relative::new(path.as_bytes()).map(|path| path.bytes());
        assert_eq!(components("./a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(components("/etc/passwd").unwrap(), b"etc/passwd");
        assert_eq!(components("./").unwrap(), b"");
        for path in ["..", "a/../b", "/..", "a/..", "../../etc/passwd"] {
            assert!(matches!(components(path), Err(Refusal::DotDot)), "{path}");
        }
        assert!(matches!(components(""), Err(Refusal::BadPath)));
        assert!(matches!(components("a\0b"), Err(Refusal::BadPath)));
    }

    proptest! {
        #[test]
        fn no_component_ever_climbs(path in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..40)) {
            if let Ok(relative) = Relative::new(&path) {
                prop_assert!(relative.0.iter().all(|c| !c.is_empty() && *c != b".." && !c.contains(&b'/') && !c.contains(&0)));
            }
        }
    }
}
