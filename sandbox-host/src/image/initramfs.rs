//! The initramfs: the guest agent as `/init`, and the drivers that it loads before it can reach the
//! disk. The agent is here and not in the images, so that any root file system works as an image
//! and the agent never goes stale.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use cpio::newc;

use super::content_key;
use crate::{agent_binary, durable, setup::Kernel};

/// Returns the initramfs for this agent and kernel, made if it is not there yet, and a key that
/// changes with its content.
pub(crate) fn ensure_initramfs(root: &Path, kernel: &Kernel) -> io::Result<(PathBuf, String)> {
    let key = content_key([agent_binary(), kernel.version.as_bytes()]);
    let place = root.join(&key);
    let file = place.join("initramfs");
    if !file.is_file() {
        fs::create_dir_all(root)?;
        let making = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(root)?;
        durable::write(
            &making.path().join("initramfs"),
            &archive(&kernel.boot_modules()?)?,
        )?;
        durable::publish_folder(&making.keep(), &place)?;
    }
    Ok((file, key))
}

/// What an entry of an archive is, with its permissions.
pub(crate) const DIRECTORY: u32 = 0o040_755;
pub(crate) const EXECUTABLE: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// One file or folder: path, kind and permissions, content.
pub(crate) type Entry<'c> = (String, u32, &'c [u8]);

fn archive(modules: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut entries: Vec<Entry<'_>> = ["dev", "proc", "sys", "sysroot"]
        .map(|folder| (folder.to_owned(), DIRECTORY, &[][..]))
        .into();
    entries.push(("init".to_owned(), EXECUTABLE, agent_binary()));
    entries.extend(module_entries(modules));
    newc_archive(&entries)
}

/// Modules are loaded in the order of their file names.
pub(crate) fn module_entries(modules: &[(String, Vec<u8>)]) -> Vec<Entry<'_>> {
    let files = (0..).zip(modules).map(|(index, (name, content))| {
        (
            format!("modules/{index:02}-{name}.ko"),
            FILE,
            content.as_slice(),
        )
    });
    [("modules".to_owned(), DIRECTORY, &[][..])]
        .into_iter()
        .chain(files)
        .collect()
}

/// A cpio archive in the `newc` format that the kernel unpacks (its documentation,
/// `driver-api/early-userspace/buffer-format`).
pub(crate) fn newc_archive(entries: &[Entry<'_>]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for (inode, (name, mode, content)) in (1..).zip(entries) {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut writer = newc::Builder::new(name)
            .ino(inode)
            .mode(*mode)
            .write(&mut out, length);
        writer.write_all(content)?;
        writer.finish()?;
    }
    newc::trailer(&mut out)?;
    Ok(out)
}
