//! What every backend promises, as checks that run in a test or, for what this machine's kernel
//! can't do, as the first process of a VM.
//!
//! A check panics where the promise is broken.

#[cfg(feature = "disk-contract")]
mod init;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

#[cfg(feature = "disk-contract")]
pub use init::run_as_init;

use super::{Base, DiskError, Disks, OpenDisk};

/// The size of the disks: of many chunks and several tables of them.
pub(super) const DISK_BYTES: u64 = 8 * 1024 * 1024;
const BLOCK_BYTES: u64 = 4096;

/// How a disk's content is read and written where QEMU would.
pub(super) trait Guest {
    fn read(&self, disk: &OpenDisk) -> Vec<u8>;
    fn write(&self, disk: &OpenDisk, at: u64, bytes: &[u8]);
}

/// A guest of raw files and devices.
pub(super) struct RawGuest;

impl Guest for RawGuest {
    fn read(&self, disk: &OpenDisk) -> Vec<u8> {
        fs::read(&disk.path).unwrap()
    }

    fn write(&self, disk: &OpenDisk, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&disk.path).unwrap();
        file.write_all_at(bytes, at).unwrap();
        file.sync_all().unwrap();
    }
}

/// Where a check takes place: an empty folder of its own.
pub(super) struct Ground<'a> {
    pub(super) disks: &'a dyn Disks,
    pub(super) guest: &'a dyn Guest,
    pub(super) folder: &'a Path,
    /// Devices that exist because of the backend.
    pub(super) devices: fn() -> Vec<String>,
}

/// One promise.
pub(super) type Check = fn(&Ground<'_>);

pub(super) const CHECKS: [(&str, Check); 9] = [
    (
        "a disk starts as its base and is then its machine's own",
        own_content,
    ),
    ("trap 16: nothing ever changes the base", base_is_kept),
    ("r18, trap 17: a disk can be written full", written_full),
    (
        "what was written is there after closing and opening",
        reopened,
    ),
    ("r12, r19: a fork is exact, sparse and apart", forked),
    (
        "r17: a base of another size is refused and leaves nothing",
        other_size,
    ),
    (
        "trap 22: a new base under an old path is a new base",
        new_base_old_path,
    ),
    (
        "trap 26: a new disk shows nothing of the one before",
        nothing_stale,
    ),
    (
        "r21, r36: what a dead process left is found and released",
        recovered,
    ),
];

/// Runs a check and looks for what it has left.
pub(super) fn run(check: Check, ground: &Ground<'_>) {
    let before = (ground.devices)();
    check(ground);
    assert_eq!((ground.devices)(), before, "devices are left");
    let left: Vec<_> = files(ground.folder)
        .into_iter()
        .filter(|file| file.starts_with("machine"))
        .collect();
    assert!(left.is_empty(), "files are left: {left:?}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path).iter().map(|file| {
                let name = path.file_name().unwrap();
                Path::new(name).join(file)
            }));
        } else {
            found.push(path.file_name().unwrap().into());
        }
    }
    found
}

/// Different in every block for every seed, and never zero.
fn pattern(seed: u8, bytes: u64) -> Vec<u8> {
    (0..bytes)
        .map(|at| {
            let block = at / BLOCK_BYTES;
            (block as u8 ^ (at as u8).rotate_left(3) ^ seed) | 1
        })
        .collect()
}

