//! What this machine and a data folder offer for disks. The choice itself is
//! [`DiskFacts::choose`].

use std::{fs::OpenOptions, path::Path};

use sandbox_core::disk::{DiskBackend, DiskChoice, DiskFacts, NoBackend};

use super::{device::dm::DeviceMapper, sparse};

/// Finds out by trying, for disks in `machines` that start from files in `bases`. Leaves nothing
/// there. The kernel may load its modules for it.
pub(crate) fn probe(machines: &Path, bases: &[&Path], qemu_img: &Path) -> DiskFacts {
    let facts = DiskFacts {
        dm_snapshot: DeviceMapper::open().is_ok_and(|mapper| mapper.has_target("snapshot")),
        loop_devices: OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .is_ok(),
        ..probe_files(machines, bases, qemu_img)
    };
    #[cfg(feature = "testkit")]
    let facts = DiskFacts {
        dm_snapshot: facts.dm_snapshot || super::double::in_place(),
        ..facts
    };
    facts
}

/// As [`probe`], without what is the kernel's.
fn probe_files(machines: &Path, bases: &[&Path], qemu_img: &Path) -> DiskFacts {
    DiskFacts {
        reflink: bases.iter().all(|base| share_blocks(base, machines)),
        qemu_img: qemu_img.is_file(),
        ..DiskFacts::default()
    }
}

fn share_blocks(base: &Path, machines: &Path) -> bool {
    let try_it = || {
        let source = tempfile::tempfile_in(base)?;
        source.set_len(4096)?;
        sparse::reflink(&source, &tempfile::tempfile_in(machines)?)
    };
    try_it().is_ok()
}

/// The backend for new machines.
///
/// # Errors
/// [`NoBackend`] where the one that was asked for can't be had.
pub(crate) fn choose(
    choice: DiskChoice,
    machines: &Path,
    bases: &[&Path],
    qemu_img: &Path,
) -> Result<DiskBackend, NoBackend> {
    let facts = match choice {
        DiskChoice::Only(DiskBackend::DmSnapshot) => probe(machines, bases, qemu_img),
        _ => probe_files(machines, bases, qemu_img),
    };
    facts.choose(choice)
}
