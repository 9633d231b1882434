//! The crate's only `unsafe`: system calls that nix does not wrap, and taking over inherited file descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor for process `pid` that becomes readable when it ends; `pidfd_open(2)`, close-on-exec.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` to the process; `pidfd_send_signal(2)`.
pub(crate) fn pidfd_send_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means what kill(2) sends.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, none, 0) })?;
    Ok(())
}

/// A descriptor that tokio watches. `T` must own the one descriptor that its `as_raw_fd` gives, for as long as it lives.
pub(crate) fn async_fd<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: by this function's contract the number stays the same and open until the AsyncFd is dropped.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(io::Error::from)
}

/// Marks every descriptor from 3 on close-on-exec; `close_range(2)`.
pub(crate) fn cloexec_from_3() -> io::Result<()> {
    // SAFETY: no pointers; only flags of descriptors change.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}

/// Takes over a descriptor that another process left or sent to us. The caller must be its only owner.
pub(crate) fn own(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer; it only tells whether the number is open.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: open, and by this function's contract (inherited by number, or from SCM_RIGHTS) owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the terminal's and the service manager's requests to end go past us.
pub(crate) fn ignore_termination() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler code; for these signals it cannot fail.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// All signals back to their default, none blocked: what a fresh program expects (Rust's start ignores SIGPIPE).
pub(crate) fn reset_signals() -> io::Result<()> {
    /// The kernel's `struct sigaction`: handler (0 is SIG_DFL), flags, restorer, mask; on some machines without restorer.
    const DEFAULT: [libc::c_ulong; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    for signal in 1..=64 {
        let none = std::ptr::null::<libc::c_ulong>();
        // By the bare system call, since libc keeps 32 and 33 to itself, which an ancestor may have ignored nevertheless.
        // SAFETY: the new action is a live, zeroed array at least as long as the kernel's struct; no old one is asked for.
        let result = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), none, MASK_BYTES)
        };
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            check(result)?;
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Makes the terminal at `fd` the controlling one of this session; `TIOCSCTTY`.
pub(crate) fn set_controlling_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}

/// Sets the size of the terminal at `fd`; `TIOCSWINSZ`.
pub(crate) fn set_window_size(fd: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is to a live winsize, which the kernel only reads.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) }.into())?;
    Ok(())
}

/// The other end of the pseudo terminal whose master is `fd`, without a path; `TIOCSPTLCK`, `TIOCGPTPEER`.
pub(crate) fn open_terminal_peer(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: the pointer is to a live int, which the kernel only reads.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSPTLCK, &unlock) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number, not a pointer.
    let peer = check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(peer as RawFd) })
}

/// Reaps child `pid`: its exit code, or 128 + the signal that ended it, and that signal. Unlike nix it knows real-time
/// signals.
pub(crate) fn reap(pid: i32) -> io::Result<(i32, Option<i32>)> {
    let mut status: libc::c_int = 0;
    loop {
        // SAFETY: the pointer is to a live int, which the kernel writes.
        match check(unsafe { libc::waitpid(pid, &mut status, 0) }.into()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) if libc::WIFSIGNALED(status) => {
                let signal = libc::WTERMSIG(status);
                return Ok((128 + signal, Some(signal)));
            }
            Ok(_) => return Ok((libc::WEXITSTATUS(status), None)),
        }
    }
}

/// Lets go of the pages of program code that were needed to get here; what is needed again is mapped again, from the
/// page cache. For a process that from now on does little but wait.
pub(crate) fn release_code_pages() -> io::Result<()> {
    for (start, end) in code_mappings(&std::fs::read_to_string("/proc/self/maps")?) {
        // SAFETY: private mappings of files that are not writable and hold nothing relocated (see `code_mappings`): they
        // have never been changed, so the next access reads the same bytes from the file.
        check(
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) }
                .into(),
        )?;
    }
    Ok(())
}

/// Mappings of files with code, and those of their beginnings (headers, relocations, constants). Other read-only ones may
/// be memory that the dynamic linker relocated and then protected.
fn code_mappings(maps: &str) -> Vec<(usize, usize)> {
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let is_file = fields.nth(2)?.starts_with('/');
        let code =
            permissions == "r-xp" || (permissions == "r--p" && offset.bytes().all(|b| b == b'0'));
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        if is_file && code { Some((address(start)?, address(end)?)) } else { None }
    };
    maps.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_mappings_are_released() {
        let maps = "1000-2000 r--p 00000000 fe:00 1    /bin/a b\n\
            2000-3000 r-xp 00001000 fe:00 1    /bin/a b\n\
            3000-4000 r--p 00002000 fe:00 1    /bin/a b\n\
            4000-5000 rw-p 00003000 fe:00 1    /bin/a b\n\
            5000-6000 rw-p 00000000 00:00 0\n\
            6000-7000 r-xp 00000000 00:00 0    [vdso]\n";
        assert_eq!(code_mappings(maps), [(0x1000, 0x2000), (0x2000, 0x3000)]);
        release_code_pages().unwrap(); // and the code still runs
    }
}
