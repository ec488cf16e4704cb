//! What a disk is made of. The manifest is written when all else is there: a disk without one is
//! none.

use std::{
    io,
    path::{Path, PathBuf},
};

use sandbox_core::disk::DiskBackend;
use serde::{Deserialize, Serialize};

use super::{Base, DiskError, at, check_base, remove, sparse};
use crate::durable;

const FILE: &str = "disk.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) backend: DiskBackend,
    pub(super) base: Base,
    pub(super) size_bytes: u64,
}

impl Manifest {
    /// Of a disk that is to be made on a base, where one by this backend and of this size can.
    pub(super) fn on(
        backend: DiskBackend,
        base: &Base,
        size_bytes: u64,
    ) -> Result<Self, DiskError> {
        check_base(backend, base, size_bytes)?;
        Ok(Self {
            backend,
            base: base.clone(),
            size_bytes,
        })
    }
}

pub(super) fn read(machine: &Path) -> Result<Manifest, DiskError> {
    let text = match std::fs::read(machine.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DiskError::NoDisk(machine.to_path_buf()));
        }
        other => other.map_err(at("reading a disk's manifest"))?,
    };
    serde_json::from_slice(&text)
        .map_err(|error| at("reading a disk's manifest")(io::Error::other(error)))
}

/// The manifest of a disk of this backend.
pub(super) fn expect(machine: &Path, backend: DiskBackend) -> Result<Manifest, DiskError> {
    let manifest = read(machine)?;
    if manifest.backend != backend {
        return Err(DiskError::OtherBackend {
            folder: machine.to_path_buf(),
            backend: manifest.backend,
        });
    }
    Ok(manifest)
}

pub(super) fn exists(machine: &Path) -> bool {
    machine.join(FILE).exists()
}

/// Says that there is a disk. A power cut before the machine's own manifest says that it runs may take
/// that back.
pub(super) fn write(machine: &Path, manifest: &Manifest) -> Result<(), DiskError> {
    durable::place_json(&machine.join(FILE), manifest).map_err(at("writing a disk's manifest"))
}

/// Makes a disk and says so. Where that fails, `undo` leaves nothing.
pub(super) fn make(
    machine: &Path,
    manifest: &Manifest,
    make: impl FnOnce() -> Result<(), DiskError>,
    undo: impl FnOnce() -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    if exists(machine) {
        let there = io::ErrorKind::AlreadyExists.into();
        return Err(at("making a disk")(there));
    }
    let made = make().and_then(|()| write(machine, manifest));
    if made.is_err() {
        undo()?;
        remove_manifest(machine)?;
    }
    made
}

/// Forks a disk by a copy of the one file that holds what was written to it, `file` of its folder.
pub(super) fn fork_file(
    backend: DiskBackend,
    file: fn(&Path) -> PathBuf,
    machine: &Path,
    to: &Path,
) -> Result<(), DiskError> {
    let manifest = expect(machine, backend)?;
    let copy = || sparse::copy(&file(machine), &file(to)).map_err(at("copying what was written"));
    make(to, &manifest, copy, || remove(&file(to)))
}

/// The last of a disk to go.
pub(super) fn remove_manifest(machine: &Path) -> Result<(), DiskError> {
    remove(&machine.join(FILE))
}
