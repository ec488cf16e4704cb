//! What this machine and a data folder offer for disks. The choice itself is
//! [`DiskFacts::choose`].

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::Arc,
};

use sandbox_core::disk::{DiskBackend, DiskFacts, NoBackend};

use super::{
    Disks, device::dm::DeviceMapper, dm_snapshot::DmSnapshot, qcow2::Qcow2, reflink::Reflink,
    sparse,
};

/// Finds out by trying. Leaves nothing in `folder`.
pub(crate) fn probe(folder: &Path, qemu_img: &Path) -> DiskFacts {
    DiskFacts {
        reflink: shares_blocks(folder),
        qemu_img: qemu_img.is_file(),
        dm_snapshot: DeviceMapper::open().is_ok_and(|mapper| mapper.has_target("snapshot")),
        loop_devices: OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .is_ok(),
    }
}

fn shares_blocks(folder: &Path) -> bool {
    let try_it = || {
        let source = tempfile::tempfile_in(folder)?;
        source.set_len(4096)?;
        sparse::reflink(&source, &tempfile::tempfile_in(folder)?)
    };
    try_it().is_ok()
}

/// The backend for the machines of a data folder.
///
/// # Errors
/// [`NoBackend`] where the one that was asked for can't be had.
pub(crate) fn choose(
    wanted: Option<DiskBackend>,
    folder: &Path,
    qemu_img: PathBuf,
) -> Result<Arc<dyn Disks>, NoBackend> {
    Ok(match probe(folder, &qemu_img).choose(wanted)? {
        DiskBackend::Reflink => Arc::new(Reflink),
        DiskBackend::Qcow2 => Arc::new(Qcow2 { qemu_img }),
        DiskBackend::DmSnapshot => Arc::new(DmSnapshot),
    })
}
