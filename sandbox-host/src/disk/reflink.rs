//! Disks as files that share the base's blocks until they are written to: for XFS, btrfs, and
//! whatever else knows `FICLONE`.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sandbox_core::disk::{DiskBackend, DiskFormat};

use super::{
    Base, DiskError, Disks, OpenDisk, at,
    manifest::{self, Manifest},
    remove, sparse,
};

/// Disks by shared blocks. Base and machines must be on one file system.
#[derive(Debug)]
pub(crate) struct Reflink;

fn disk(machine: &Path) -> PathBuf {
    machine.join("disk.raw")
}

fn make(machine: &Path, from: &Path, manifest: &Manifest) -> Result<(), DiskError> {
    let make = || {
        let source = File::open(from).map_err(at("opening the base"))?;
        let target = File::create_new(disk(machine)).map_err(at("making a disk's file"))?;
        // A copy instead would cost seconds and the base's size, behind everyone's back.
        sparse::reflink(&source, &target).map_err(at("sharing the base's blocks"))
    };
    manifest::make(machine, manifest, make, || remove(&disk(machine)))
}

impl Disks for Reflink {
    fn backend(&self) -> DiskBackend {
        DiskBackend::Reflink
    }

    fn create(&self, machine: &Path, base: &Base, size_bytes: u64) -> Result<(), DiskError> {
        let manifest = Manifest::on(self.backend(), base, size_bytes)?;
        make(machine, &base.path, &manifest)
    }

    fn open(&self, machine: &Path) -> Result<OpenDisk, DiskError> {
        manifest::expect(machine, self.backend())?;
        Ok(OpenDisk {
            path: disk(machine),
            format: DiskFormat::Raw,
        })
    }

    fn close(&self, _machine: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn fork(&self, machine: &Path, to: &Path) -> Result<(), DiskError> {
        let manifest = manifest::expect(machine, self.backend())?;
        make(to, &disk(machine), &manifest)
    }

    fn fork_bytes(&self, _machine: &Path) -> Result<u64, DiskError> {
        Ok(0)
    }

    fn destroy(&self, machine: &Path) -> Result<(), DiskError> {
        remove(&disk(machine))?;
        manifest::remove_manifest(machine)
    }
}