impl Ground<'_> {
    /// Data in the first and last MiB, and a hole between.
    fn base(&self, name: &str, seed: u8) -> (PathBuf, Vec<u8>) {
        const MIB: u64 = 1024 * 1024;
        let path = self.folder.join(name);
        // Whatever lies on a file of this name keeps it.
        let _ = fs::remove_file(&path);
        let file = File::create_new(&path).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        let data = pattern(seed, MIB);
        file.write_all_at(&data, 0).unwrap();
        file.write_all_at(&data, DISK_BYTES - MIB).unwrap();
        let content = fs::read(&path).unwrap();
        (path, content)
    }

    fn machine(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(format!("machine-{name}"));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn create(&self, name: &str, base: &Path) -> PathBuf {
        let machine = self.machine(name);
        self.disks
            .create(&machine, &Base::raw(base), DISK_BYTES)
            .unwrap();
        machine
    }

    fn content(&self, machine: &Path) -> Vec<u8> {
        self.guest.read(&self.disks.open(machine).unwrap())
    }

    fn write(&self, machine: &Path, at: u64, bytes: &[u8]) {
        let disk = self.disks.open(machine).unwrap();
        self.guest.write(&disk, at, bytes);
    }

    fn destroy(&self, machine: &Path) {
        self.disks.destroy(machine).unwrap();
        // Once more makes no difference.
        self.disks.destroy(machine).unwrap();
    }
}

