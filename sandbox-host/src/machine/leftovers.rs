//! A machine's folder behind its process: what is given up there, and when it goes.

use std::{io, path::Path};

use uuid::Uuid;

use super::Saved;
use crate::{
    disk::Disk,
    durable,
    qemu::{GUEST_SOCKET, LOG_FILE, QMP_SOCKET},
};

/// Removes a machine's folder, after the devices of disks that are in it. Nothing runs there.
pub(crate) fn remove_machine_folder(folder: &Path) -> io::Result<()> {
    Saved::in_folder(folder).remove_new()?;
    Disk::destroy_in(folder)?;
    durable::remove_folder(folder)
}

/// Closes the disk of a machine whose process has ended, and forgets that process.
pub(crate) fn put_away(folder: &Path) -> io::Result<()> {
    Disk::close_in(folder)?;
    forget_last_run(folder)
}

/// As [`put_away`], where an error is on its way already.
pub(super) fn put_away_or_log(machine: Uuid, folder: &Path) {
    if let Err(error) = put_away(folder) {
        tracing::warn!(%machine, %error, "a failed start left something");
    }
}

/// Removes from a machine's folder what was its last process's: sockets, and the log, which would
/// grow from one to the next.
pub(super) fn forget_last_run(folder: &Path) -> io::Result<()> {
    for name in [QMP_SOCKET, GUEST_SOCKET, LOG_FILE] {
        durable::remove_file(&folder.join(name))?;
    }
    Ok(())
}
