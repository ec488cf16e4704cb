//! The contract as the first process of a VM: `dm-snapshot`, with the kernel's modules from
//! `/modules`. What comes out is told on the console, a line for each check.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};
use sandbox_core::disk::{DiskChoice, DiskFacts};

use super::{Ground, RawGuest, run};
use crate::disk::{
    DiskError, Disks,
    device::dm::{DeviceMapper, Target},
    dm_snapshot::{DmSnapshot, device_name},
};

/// Runs all checks, tells how they went and turns the machine off.
///
/// Each line is `check: ok`, or `check: failed`; the last is `contract: done`.
pub fn run_as_init() {
    if let Err(error) = set_up() {
        tell(&format!("setting up: failed: {error}"));
        turn_off();
        return;
    }
    let own: [(&str, super::Check); 3] = [
        (
            "r21: no loop device is left where no dm device was made",
            no_dm_device,
        ),
        (
            "trap 17: a full disk's snapshot is valid, and not full",
            valid_when_full,
        ),
        (
            "a disk that is opened again stays, whoever looked at it meanwhile",
            opened_while_going,
        ),
    ];
    for (index, (name, check)) in super::CHECKS.into_iter().chain(own).enumerate() {
        let folder = PathBuf::from(format!("/work/{index}"));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            fs::create_dir(&folder).unwrap();
            let ground = Ground {
                disks: &DmSnapshot,
                guest: &RawGuest,
                folder: &folder,
                devices,
            };
            run(check, &ground);
        }));
        let word = if outcome.is_ok() { "ok" } else { "failed" };
        tell(&format!("{name}: {word}"));
    }
    tell(&format!("devices left: {:?}", devices()));
    tell("contract: done");
    turn_off();
}

fn tell(line: &str) {
    if let Ok(mut console) = File::options().write(true).open("/dev/console") {
        // Nobody is left to tell of a console that does not work.
        let _ = writeln!(console, "{line}");
    }
}

fn turn_off() {
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn set_up() -> std::io::Result<()> {
    let no_data: Option<&CStr> = None;
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/work"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), no_data)
            .map_err(std::io::Error::from)?;
    }
    let mut modules: Vec<PathBuf> = fs::read_dir("/modules")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    modules.sort();
    for module in modules {
        finit_module(File::open(&module)?, c"", ModuleInitFlags::empty())?;
    }
    let facts = DiskFacts {
        dm_snapshot: DeviceMapper::open()?.has_target("snapshot"),
        loop_devices: Path::new("/dev/loop-control").exists(),
        ..DiskFacts::default()
    };
    facts
        .choose(DiskChoice::Only(DmSnapshot.backend()))
        .map(drop)
        .map_err(std::io::Error::other)
}

/// Loop devices with a file and dm devices, all of this machine.
fn devices() -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir("/sys/block")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|device| device.join("loop/backing_file").exists() || device.join("dm").exists())
        .map(|device| device.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

/// The device's name is taken, so that none can be made.
fn no_dm_device(ground: &Ground<'_>) {
    let (base, content) = ground.base("base", 20);
    let machine = ground.create("taken", &base);
    let mapper = DeviceMapper::open().unwrap();
    let disk = ground.disks.open(&machine).unwrap();
    assert!(fs::read(&disk.path).unwrap() == content);
    ground.disks.close(&machine).unwrap();
    let before = devices();
    // A file too short for the table that is asked for: the loop devices are there, the dm device
    // is refused.
    let cow = machine.join("disk.cow");
    File::options()
        .write(true)
        .open(&cow)
        .unwrap()
        .set_len(0)
        .unwrap();
    let error = ground.disks.open(&machine).unwrap_err();
    assert!(matches!(error, DiskError::Step { .. }), "{error}");
    assert_eq!(devices(), before);
    let name = device_name(&machine);
    assert_eq!(mapper.path(&name).unwrap(), None);
    // Nor where the table itself makes no sense.
    let nonsense = Target {
        kind: "snapshot",
        sectors: 8,
        parameters: "no such device",
    };
    mapper.create(&name, &nonsense).unwrap_err();
    assert_eq!(devices(), before);
    ground.destroy(&machine);
}

fn opened_while_going(ground: &Ground<'_>) {
    let (base, content) = ground.base("base", 23);
    let machine = ground.create("busy", &base);
    let disk = ground.disks.open(&machine).unwrap();
    let onlooker = File::open(&disk.path).unwrap();
    ground.disks.close(&machine).unwrap();
    assert_eq!(ground.disks.open(&machine).unwrap(), disk);
    drop(onlooker);
    assert!(fs::read(&disk.path).unwrap() == content, "it has gone");
    ground.destroy(&machine);
}

fn valid_when_full(ground: &Ground<'_>) {
    let (base, _) = ground.base("base", 21);
    let machine = ground.create("full", &base);
    let all = super::pattern(22, super::DISK_BYTES);
    ground.write(&machine, 0, &all);
    let status = DeviceMapper::open()
        .unwrap()
        .status(&device_name(&machine))
        .unwrap();
    // USED/ALL METADATA, in sectors, or a word.
    let numbers = status.split_whitespace().next().unwrap();
    let Some((used, sectors)) = numbers.split_once('/') else {
        panic!("{status}");
    };
    let (used, sectors): (u64, u64) = (used.parse().unwrap(), sectors.parse().unwrap());
    assert!(used * 512 >= super::DISK_BYTES, "{status}");
    assert!(used <= sectors, "{status}");
    ground.destroy(&machine);
}
