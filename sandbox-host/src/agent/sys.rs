//! Small things asked of the kernel.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signalfd::SignalFd,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Types that own one descriptor and always name the same.
pub(crate) trait Owner: AsRawFd {}
impl Owner for OwnedFd {}
impl Owner for SignalFd {}

/// Has the runtime watch a file.
pub(crate) fn watch<T: Owner>(file: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: an owner keeps its one descriptor open for as long as it lives.
    Ok(unsafe { AsyncFd::register(file) }?)
}

/// As [`watch`], for a file that is never written.
pub(crate) fn watch_reads<T: Owner>(file: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: as in `watch`.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?)
}

/// Whether this process is the first of its machine.
pub(crate) fn is_init() -> bool {
    std::process::id() == 1
}

/// Reads and writes of this descriptor no longer wait.
pub(crate) fn set_nonblocking(file: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Bytes that can be read from a pipe at once.
pub(crate) fn readable_bytes(pipe: &OwnedFd) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to the address given.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 {
        return 0;
    }
    u64::try_from(count).unwrap_or(0)
}

/// Stops this thread. Only where no runtime runs yet or any more.
pub(crate) fn pause_ms(duration_ms: u16) {
    // With no descriptors, `poll` is a timer.
    let _ = nix::poll::poll(&mut [], duration_ms);
}

/// The machine's memory in bytes.
pub(crate) fn memory_bytes() -> u64 {
    pages_bytes(libc::_SC_PHYS_PAGES)
}

/// Memory in bytes that nothing uses.
pub(crate) fn free_memory_bytes() -> u64 {
    pages_bytes(libc::_SC_AVPHYS_PAGES)
}

fn pages_bytes(what: libc::c_int) -> u64 {
    // SAFETY: asks for two numbers.
    let (pages, page_bytes) = unsafe { (libc::sysconf(what), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).unwrap_or(0) * u64::try_from(page_bytes).unwrap_or(0)
}
