//! In place of dm-snapshot, for kernels without it: disks that are block devices too, which must be
//! set up again behind each process, and given up. A raw copy on a loop device, by `losetup`, which
//! does not clear itself: one that is forgotten stays.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use sandbox_core::disk::{DiskBackend, DiskFormat};

use super::{
    Base, DiskError, Disks, OpenDisk, at,
    manifest::{self, Manifest},
    remove, sparse,
};

static IN_PLACE: AtomicBool = AtomicBool::new(false);

/// From now on this process makes loop devices where dm-snapshot is asked for.
pub fn put_in_place_of_dm_snapshot() {
    IN_PLACE.store(true, Ordering::Relaxed);
}

pub(super) fn in_place() -> bool {
    IN_PLACE.load(Ordering::Relaxed)
}

#[derive(Debug)]
pub(super) struct LoopDisks;

fn disk(machine: &Path) -> PathBuf {
    machine.join("disk.raw")
}

fn losetup(args: &[&str], file: Option<&Path>) -> Result<String, DiskError> {
    let output = Command::new("losetup")
        .args(args)
        .args(file)
        .stdin(Stdio::null())
        .output()
        .map_err(at("running losetup"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(at("running losetup")(io::Error::other(words)))
}

/// The devices on a file, which may be gone already.
fn devices(file: &Path) -> Result<Vec<String>, DiskError> {
    let said = losetup(
        &[
            "--list",
            "--noheadings",
            "--raw",
            "--output",
            "NAME,BACK-FILE",
        ],
        None,
    )?;
    let file = file.to_string_lossy().into_owned();
    let named = said.lines().filter_map(|line| line.split_once(' '));
    let ours = named.filter(|(_, back)| back.starts_with(&file));
    Ok(ours.map(|(device, _)| device.to_owned()).collect())
}

impl Disks for LoopDisks {
    fn backend(&self) -> DiskBackend {
        DiskBackend::DmSnapshot
    }

    fn create(&self, machine: &Path, base: &Base, size_bytes: u64) -> Result<(), DiskError> {
        let manifest = Manifest::on(self.backend(), base, size_bytes)?;
        let make = || sparse::copy(&base.path, &disk(machine)).map_err(at("copying the base"));
        manifest::make(machine, &manifest, make, || remove(&disk(machine)))
    }

    fn open(&self, machine: &Path) -> Result<OpenDisk, DiskError> {
        manifest::expect(machine, self.backend())?;
        let there = devices(&disk(machine))?.pop();
        let path = match there {
            Some(path) => path,
            None => losetup(&["--find", "--show"], Some(&disk(machine)))?,
        };
        Ok(OpenDisk {
            path: path.into(),
            format: DiskFormat::Raw,
        })
    }

    fn close(&self, machine: &Path) -> Result<(), DiskError> {
        let disk = disk(machine);
        for device in devices(&disk)? {
            let detached = losetup(&["--detach", &device], None);
            // Another may have detached it meanwhile.
            if detached.is_err() && devices(&disk)?.contains(&device) {
                return detached.map(drop);
            }
        }
        Ok(())
    }

    fn fork(&self, machine: &Path, to: &Path) -> Result<(), DiskError> {
        manifest::fork_file(self.backend(), disk, machine, to)
    }

    fn fork_bytes(&self, _machine: &Path) -> Result<u64, DiskError> {
        Ok(0)
    }

    fn destroy(&self, machine: &Path) -> Result<(), DiskError> {
        self.close(machine)?;
        remove(&disk(machine))?;
        manifest::remove_manifest(machine)
    }
}
