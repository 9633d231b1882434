//! Chance and time of a simulation's thread, also for code that asks the system itself: `SystemTime::now`,
//! hashers' keys and `rand` end in libc's `clock_gettime` and `getrandom`, which are ours in programs of
//! this crate. Threads that simulate nothing are given the system's answers.
#![allow(unsafe_code)]

use std::cell::Cell;

use crate::random::Random;

#[derive(Clone, Copy)]
struct World {
    random: Random,
    /// Nanoseconds since a simulation's beginning.
    now: u64,
}

thread_local! {
    static WORLD: Cell<Option<World>> = const { Cell::new(None) };
}

/// The simulation's beginning: seconds since 1970.
const EPOCH: u64 = 1_800_000_000;
/// The monotonic clock at that moment, in seconds.
const UPTIME: u64 = 10_000;

/// Makes this thread one that simulates, for good.
pub(crate) fn enter(seed: u64) {
    WORLD.set(Some(World { random: Random::new(seed), now: 0 }));
}

/// Whether this thread simulates.
pub(crate) fn is_simulating() -> bool {
    WORLD.get().is_some()
}

/// Sets both clocks: nanoseconds since the simulation's beginning.
pub(crate) fn set_time(nanos: u64) {
    if let Some(world) = WORLD.get() {
        WORLD.set(Some(World { now: nanos, ..world }));
    }
}

/// # Safety
/// As of getrandom(2): `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: usize,
    flags: libc::c_uint,
) -> isize {
    let Some(mut world) = WORLD.get() else {
        // SAFETY: the same call with the same arguments.
        let read = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(read).unwrap_or(-1);
    };
    for at in 0..length {
        let byte = world.random.next().to_le_bytes()[3];
        // SAFETY: `at` is below `length`, for which the caller has room.
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    WORLD.set(Some(world));
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// # Safety
/// As of clock_gettime(2): `time` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let Some(world) = WORLD.get() else {
        // SAFETY: the same call with the same arguments.
        let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return libc::c_int::try_from(result).unwrap_or(-1);
    };
    let wall = clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE;
    let seconds = if wall { EPOCH } else { UPTIME } + world.now / 1_000_000_000;
    let now = libc::timespec {
        tv_sec: libc::time_t::try_from(seconds).unwrap_or_default(),
        tv_nsec: libc::c_long::try_from(world.now % 1_000_000_000).unwrap_or_default(),
    };
    // SAFETY: the caller lets us write there.
    unsafe { time.write(now) };
    0
}
