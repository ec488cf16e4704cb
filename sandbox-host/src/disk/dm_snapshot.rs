//! Disks as block devices of the kernel: the base, on a read-only loop device that all its disks
//! share, and a copy-on-write file of the machine's own.
//!
//! ```text
//! /dev/dm-N ──► snapshot ──► loop, read-only ──► base        one for all machines, by inode
//!                   └──────► loop ─────────────► disk.cow    sparse, never too small
//! ```
//!
//! The devices go with their last user and are set up again from the manifest, as behind a reboot.
//!
//! What the other backends bear and this does not: where the host's disk runs full while a guest
//! writes, the kernel gives the whole snapshot up.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sandbox_core::disk::{COW_CHUNK_BYTES, DiskBackend, DiskFormat, cow_file_bytes};

use super::{
    Base, DiskError, Disks, OpenDisk, at,
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

/// The device's name, by its folder's, which must be no other disk's on this kernel.
pub(super) fn device_name(machine: &Path) -> String {
    let name = machine.file_name().unwrap_or_default();
    format!("sandbox-{}", name.to_string_lossy())
}

fn mapper() -> Result<DeviceMapper, DiskError> {
    DeviceMapper::open().map_err(at("opening device-mapper"))
}

fn remove_device(machine: &Path) -> Result<(), DiskError> {
    let mapper = match DeviceMapper::open() {
        Ok(mapper) => mapper,
        // Where the kernel has no device-mapper there is no device either.
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(at("opening device-mapper")(error)),
    };
    mapper
        .remove(&device_name(machine))
        .map_err(at("removing a snapshot device"))
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

impl DmSnapshot {
    fn activate(
        mapper: &DeviceMapper,
        machine: &Path,
        manifest: &Manifest,
    ) -> Result<PathBuf, DiskError> {
        let origin = LoopDevice::shared_read_only(&manifest.base.path)
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

    fn create(&self, machine: &Path, base: &Base, size_bytes: u64) -> Result<(), DiskError> {
        let manifest = Manifest::on(self.backend(), base, size_bytes)?;
        if !size_bytes.is_multiple_of(COW_CHUNK_BYTES) {
            let odd = io::Error::other("its size is no multiple of 4096 bytes");
            return Err(at("making a disk")(odd));
        }
        let make = || {
            let file = File::create_new(cow(machine)).map_err(at("making a disk's file"))?;
            file.set_len(cow_file_bytes(size_bytes))
                .map_err(at("giving a disk's file its size"))
        };
        manifest::make(machine, &manifest, make, || remove(&cow(machine)))
    }

    fn open(&self, machine: &Path) -> Result<OpenDisk, DiskError> {
        let manifest = manifest::expect(machine, self.backend())?;
        let mapper = mapper()?;
        let there = mapper
            .path(&device_name(machine))
            .map_err(at("looking for a snapshot device"))?;
        let path = match there {
            // Somebody may have had it open as it was closed, and still.
            Some(path) => {
                mapper
                    .keep(&device_name(machine))
                    .map_err(at("keeping a snapshot device"))?;
                path
            }
            None => Self::activate(&mapper, machine, &manifest)?,
        };
        Ok(OpenDisk {
            path,
            format: DiskFormat::Raw,
        })
    }

    fn close(&self, machine: &Path) -> Result<(), DiskError> {
        remove_device(machine)
    }

    /// The kernel notes where a chunk's copy is before it says that the chunk is written: what
    /// nobody writes to is whole in its file, also while the device is there.
    fn fork(&self, machine: &Path, to: &Path) -> Result<(), DiskError> {
        manifest::fork_file(self.backend(), cow, machine, to)
    }

    fn fork_bytes(&self, machine: &Path) -> Result<u64, DiskError> {
        sparse::physical_bytes(&cow(machine)).map_err(at("looking at a disk"))
    }

    fn destroy(&self, machine: &Path) -> Result<(), DiskError> {
        remove_device(machine)?;
        remove(&cow(machine))?;
        manifest::remove_manifest(machine)
    }
}
