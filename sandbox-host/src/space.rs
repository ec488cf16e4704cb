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
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    // A helper program tells of a full disk in its own words: what counts is whether it is full.
    let free_mb = free_mb(folder).unwrap_or(u64::MAX);
    if full || free_mb < SPARE_MB / 4 {
        let place = folder.display().to_string();
        return HostError::DiskFull {
            place,
            free_mb,
            needed_mb: SPARE_MB,
        };
    }
    HostError::Internal(format!("{step}: {error}"))
}
