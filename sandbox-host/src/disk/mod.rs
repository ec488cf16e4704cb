//! Disks of machines: how each gets a private one that starts as its image's and costs what is
//! written to it. Three backends, one trait, one contract (`contract`).
//!
//! ```text
//! (none) ──create──► closed ◄──close──► open ──QEMU──► written
//!                      │  ▲               │
//!                      │  └───recover─────┘ its process died
//!                      ▼
//!                   destroyed: no file, no loop device, no dm device
//! ```
//!
//! All that a disk is made of is in its machine's folder, with a manifest that is there before
//! anything else is: whatever a dead process left is found by it. Backends hold no state of their
//! own. Calls block; what holds a runtime's thread calls them elsewhere.
//!
//! Machines do not choose among them yet: theirs are the qcow2 overlays that come with a memory
//! image.

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "no machine chooses its backend yet, and no program uses all"
    )
)]

#[cfg(any(feature = "disk-contract", test))]
#[expect(clippy::unwrap_used, reason = "checks fail by panicking")]
mod contract;
mod device;
mod dm_snapshot;
mod manifest;
#[cfg(feature = "host")]
mod probe;
#[cfg(feature = "host")]
mod qcow2;
mod reflink;
pub(crate) mod sparse;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt::Debug,
    fs, io,
    path::{Path, PathBuf},
};

#[cfg(feature = "disk-contract")]
pub use contract::run_as_init;
use sandbox_core::disk::{DiskBackend, DiskFormat};

/// What QEMU needs to open a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenDisk {
    pub(crate) path: PathBuf,
    pub(crate) format: DiskFormat,
}

/// Why a disk could not be made, opened or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// Growing is not a disk's business: an image has a version for each size.
    #[error("the base is of {base_bytes} bytes, a disk of {asked_bytes} was asked for")]
    WrongSize { base_bytes: u64, asked_bytes: u64 },
    #[error("there is no disk in {0}")]
    NoDisk(PathBuf),
    #[error("the disk in {folder} is made by {backend}")]
    OtherBackend {
        folder: PathBuf,
        backend: DiskBackend,
    },
    #[error("{step}: {source}")]
    Step {
        step: &'static str,
        source: io::Error,
    },
}

/// Names the step that failed.
fn at(step: &'static str) -> impl Fn(io::Error) -> DiskError {
    move |source| DiskError::Step { step, source }
}

/// A way to make disks.
///
/// A disk is named by its machine's folder, in which a backend may make files, `disk.json` among
/// them. One call at a time for one folder.
pub(crate) trait Disks: Debug + Send + Sync {
    /// Which backend it is.
    fn backend(&self) -> DiskBackend;

    /// Makes a disk that reads as `base`, a raw file of exactly this size that nobody ever writes
    /// to, and is then the machine's own. Nothing is left after an error.
    fn create(&self, machine: &Path, base: &Path, size_bytes: u64) -> Result<(), DiskError>;

    /// Makes a disk ready for QEMU. One that is open is opened again.
    fn open(&self, machine: &Path) -> Result<OpenDisk, DiskError>;

    /// Gives up what an open disk holds beside its files. No error where it is not open.
    fn close(&self, machine: &Path) -> Result<(), DiskError>;

    /// Copies a disk that nobody writes to meanwhile to `out`, a raw file that is not there yet,
    /// holes left out. Whether it is open makes no difference, before and after.
    fn freeze_copy(&self, machine: &Path, out: &Path) -> Result<(), DiskError>;

    /// Closes a disk and removes its files. No error where there is none.
    fn destroy(&self, machine: &Path) -> Result<(), DiskError>;

    /// Brings what a dead process left to order: a disk is closed behind it, or gone where it was
    /// not whole yet. No error where there is none.
    fn recover(&self, machine: &Path) -> Result<(), DiskError> {
        match manifest::read(machine) {
            Ok(manifest) if manifest.whole => self.close(machine),
            _ => self.destroy(machine),
        }
    }
}

/// The size of a base that a disk of this size can start from.
fn check_size(base: &Path, asked_bytes: u64) -> Result<(), DiskError> {
    let base_bytes = fs::metadata(base).map_err(at("looking at the base"))?.len();
    if base_bytes == asked_bytes {
        Ok(())
    } else {
        Err(DiskError::WrongSize {
            base_bytes,
            asked_bytes,
        })
    }
}

/// Removes a file, if it is there.
fn remove(file: &Path) -> Result<(), DiskError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(at("removing a disk's file")(error))
        }
        _ => Ok(()),
    }
}
