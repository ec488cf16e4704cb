//! Disks as files that share the base's blocks until they are written to: for XFS, btrfs, and
//! whatever else knows `FICLONE`.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sandbox_core::disk::{DiskBackend, DiskFormat};

use super::{
    DiskError, Disks, OpenDisk, at, check_size,
    manifest::{self, Manifest},
    remove, sparse,
};

/// Disks by shared blocks. Base and machines must be on one file system.
#[derive(Debug)]
pub(crate) struct Reflink;

fn disk(machine: &Path) -> PathBuf {
    machine.join("disk.raw")
}

impl Disks for Reflink {
    fn backend(&self) -> DiskBackend {
        DiskBackend::Reflink
    }

    fn create(&self, machine: &Path, base: &Path, size_bytes: u64) -> Result<(), DiskError> {
        check_size(base, size_bytes)?;
        let manifest = Manifest {
            backend: self.backend(),
            base: base.to_path_buf(),
            size_bytes,
            whole: false,
        };
        let make = || {
            let source = File::open(base).map_err(at("opening the base"))?;
            let target = File::create_new(disk(machine)).map_err(at("making a disk's file"))?;
            // A copy instead would cost seconds and the base's size, behind everyone's back.
            sparse::reflink(&source, &target).map_err(at("sharing the base's blocks"))
        };
        manifest::make(machine, manifest, make, || remove(&disk(machine)))
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

    fn freeze_copy(&self, machine: &Path, out: &Path) -> Result<(), DiskError> {
        manifest::expect(machine, self.backend())?;
        sparse::copy(&disk(machine), out).map_err(at("copying a disk"))
    }

    fn destroy(&self, machine: &Path) -> Result<(), DiskError> {
        remove(&disk(machine))?;
        manifest::remove_manifest(machine)
    }
}
