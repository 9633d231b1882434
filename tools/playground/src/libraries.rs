//! What a program that is linked dynamically needs beside it where nothing else is: its loader, and its libraries.

use crate::process::run;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// What the program calls it, such as `libc.so.6`.
    pub(crate) name: String,
    /// Where this machine has it.
    pub(crate) path: PathBuf,
}

/// The libraries of `program`, as its own loader finds them: with `--list` it says so, and runs nothing. That is all
/// that ldd(1) does, and musl's loader knows it too.
pub(crate) fn of(program: &Path, loader: &Path) -> Result<Vec<Library>> {
    let listed = run(Command::new(loader).arg("--list").arg(program))?;
    parse(&listed).map_err(|name| Error::BadFile {
        path: program.to_owned(),
        reason: format!("its library {name} is not found"),
    })
}

/// Lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f...)`. The kernel's own, and the loader, have no
/// arrow. Err: the name of a library that is not there.
fn parse(listed: &str) -> std::result::Result<Vec<Library>, String> {
    let named = listed.lines().filter_map(|line| line.trim().split_once(" => "));
    named
        .map(|(name, found)| match found.split_once(" (") {
            Some((path, _)) if path.starts_with('/') => {
                Ok(Library { name: name.to_owned(), path: PathBuf::from(path) })
            }
            _ => Err(name.to_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_lists_is_understood() {
        let glibc = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibgcc_s.so.1 => /lib/a/libgcc_s.so.1 (0x0000)\n\
                     \tlibc.so.6 => /lib/a/libc.so.6 (0x0000)\n\t/lib64/ld-linux-x86-64.so.2 (0x0000)\n";
        let library = |name: &str, path: &str| Library { name: name.to_owned(), path: path.into() };
        assert_eq!(
            parse(glibc),
            Ok(vec![
                library("libgcc_s.so.1", "/lib/a/libgcc_s.so.1"),
                library("libc.so.6", "/lib/a/libc.so.6")
            ])
        );
        let musl = "\t/lib/ld-musl-x86_64.so.1 (0x0000)\n\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x0000)\n";
        assert_eq!(
            parse(musl),
            Ok(vec![library("libc.musl-x86_64.so.1", "/lib/ld-musl-x86_64.so.1")])
        );
        assert_eq!(parse("\tlibx.so.1 => not found\n"), Err("libx.so.1".to_owned()));
    }
}
