//! Free space on the host's disk. It is checked before anything is made, since a disk that runs
//! full in the middle stops every guest that writes.

use std::{io, path::Path};

use rustix::fs::statvfs;
use sandbox_core::{host::HostError, size::MIB};

/// What stays free for running guests' writes, in MiB: no new machine is made beyond it.
pub(crate) const SPARE_MB: u64 = 64;

/// Free space in `folder`'s file system, in MiB.
pub(crate) fn free_mb(folder: &Path) -> io::Result<u64> {
    let stat = statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) / MIB)
}

/// Refuses when less than `needed_mb` MiB are free.
pub(crate) fn require(folder: &Path, needed_mb: u64) -> Result<(), HostError> {
    let free_mb = free_mb(folder)
        .map_err(|error| HostError::Internal(format!("asking for free space: {error}")))?;
    if free_mb < needed_mb {
        return Err(HostError::DiskFull {
            place: folder.display().to_string(),
            free_mb,
            needed_mb,
        });
    }
    Ok(())
}

/// The error for a disk that has just been found full.
pub(crate) fn full(folder: &Path) -> HostError {
    HostError::DiskFull {
        place: folder.display().to_string(),
        free_mb: free_mb(folder).unwrap_or(0),
        needed_mb: SPARE_MB,
    }
}

/// The error of a step that failed: a full disk where that was why.
pub(crate) fn or_internal(folder: &Path, step: &str, error: &io::Error) -> HostError {
    if is_for_want_of_space(folder, error) {
        return full(folder);
    }
    HostError::Internal(format!("{step}: {error}"))
}

/// The error of a helper program, as one of a full disk where that was why. To be asked before what
/// the step wrote is removed, which makes room again.
pub(crate) fn told_by_helper(folder: &Path, error: io::Error) -> io::Error {
    if is_for_want_of_space(folder, &error) {
        return io::Error::new(io::ErrorKind::StorageFull, error);
    }
    error
}

fn is_for_want_of_space(folder: &Path, error: &io::Error) -> bool {
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    // A helper program tells of a full disk in its own words: what counts is whether it is full.
    full || free_mb(folder).is_ok_and(|free_mb| free_mb < SPARE_MB / 4)
}
