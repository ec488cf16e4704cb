//! R18, R21: whatever the paths, a flattening that ends after any step leaves nothing once undone;
//! whatever the size, a copy-on-write file holds a copy of its whole origin; and a backend is chosen
//! only where it works.

#![no_main]

use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use sandbox_core::{
    disk::{COW_CHUNK_BYTES, DiskBackend, DiskChoice, DiskFacts, DiskFormat, cow_file_bytes},
    flatten::{FlattenInputs, Step, Undo, plan, plan_exact},
};

/// The largest disk that can be asked for, in bytes.
const DISK_MAX_BYTES: u64 = (4 << 20) << 20;

#[derive(Debug, Arbitrary)]
struct Case {
    frozen: Vec<u8>,
    folder: Vec<u8>,
    name: Vec<u8>,
    raw: bool,
    origin_bytes: u64,
    facts: [bool; 4],
    wanted: Option<u8>,
}

fn path(bytes: &[u8]) -> PathBuf {
    let bytes = bytes.iter().copied().filter(|byte| *byte != 0);
    PathBuf::from("/").join(OsString::from_vec(bytes.collect()))
}

fn flattening(case: &Case) {
    let name: Vec<u8> = case
        .name
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, 0 | b'/'))
        .collect();
    // A result has a name; `.` and `..` are none.
    if name.is_empty() || name == b"." || name == b".." {
        return;
    }
    let inputs = FlattenInputs {
        frozen: path(&case.frozen),
        format: match case.raw {
            true => DiskFormat::Raw,
            false => DiskFormat::Qcow2,
        },
        out: path(&case.folder).join(OsString::from_vec(name)),
    };
    for steps in [plan(&inputs), plan_exact(&inputs)] {
        for done in 0..=steps.len() {
            let mut there = BTreeSet::new();
            for step in &steps[..done] {
                if let Some(file) = step.releases() {
                    assert!(there.remove(file), "{step} needs a file that is not there");
                }
                if let Some(file) = step.takes() {
                    assert!(there.insert(file.to_path_buf()), "{step} overwrites");
                    assert_eq!(file.parent(), inputs.out.parent());
                }
            }
            if done == steps.len() {
                assert_eq!(there, BTreeSet::from([inputs.out.clone()]));
            }
            for undo in steps[..done].iter().rev().filter_map(Step::undo) {
                let Undo::Remove { file } = undo;
                there.remove(&file);
            }
            assert!(there.is_empty());
        }
    }
}

fuzz_target!(|case: Case| {
    flattening(&case);

    let origin = case.origin_bytes % (DISK_MAX_BYTES + 1);
    let chunks = origin.div_ceil(COW_CHUNK_BYTES);
    let cow = cow_file_bytes(origin);
    assert_eq!(cow % COW_CHUNK_BYTES, 0);
    // A table has an entry of 16 bytes for each copy, and there is a header.
    let least = chunks + chunks.div_ceil(COW_CHUNK_BYTES / 16) + 1;
    assert!(cow >= least * COW_CHUNK_BYTES, "{cow} for {origin}");
    assert!(cow <= (least + 2) * COW_CHUNK_BYTES, "{cow} for {origin}");

    let [reflink, qemu_img, dm_snapshot, loop_devices] = case.facts;
    let facts = DiskFacts {
        reflink,
        qemu_img,
        dm_snapshot,
        loop_devices,
    };
    let wanted = case
        .wanted
        .and_then(|number| DiskBackend::ALL.get(usize::from(number) % 4).copied());
    match facts.choose(wanted.map_or(DiskChoice::Auto, DiskChoice::Only)) {
        Ok(backend) => {
            assert!(wanted.is_none_or(|wanted| wanted == backend));
            assert!(match backend {
                DiskBackend::Reflink => reflink,
                DiskBackend::Qcow2 => qemu_img,
                DiskBackend::DmSnapshot => dm_snapshot && loop_devices && wanted.is_some(),
            });
        }
        Err(error) => assert!(!error.missing.is_empty()),
    }
});
