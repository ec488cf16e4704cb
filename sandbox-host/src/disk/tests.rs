//! The contract where this machine can run it; `dm-snapshot`'s runs in a VM, see
//! `tests/vm_disk.rs`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sandbox_core::disk::{DiskBackend, DiskChoice, DiskFormat};

use super::{
    Base, Disk, DiskError, Disks, OpenDisk,
    contract::{CHECKS, Check, DISK_BYTES, Ground, Guest, RawGuest, run},
    probe::{choose, probe},
    qcow2::Qcow2,
    reflink::Reflink,
};

/// A guest of qcow2 files, by QEMU's own tools.
struct Qcow2Guest;

fn tool(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {words}");
    output.stdout
}

impl Guest for Qcow2Guest {
    fn read(&self, disk: &OpenDisk) -> Vec<u8> {
        assert_eq!(disk.format, DiskFormat::Qcow2);
        let out = tempfile::NamedTempFile::new().unwrap();
        let (disk, raw) = (disk.path.to_str().unwrap(), out.path().to_str().unwrap());
        tool(
            "qemu-img",
            &["convert", "-f", "qcow2", "-O", "raw", disk, raw],
        );
        fs::read(out.path()).unwrap()
    }

    fn write(&self, disk: &OpenDisk, at: u64, bytes: &[u8]) {
        let content = tempfile::NamedTempFile::new().unwrap();
        fs::write(content.path(), bytes).unwrap();
        let (from, length) = (content.path().display(), bytes.len());
        let write = format!("write -s {from} {at} {length}");
        let disk = disk.path.to_str().unwrap();
        tool("qemu-io", &["-f", "qcow2", "-c", &write, disk]);
    }
}

fn no_devices() -> Vec<String> {
    Vec::new()
}

fn run_all(disks: &dyn Disks, guest: &dyn Guest, place: &Path) {
    for (name, check) in CHECKS {
        println!("{name}");
        run_one(disks, guest, place, check);
    }
}

fn run_one(disks: &dyn Disks, guest: &dyn Guest, place: &Path, check: Check) {
    let folder = tempfile::tempdir_in(place).unwrap();
    let ground = Ground {
        disks,
        guest,
        folder: folder.path(),
        devices: no_devices,
    };
    run(check, &ground);
}

fn qemu_img() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .map(|folder| folder.join("qemu-img"))
        .find(|program| program.is_file())
        .expect("`make test` installs it")
}

#[test]
fn qcow2_keeps_the_contract() {
    let place = tempfile::tempdir().unwrap();
    run_all(&Qcow2, &Qcow2Guest, place.path());
}

/// A file system in a file, mounted for as long as this lives.
pub(crate) struct Mounted {
    pub(crate) place: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    /// `mkfs` is a program and its arguments; the file is sparse.
    pub(crate) fn new(size_mb: u64, mkfs: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image)
            .unwrap()
            .set_len(size_mb << 20)
            .unwrap();
        let place = folder.path().join("mounted");
        fs::create_dir(&place).unwrap();
        let (file, mounted) = (image.to_str().unwrap(), place.to_str().unwrap());
        tool(mkfs[0], &[&mkfs[1..], &[file]].concat());
        tool("mount", &["-o", "loop", file, mounted]);
        Self {
            place,
            _folder: folder,
        }
    }

    /// The least that mkfs.xfs takes is 300 MiB.
    fn xfs() -> Self {
        Self::new(320, &["mkfs.xfs", "-q"])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool("umount", &[self.place.to_str().unwrap()]);
    }
}

/// Mounting is root's; `make test` says so where it is not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: mounting needs root");
    }
    root
}

#[test]
fn reflink_keeps_the_contract_on_xfs() {
    if !is_root() {
        return;
    }
    let xfs = Mounted::xfs();
    run_all(&Reflink, &RawGuest, &xfs.place);
}

#[test]
fn reflink_costs_no_blocks_until_something_is_written() {
    if !is_root() {
        return;
    }
    let xfs = Mounted::xfs();
    let base = xfs.place.join("base");
    fs::write(&base, vec![1; DISK_BYTES as usize]).unwrap();
    let free = || {
        nix::sys::statvfs::statvfs(&xfs.place)
            .unwrap()
            .blocks_free()
    };
    File::open(&base).unwrap().sync_all().unwrap();
    let before = free();
    for index in 0..20 {
        let machine = xfs.place.join(format!("machine-{index}"));
        fs::create_dir(&machine).unwrap();
        Reflink
            .create(&machine, &Base::raw(&base), DISK_BYTES)
            .unwrap();
    }
    let taken = (before - free()) * 4096;
    assert!(taken < DISK_BYTES, "20 clones take {taken} bytes");
}

