//! Disks of machines: how each gets a private one that starts as its image's and costs what is
//! written to it. Three backends, one trait, one contract (`contract`).
//!
//! ```text
//! (none) ──create──► closed ◄──close──► open ──QEMU──► written
//!    ▲                 │  ▲               │
//!    │    fork ◄───────┤  └───────────────┘ also where its process died
//!    │  (another)      ▼
//!    └───────────── destroyed: no file, no loop device, no dm device
//! ```
//!
//! All that a disk is made of is in its machine's folder, with a manifest (`disk.json`) that says
//! which backend made it: whatever a dead process left is found by it, and another choice of backend
//! concerns new disks only. Backends hold no state of their own. Calls block; what holds a runtime's
//! thread makes the slow ones (`create`, `fork`) elsewhere.
//!
//! What is nobody's disk is a [`Base`]: an image's, or a frozen template's. Never here: what an image
//! is, and who lies on it.

#![cfg_attr(
    not(feature = "host"),
    expect(dead_code, reason = "the contract's program needs one backend alone")
)]

#[cfg(any(feature = "disk-contract", test))]
#[expect(clippy::unwrap_used, reason = "checks fail by panicking")]
mod contract;
mod device;
mod dm_snapshot;
#[cfg(all(feature = "host", feature = "testkit"))]
pub(crate) mod double;
#[cfg(feature = "host")]
mod handle;
mod manifest;
#[cfg(feature = "host")]
mod probe;
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
#[cfg(feature = "host")]
pub(crate) use handle::Disk;
#[cfg(feature = "host")]
pub(crate) use probe::{choose, probe};
#[cfg(feature = "host")]
pub(crate) use qcow2::create_overlay;
use sandbox_core::disk::{DiskBackend, DiskFormat};
use serde::{Deserialize, Serialize};

/// What a disk starts from: a file that nobody ever writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    pub(crate) format: DiskFormat,
}

impl Base {
    /// A raw file.
    pub(crate) fn raw(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: DiskFormat::Raw,
        }
    }
}

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
    /// Only an overlay lies on an overlay.
    #[error("a disk by {backend} can't lie on a {} file", format.as_str())]
    WrongFormat {
        backend: DiskBackend,
        format: DiskFormat,
    },
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

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        let kind = match &error {
            DiskError::NoDisk(_) => io::ErrorKind::NotFound,
            DiskError::Step { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
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

    /// Makes a disk that reads as `base`, which is of exactly this size, and is then the machine's
    /// own. Nothing is left after an error.
    fn create(&self, machine: &Path, base: &Base, size_bytes: u64) -> Result<(), DiskError>;

    /// Makes a disk ready for QEMU. One that is open is opened again.
    fn open(&self, machine: &Path) -> Result<OpenDisk, DiskError>;

    /// Gives up what an open disk holds beside its files. No error where it is not open.
    fn close(&self, machine: &Path) -> Result<(), DiskError>;

    /// Makes a disk in another folder that reads as this one, which nobody writes to meanwhile, and
    /// is then apart from it. Whether it is open makes no difference. Nothing is left after an error.
    fn fork(&self, machine: &Path, to: &Path) -> Result<(), DiskError>;

    /// What a fork takes at most, in bytes.
    fn fork_bytes(&self, machine: &Path) -> Result<u64, DiskError>;

    /// Closes a disk and removes its files. No error where there is none.
    fn destroy(&self, machine: &Path) -> Result<(), DiskError>;
}

/// Whether a disk of this backend and size can lie on a base.
fn check_base(backend: DiskBackend, base: &Base, asked_bytes: u64) -> Result<(), DiskError> {
    let base_bytes = match base.format {
        DiskFormat::Raw => fs::metadata(&base.path).map(|file| file.len()),
        DiskFormat::Qcow2 if backend == DiskBackend::Qcow2 => qcow2::virtual_bytes(&base.path),
        DiskFormat::Qcow2 => {
            let format = base.format;
            return Err(DiskError::WrongFormat { backend, format });
        }
    };
    let base_bytes = base_bytes.map_err(at("looking at the base"))?;
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
