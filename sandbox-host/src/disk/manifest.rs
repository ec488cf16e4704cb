//! What a disk is made of, on disk before any of it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sandbox_core::disk::DiskBackend;
use serde::{Deserialize, Serialize};

use super::{DiskError, at, remove};
use crate::durable;

const FILE: &str = "disk.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) backend: DiskBackend,
    pub(super) base: PathBuf,
    pub(super) size_bytes: u64,
    /// Whether all of it is there.
    pub(super) whole: bool,
}

pub(super) fn read(machine: &Path) -> Result<Manifest, DiskError> {
    let text = match fs::read(machine.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DiskError::NoDisk(machine.to_path_buf()));
        }
        other => other.map_err(at("reading a disk's manifest"))?,
    };
    serde_json::from_slice(&text)
        .map_err(|error| at("reading a disk's manifest")(io::Error::other(error)))
}

/// The manifest of a whole disk of this backend.
pub(super) fn expect(machine: &Path, backend: DiskBackend) -> Result<Manifest, DiskError> {
    let manifest = read(machine)?;
    if manifest.backend != backend {
        return Err(DiskError::OtherBackend {
            folder: machine.to_path_buf(),
            backend: manifest.backend,
        });
    }
    if manifest.whole {
        Ok(manifest)
    } else {
        Err(DiskError::NoDisk(machine.to_path_buf()))
    }
}

/// Says what will be there, makes it, and says that it is whole. Where that fails, `undo` and the
/// manifest's removal leave nothing.
pub(super) fn make(
    machine: &Path,
    mut manifest: Manifest,
    make: impl FnOnce() -> Result<(), DiskError>,
    undo: impl FnOnce() -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let file = machine.join(FILE);
    let write = |manifest: &Manifest| {
        durable::write_json(&file, manifest).map_err(at("writing a disk's manifest"))
    };
    if file.exists() {
        let there = io::ErrorKind::AlreadyExists.into();
        return Err(at("making a disk")(there));
    }
    manifest.whole = false;
    write(&manifest)?;
    manifest.whole = true;
    let made = make().and_then(|()| write(&manifest));
    if made.is_err() {
        undo()?;
        remove_manifest(machine)?;
    }
    made
}

/// The last of a disk to go.
pub(super) fn remove_manifest(machine: &Path) -> Result<(), DiskError> {
    remove(&machine.join(FILE))
}