fn empty_base(place: &Path) -> Base {
    let base = Base::raw(place.join("base"));
    let file = File::create(&base.path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    base
}

#[test]
fn the_backend_is_chosen_by_what_the_data_folder_can_do() {
    let folder = tempfile::tempdir().unwrap();
    let (here, tool) = (folder.path(), qemu_img());
    let chosen = choose(DiskChoice::Auto, here, &[here], &tool);
    assert_eq!(probe(here, &[here], &tool).choose(DiskChoice::Auto), chosen);
    assert!(fs::read_dir(here).unwrap().next().is_none());
    if !is_root() {
        return;
    }
    let xfs = Mounted::xfs();
    let place = xfs.place.as_path();
    let choose = |choice, bases: &[&Path]| choose(choice, place, bases, &tool);
    assert_eq!(choose(DiskChoice::Auto, &[place]), Ok(DiskBackend::Reflink));
    let wanted = DiskChoice::Only(DiskBackend::Qcow2);
    assert_eq!(choose(wanted, &[place]), Ok(DiskBackend::Qcow2));
    // No blocks are shared between two file systems.
    assert_eq!(
        choose(DiskChoice::Auto, &[place, here]),
        Ok(DiskBackend::Qcow2)
    );
    let wanted = DiskChoice::Only(DiskBackend::Reflink);
    assert!(choose(wanted, &[place, here]).is_err());
    assert!(fs::read_dir(place).unwrap().next().is_none());
}

#[test]
fn a_disk_that_could_not_be_made_leaves_nothing_and_one_of_another_backend_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let base = empty_base(place.path());
    let machine = place.path().join("machine");
    fs::create_dir(&machine).unwrap();
    // No file can be put where a folder is.
    let in_the_way = machine.join("disk.qcow2");
    fs::create_dir(&in_the_way).unwrap();
    Qcow2.create(&machine, &base, DISK_BYTES).unwrap_err();
    fs::remove_dir(&in_the_way).unwrap();
    assert!(fs::read_dir(&machine).unwrap().next().is_none());

    Qcow2.create(&machine, &base, DISK_BYTES).unwrap();
    // A second one in its place would be the first one's end.
    Qcow2.create(&machine, &base, DISK_BYTES).unwrap_err();
    assert!(Qcow2.open(&machine).is_ok());
    let error = Reflink.open(&machine).unwrap_err().to_string();
    assert!(error.contains("is made by qcow2"), "{error}");
    // Others than overlays lie on raw files alone.
    let overlay = Base {
        path: machine.join("disk.qcow2"),
        format: DiskFormat::Qcow2,
    };
    let second = place.path().join("second");
    fs::create_dir(&second).unwrap();
    let error = Reflink.create(&second, &overlay, DISK_BYTES).unwrap_err();
    assert!(matches!(error, DiskError::WrongFormat { .. }), "{error}");
    Qcow2.create(&second, &overlay, DISK_BYTES).unwrap();
}

#[test]
fn r9_a_disk_is_found_closed_and_destroyed_by_its_folder_alone() {
    let place = tempfile::tempdir().unwrap();
    let base = empty_base(place.path());
    let machine = place.path().join("machine");
    fs::create_dir(&machine).unwrap();
    Disk::close_in(&machine).unwrap();
    Disk::destroy_in(&machine).unwrap();
    assert!(matches!(Disk::find(&machine), Err(DiskError::NoDisk(_))));
    for text in [None, Some("no manifest")] {
        Disk::create(DiskBackend::Qcow2, &machine, &base, DISK_BYTES).unwrap();
        assert!(Disk::find(&machine).unwrap().open().is_ok());
        // What can't be read is released in every way there is.
        if let Some(text) = text {
            fs::write(machine.join("disk.json"), text).unwrap();
            Disk::find(&machine).unwrap_err();
        }
        Disk::destroy_in(&machine).unwrap();
        assert!(fs::read_dir(&machine).unwrap().next().is_none());
    }
}

#[test]
fn r9_a_disk_that_nobody_waits_for_any_more_leaves_no_device() {
    if !is_root() {
        return;
    }
    super::double::put_in_place_of_dm_snapshot();
    let place = tempfile::tempdir().unwrap();
    let base = empty_base(place.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut abandoned = 0;
    runtime.block_on(async {
        for round in 0..30_u64 {
            let machine = place.path().join(format!("machine-{round}"));
            fs::create_dir(&machine).unwrap();
            let backend = DiskBackend::DmSnapshot;
            let given_up = std::time::Duration::from_millis(round % 15 * 2);
            let making = Disk::create_open(backend, &machine, &base, DISK_BYTES);
            let made = tokio::time::timeout(given_up, making).await;
            abandoned += u32::from(made.is_err());
            // What whoever has given it up does, while it may still be made.
            Disk::destroy_in(&machine).unwrap();
            crate::durable::remove_folder(&machine).unwrap();
        }
    });
    assert!(abandoned > 0, "all of them were too fast");
    // Waits for the threads that make them.
    drop(runtime);
    let place = place.path().to_string_lossy().into_owned();
    for device in fs::read_dir("/sys/block").unwrap() {
        let device = device.unwrap().path();
        let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        assert!(!file.starts_with(&place), "{}: {file}", device.display());
    }
}
