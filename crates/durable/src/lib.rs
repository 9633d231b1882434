//! Files that are replaced whole: whoever reads one, even after a crash in the middle, finds the former content or the new.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Replaces the file at `path`, or makes it, with the permissions `mode` whatever the umask is. On return the new content
/// survives a loss of power: it is on disk, and so is the folder that names it.
///
/// Only one caller at a time may replace a file: all use the same name for the new one, `path` with `.new` after it.
///
/// # Errors
/// What the file system says. The former content is still there then, unless only the folder could not be synced.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    put(path, content, mode, File::sync_all)?;
    sync_folder(folder(path))
}

/// As [`replace`], but waits for no disk: a crash of the process leaves the former content or the new, a loss of power may
/// leave neither. For what is written often and can be had again.
///
/// # Errors
/// As [`replace`].
pub fn replace_unsynced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    put(path, content, mode, |_| Ok(()))
}

/// Makes what was created, renamed or removed in a folder survive a loss of power.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn put(
    path: &Path,
    content: &[u8],
    mode: u32,
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let new = new_name(path);
    // What a crash left there may be readable for others, and would stay so.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        finish(&file)?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        // It may hold secrets, or fill the disk; the next call would remove it, if there is one.
        let _ = fs::remove_file(&new);
    })
}

fn new_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    type Replace = fn(&Path, &[u8], u32) -> io::Result<()>;
    const BOTH: [Replace; 2] = [replace, replace_unsynced];

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<OsString> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn content_and_mode_are_the_new_ones() {
        for replace in BOTH {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.json");
            // 0o666 is more than a usual umask lets through.
            for (content, wanted) in [("one", 0o600), ("two, longer", 0o666), ("3", 0o640)] {
                replace(&path, content.as_bytes(), wanted).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), content);
                assert_eq!(mode(&path), wanted);
            }
            assert_eq!(names(dir.path()), ["a.json"]);
        }
    }

    #[test]
    fn what_lies_in_the_way_is_neither_kept_nor_followed() {
        for replace in BOTH {
            let dir = tempfile::tempdir().unwrap();
            let (path, other) = (dir.path().join("key"), dir.path().join("other"));
            fs::write(&other, "untouched").unwrap();
            symlink(&other, new_name(&path)).unwrap();
            replace(&path, b"secret", 0o600).unwrap();
            let reader = File::create(new_name(&path)).unwrap();
            reader.set_permissions(Permissions::from_mode(0o644)).unwrap();
            replace(&path, b"another", 0o600).unwrap();
            assert_eq!(reader.metadata().unwrap().len(), 0, "whoever has it open reads nothing");
            assert_eq!(
                (fs::read_to_string(&path).unwrap().as_str(), mode(&path)),
                ("another", 0o600)
            );
            assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
        }
    }

    #[test]
    fn what_cannot_be_written_changes_nothing_and_leaves_nothing() {
        for replace in BOTH {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            fs::create_dir(&path).unwrap();
            replace(&path, b"content", 0o600).unwrap_err();
            assert!(path.is_dir());
            assert_eq!(names(dir.path()), ["a"]);
            assert!(replace(&dir.path().join("no/a"), b"content", 0o600).is_err());
        }
    }

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        assert_eq!(folder(Path::new("a")), Path::new("."));
        assert_eq!(folder(Path::new("/a")), Path::new("/"));
        assert_eq!(folder(Path::new("b/a")), Path::new("b"));
    }
}