fn put(content: &mut [u8], at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn own_content(ground: &Ground<'_>) {
    let (base, mut content) = ground.base("base", 1);
    let one = ground.create("one", &base);
    let two = ground.create("two", &base);
    assert!(ground.content(&one) == content && ground.content(&two) == content);
    let words = pattern(200, 10_240);
    // Over data, into the hole, and to the end.
    for at in [512, 3 * 1024 * 1024, DISK_BYTES - 10_240] {
        ground.write(&one, at, &words);
    }
    assert!(
        ground.content(&two) == content,
        "another machine's disk has changed"
    );
    for at in [512, 3 * 1024 * 1024, DISK_BYTES - 10_240] {
        put(&mut content, at, &words);
    }
    assert!(
        ground.content(&one) == content,
        "what was written is not there"
    );
    ground.destroy(&one);
    ground.destroy(&two);
}

fn base_is_kept(ground: &Ground<'_>) {
    let (base, content) = ground.base("base", 2);
    let before = fs::metadata(&base).unwrap();
    let machine = ground.create("one", &base);
    ground.write(&machine, 0, &pattern(9, 100 * BLOCK_BYTES));
    ground.destroy(&machine);
    assert!(fs::read(&base).unwrap() == content);
    let after = fs::metadata(&base).unwrap();
    let times = |file: &fs::Metadata| (file.ino(), file.mtime(), file.mtime_nsec());
    assert_eq!(times(&before), times(&after));
}

fn written_full(ground: &Ground<'_>) {
    let (base, content) = ground.base("base", 3);
    let full = ground.create("full", &base);
    let other = ground.create("other", &base);
    let all = pattern(77, DISK_BYTES);
    // Backwards, so that no two chunks lie next to each other as they are written.
    let piece = 64 * 1024;
    for at in (0..DISK_BYTES / piece).rev() {
        let at = at * piece;
        let from = usize::try_from(at).unwrap();
        let bytes = &all[from..from + usize::try_from(piece).unwrap()];
        ground.write(&full, at, bytes);
    }
    assert!(
        ground.content(&full) == all,
        "a full disk reads differently"
    );
    ground.disks.close(&full).unwrap();
    assert!(
        ground.content(&full) == all,
        "a full disk reads differently once more"
    );
    assert!(ground.content(&other) == content);
    ground.destroy(&full);
    ground.destroy(&other);
}

fn reopened(ground: &Ground<'_>) {
    let (base, mut content) = ground.base("base", 4);
    let machine = ground.create("one", &base);
    // Closing what is not open is no error, and opening twice is opening once.
    ground.disks.close(&machine).unwrap();
    let first = ground.disks.open(&machine).unwrap();
    assert_eq!(ground.disks.open(&machine).unwrap(), first);
    let words = pattern(5, 20_000);
    ground.write(&machine, 1_000_448, &words);
    put(&mut content, 1_000_448, &words);
    let opened = (ground.devices)();
    ground.disks.close(&machine).unwrap();
    ground.disks.close(&machine).unwrap();
    if !opened.is_empty() {
        assert!(
            (ground.devices)().len() < opened.len(),
            "closed, it still holds {opened:?}"
        );
    }
    assert!(ground.content(&machine) == content);
    ground.destroy(&machine);
}

fn forked(ground: &Ground<'_>) {
    let (base, mut content) = ground.base("base", 6);
    let machine = ground.create("one", &base);
    let words = pattern(7, 8192);
    ground.write(&machine, 5 * 1024 * 1024, &words);
    put(&mut content, 5 * 1024 * 1024, &words);
    for (open, name) in [(true, "two"), (false, "three")] {
        if !open {
            ground.disks.close(&machine).unwrap();
        }
        let devices = (ground.devices)();
        let fork = ground.machine(name);
        ground.disks.fork(&machine, &fork).unwrap();
        assert_eq!((ground.devices)(), devices, "it opens or closes the disk");
        let bytes = ground.disks.fork_bytes(&machine).unwrap();
        assert!(bytes < DISK_BYTES / 2, "a fork may take {bytes} bytes");
        assert!(ground.content(&fork) == content, "the fork differs");
        // What is there is never written over.
        ground.disks.fork(&machine, &fork).unwrap_err();
        ground.write(&fork, 0, &words);
        assert!(ground.content(&machine) == content, "it is not apart");
        // It lives on by itself.
        let mut forks = content.clone();
        put(&mut forks, 0, &words);
        if !open {
            ground.destroy(&machine);
        }
        assert!(ground.content(&fork) == forks, "what was written is lost");
        ground.destroy(&fork);
    }
}

fn other_size(ground: &Ground<'_>) {
    let (base, _) = ground.base("base", 8);
    let machine = ground.machine("one");
    for asked in [DISK_BYTES - BLOCK_BYTES, DISK_BYTES + BLOCK_BYTES, 0] {
        let base = Base::raw(&base);
        let error = ground.disks.create(&machine, &base, asked).unwrap_err();
        assert!(matches!(error, DiskError::WrongSize { .. }), "{error}");
    }
    let gone = ground.folder.join("no such base");
    ground
        .disks
        .create(&machine, &Base::raw(gone), DISK_BYTES)
        .unwrap_err();
    ground.disks.open(&machine).unwrap_err();
    assert!(fs::read_dir(&machine).unwrap().next().is_none());
}

fn new_base_old_path(ground: &Ground<'_>) {
    let (base, old) = ground.base("base", 10);
    let first = ground.create("one", &base);
    assert!(ground.content(&first) == old);
    let kept = ground.folder.join("kept");
    fs::rename(&base, &kept).unwrap();
    let (base, new) = ground.base("base", 11);
    let second = ground.create("two", &base);
    assert!(ground.content(&second) == new, "it has the old base");
    ground.destroy(&second);
    ground.destroy(&first);
}

fn nothing_stale(ground: &Ground<'_>) {
    let (base, content) = ground.base("base", 12);
    for round in 0..3 {
        let machine = ground.create("one", &base);
        assert!(ground.content(&machine) == content, "round {round}");
        ground.write(&machine, 0, &pattern(13 + round, DISK_BYTES));
        ground.destroy(&machine);
    }
}

fn recovered(ground: &Ground<'_>) {
    let (base, mut content) = ground.base("base", 14);
    let before = (ground.devices)();
    // It ran, and whoever held it has died: all that is known is in its folder.
    let machine = ground.create("one", &base);
    let words = pattern(15, 4096);
    ground.write(&machine, 0, &words);
    put(&mut content, 0, &words);
    ground.disks.close(&machine).unwrap();
    assert_eq!((ground.devices)(), before);
    assert!(ground.content(&machine) == content);
    ground.destroy(&machine);

    // It was being made: the manifest comes last.
    let half = ground.create("two", &base);
    fs::remove_file(half.join("disk.json")).unwrap();
    ground.disks.open(&half).unwrap_err();
    ground.disks.destroy(&half).unwrap();
    assert!(fs::read_dir(&half).unwrap().next().is_none());
    // And in its place a new one can be made.
    let again = ground.create("two", &base);
    ground.destroy(&again);
}
