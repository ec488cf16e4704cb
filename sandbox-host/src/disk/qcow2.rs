//! Disks as qcow2 files on top of the base: for every file system.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sandbox_core::disk::{DiskBackend, DiskFormat};

use super::{
    DiskError, Disks, OpenDisk, at, check_size,
    manifest::{self, Manifest},
    remove,
};

/// Disks by `qemu-img`.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    pub(crate) qemu_img: PathBuf,
}

fn disk(machine: &Path) -> PathBuf {
    machine.join("disk.qcow2")
}

impl Qcow2 {
    fn run(&self, args: &[&OsStr]) -> io::Result<()> {
        let output = Command::new(&self.qemu_img)
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("qemu-img: {}", words.trim())))
    }
}

impl Disks for Qcow2 {
    fn backend(&self) -> DiskBackend {
        DiskBackend::Qcow2
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
            // A relative name would be looked for in the overlay's folder.
            let base = std::path::absolute(base).map_err(at("finding the base"))?;
            let words = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"].map(OsStr::new);
            let disk = disk(machine);
            let paths = [base.as_os_str(), disk.as_os_str()];
            self.run(&[&words[..], &paths[..]].concat())
                .map_err(at("making a disk's file"))
        };
        manifest::make(machine, manifest, make, || remove(&disk(machine)))
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

    fn freeze_copy(&self, machine: &Path, out: &Path) -> Result<(), DiskError> {
        manifest::expect(machine, self.backend())?;
        std::fs::File::create_new(out).map_err(at("making a copy's file"))?;
        // Past the lock of a process that has it open, and stands still.
        let words = ["convert", "-U", "-f", "qcow2", "-O", "raw", "-W"].map(OsStr::new);
        let disk = disk(machine);
        let paths = [disk.as_os_str(), out.as_os_str()];
        let copied = self
            .run(&[&words[..], &paths[..]].concat())
            .map_err(at("copying a disk"));
        if copied.is_err() {
            remove(out)?;
        }
        copied
    }

    fn destroy(&self, machine: &Path) -> Result<(), DiskError> {
        remove(&disk(machine))?;
        manifest::remove_manifest(machine)
    }
}
