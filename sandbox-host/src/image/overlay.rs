//! Empty qcow2 overlays: a disk that is its backing file until it is written to.

use std::{ffi::OsString, io, path::Path};

use sandbox_core::size::MachineSize;

use crate::{
    setup::{Setup, run},
    space,
};

/// Makes one of the disk's size on top of `backing`, which need not be in its place yet.
pub(super) async fn create(
    setup: &Setup,
    backing: &Path,
    backing_format: &str,
    overlay: &Path,
    size: MachineSize,
) -> io::Result<()> {
    let arguments: [OsString; 11] = [
        "create".into(),
        "-q".into(),
        "-u".into(),
        "-f".into(),
        "qcow2".into(),
        "-F".into(),
        backing_format.into(),
        "-b".into(),
        backing.into(),
        overlay.into(),
        size.disk_bytes().to_string().into(),
    ];
    let made = run(&setup.qemu_img, arguments).await;
    let folder = overlay.parent().unwrap_or(overlay);
    made.map(drop)
        .map_err(|error| space::told_by_helper(folder, error))
}
