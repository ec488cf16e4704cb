//! What is in the folders of machines, by name.

use std::{fs, path::Path};

/// Of a machine that runs on an overlay.
pub const RUNNING: [&str; 6] = [
    "disk.json",
    "disk.qcow2",
    "guest.sock",
    "manifest.json",
    "qemu.log",
    "qmp.sock",
];

/// Of one that is paused.
pub const PAUSED: [&str; 5] = [
    "device.state",
    "disk.json",
    "disk.qcow2",
    "manifest.json",
    "memory.delta",
];

/// The files of all machines of the host in a data folder, sorted.
///
/// # Panics
/// When they can't be listed.
#[must_use]
pub fn of_all(data: &Path) -> Vec<String> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("listing a folder of machines");
        entries.map(|entry| entry.expect("listing a folder of machines"))
    };
    let mut names: Vec<String> = list(&data.join("machines"))
        .flat_map(|machine| list(&machine.path()))
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
