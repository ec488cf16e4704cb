//! A small ext4 of a test's own, to be filled up. The one such helper: tests of other crates include
//! this file by its path.
//!
//! It is mounted in a mount namespace of the test's thread (and those that it starts), so the
//! kernel takes mount and loop device away even when the test is killed. That needs root; without
//! it the tests say so and do nothing.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::statvfs::statvfs,
    unistd::geteuid,
};
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1024 * 1024;

/// What [`SmallDisk::fill`] fills.
const FILLER: &str = "filler";

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
}

pub(crate) struct SmallDisk {
    pub(crate) at: PathBuf,
    _folder: TempDir,
}

/// What the disk is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Ext4,
    /// Of 300 MiB or more.
    Xfs,
}

impl SmallDisk {
    fn mount(format: Format, size_mb: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        let file = File::create(&image).unwrap();
        file.set_len(size_mb * MIB).unwrap();
        let at = folder.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let (image, target) = (image.to_str().unwrap(), at.to_str().unwrap());
        match format {
            Format::Ext4 => run("mke2fs", &["-q", "-F", "-t", "ext4", "-m", "0", image]),
            Format::Xfs => run("mkfs.xfs", &["-q", "-f", image]),
        }
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        run("mount", &["-o", "loop", image, target]);
        if format == Format::Ext4 {
            fs::remove_dir(at.join("lost+found")).unwrap();
        }
        Self {
            at,
            _folder: folder,
        }
    }

    /// Takes every last block.
    pub(crate) fn fill(&self) {
        fill_up(&self.at);
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub(crate) fn free(&self) {
        self.give_back(FILLER);
    }

    /// Takes room until so much is left, under a name to give it back by.
    pub(crate) fn take_all_but(&self, left_mb: u64, name: &str) {
        let mut file = File::create(self.at.join(name)).unwrap();
        let free = statvfs(&self.at).unwrap();
        let free_mb = free.blocks_available() * free.fragment_size() / MIB;
        let block = vec![7; usize::try_from(MIB).unwrap()];
        for _ in left_mb..free_mb {
            file.write_all(&block).unwrap();
        }
        file.sync_all().unwrap();
    }

    pub(crate) fn give_back(&self, name: &str) {
        fs::remove_file(self.at.join(name)).unwrap();
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, self.at.to_str().unwrap()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at = self.at.to_str().unwrap();
        let done = |args: &[&str]| {
            let status = Command::new("umount").args(args).status();
            status.is_ok_and(|status| status.success())
        };
        if !done(&[at]) && !done(&["-l", at]) {
            eprintln!("{at} stays mounted until this process ends");
        }
    }
}

/// Takes every last block of the disk that is mounted here.
pub(crate) fn fill_up(at: &Path) {
    let mut options = File::options();
    let filler = options.append(true).create(true).open(at.join(FILLER));
    let mut filler = filler.unwrap();
    for size in (12..27).rev().map(|power| 1_i64 << power) {
        let end = |filler: &File| i64::try_from(filler.metadata().unwrap().len()).unwrap();
        while fallocate(&filler, FallocateFlags::empty(), end(&filler), size).is_ok() {}
    }
    for size in [1 << 12, 1] {
        let block = vec![7; size];
        while filler.write_all(&block).is_ok() {}
        // What is only in memory does not count yet.
        let _ = filler.sync_all();
        while filler.write_all(&block).is_ok() {}
    }
}

/// Runs a test on this thread, so that all threads and processes that it starts are in its mount
/// namespace.
pub(crate) fn on_small_disk(size_mb: u64, test: impl AsyncFnOnce(&SmallDisk)) {
    on_disk(Format::Ext4, size_mb, test);
}

/// [`on_small_disk`], with a choice of what it is formatted with.
pub(crate) fn on_disk(format: Format, size_mb: u64, test: impl AsyncFnOnce(&SmallDisk)) {
    if !geteuid().is_root() {
        println!("skipped: mounting a file system needs root");
        return;
    }
    let disk = SmallDisk::mount(format, size_mb);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(&disk));
    drop(runtime);
}
