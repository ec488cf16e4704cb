//! Disks as qcow2 files on top of the base: for every file system.

mod overlay;

use std::path::{Path, PathBuf};

pub(crate) use overlay::create as create_overlay;
pub(super) use overlay::virtual_bytes;
use sandbox_core::disk::{DiskBackend, DiskFormat};

use super::{
    Base, DiskError, Disks, OpenDisk, at,
    manifest::{self, Manifest},
    remove, sparse,
};

/// Disks by overlays.
#[derive(Debug)]
pub(crate) struct Qcow2;

fn disk(machine: &Path) -> PathBuf {
    machine.join("disk.qcow2")
}

/// Whether a folder has such a disk's file.
pub(super) fn exists(machine: &Path) -> bool {
    disk(machine).is_file()
}

impl Disks for Qcow2 {
    fn backend(&self) -> DiskBackend {
        DiskBackend::Qcow2
    }

    fn create(&self, machine: &Path, base: &Base, size_bytes: u64) -> Result<(), DiskError> {
        let manifest = Manifest::on(self.backend(), base, size_bytes)?;
        let make =
            || create_overlay(&disk(machine), base, size_bytes).map_err(at("making a disk's file"));
        manifest::make(machine, &manifest, make, || remove(&disk(machine)))
    }

    fn open(&self, machine: &Path) -> Result<OpenDisk, DiskError> {
        manifest::expect(machine, self.backend())?;
        Ok(OpenDisk {
            path: disk(machine),
            format: DiskFormat::Qcow2,
        })
    }

    fn close(&self, _machine: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn fork(&self, machine: &Path, to: &Path) -> Result<(), DiskError> {
        manifest::fork_file(self.backend(), disk, machine, to)
    }

    fn fork_bytes(&self, machine: &Path) -> Result<u64, DiskError> {
        sparse::physical_bytes(&disk(machine)).map_err(at("looking at a disk"))
    }

    fn destroy(&self, machine: &Path) -> Result<(), DiskError> {
        remove(&disk(machine))?;
        manifest::remove_manifest(machine)
    }
}
