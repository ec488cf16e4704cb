//! Disks as block devices of the kernel: the base, on a read-only loop device that all its disks
//! share, and a copy-on-write file of the machine's own.
//!
//! ```text
//! /dev/dm-N ──► snapshot ──► loop, read-only ──► base        one for all machines, by inode
//!                   └──────► loop ─────────────► disk.cow    sparse, never too small
//! ```

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sandbox_core::disk::{COW_CHUNK_BYTES, DiskBackend, DiskFormat, cow_file_bytes};

use super::{
    DiskError, Disks, OpenDisk, at, check_size,
    device::{
        dm::{DeviceMapper, Target},
        loops::LoopDevice,
    },
    manifest::{self, Manifest},
    remove, sparse,
};

const SECTOR_BYTES: u64 = 512;

/// Disks by device-mapper. Needs root and the kernel's `dm-snapshot` and `loop`.
#[derive(Debug)]
pub(crate) struct DmSnapshot;

fn cow(machine: &Path) -> PathBuf {
    machine.join("disk.cow")
}

/// The device's name: the machine's, which is its folder's and a UUID.
pub(super) fn device_name(machine: &Path) -> String {
    let name = machine.file_name().unwrap_or_default();
    format!("sandbox-{}", name.to_string_lossy())
}

fn mapper() -> Result<DeviceMapper, DiskError> {
    DeviceMapper::open().map_err(at("opening device-mapper"))
}

impl DmSnapshot {
    fn activate(
        mapper: &DeviceMapper,
        machine: &Path,
        manifest: &Manifest,
    ) -> Result<PathBuf, DiskError> {
        let origin = LoopDevice::shared_read_only(&manifest.base)
            .map_err(at("attaching the base to a loop device"))?;
        let own = LoopDevice::writable(&cow(machine))
            .map_err(at("attaching a disk's file to a loop device"))?;
        let numbers = origin.number().and_then(|origin| {
            let chunk_sectors = COW_CHUNK_BYTES / SECTOR_BYTES;
            // Persistent, and says so where it overflows.
            Ok(format!("{origin} {} PO {chunk_sectors}", own.number()?))
        });
        let parameters = numbers.map_err(at("reading a loop device's number"))?;
        let target = Target {
            kind: "snapshot",
            sectors: manifest.size_bytes / SECTOR_BYTES,
            parameters: &parameters,
        };
        // From here on the device holds the loop devices, or nobody does and they go.
        mapper
            .create(&device_name(machine), &target)
            .map_err(at("making a snapshot device"))
    }
}

impl Disks for DmSnapshot {
    fn backend(&self) -> DiskBackend {
        DiskBackend::DmSnapshot
    }

    fn create(&self, machine: &Path, base: &Path, size_bytes: u64) -> Result<(), DiskError> {
        check_size(base, size_bytes)?;
        if !size_bytes.is_multiple_of(COW_CHUNK_BYTES) {
            let odd = io::Error::other("its size is no multiple of 4096 bytes");
            return Err(at("making a disk")(odd));
        }
        let manifest = Manifest {
            backend: self.backend(),
            base: base.to_path_buf(),
            size_bytes,
            whole: false,
        };
        let make = || {
            let file = File::create_new(cow(machine)).map_err(at("making a disk's file"))?;
            file.set_len(cow_file_bytes(size_bytes))
                .map_err(at("giving a disk's file its size"))
        };
        manifest::make(machine, manifest, make, || remove(&cow(machine)))
    }

    fn open(&self, machine: &Path) -> Result<OpenDisk, DiskError> {
        let manifest = manifest::expect(machine, self.backend())?;
        let mapper = mapper()?;
        let there = mapper
            .path(&device_name(machine))
            .map_err(at("looking for a snapshot device"))?;
        let path = match there {
            Some(path) => path,
            None => Self::activate(&mapper, machine, &manifest)?,
        };
        Ok(OpenDisk {
            path,
            format: DiskFormat::Raw,
        })
    }

    fn close(&self, machine: &Path) -> Result<(), DiskError> {
        mapper()?
            .remove(&device_name(machine))
            .map_err(at("removing a snapshot device"))
    }

    fn freeze_copy(&self, machine: &Path, out: &Path) -> Result<(), DiskError> {
        let manifest = manifest::expect(machine, self.backend())?;
        let was_open = mapper()?
            .path(&device_name(machine))
            .map_err(at("looking for a snapshot device"))?
            .is_some();
        let disk = self.open(machine)?;
        let copied =
            sparse::copy_device(&disk.path, out, manifest.size_bytes).map_err(at("copying a disk"));
        if !was_open {
            self.close(machine)?;
        }
        copied
    }

    fn destroy(&self, machine: &Path) -> Result<(), DiskError> {
        // Where the kernel has no device-mapper there is no device either.
        if let Ok(mapper) = mapper() {
            mapper
                .remove(&device_name(machine))
                .map_err(at("removing a snapshot device"))?;
        }
        remove(&cow(machine))?;
        manifest::remove_manifest(machine)
    }
}
