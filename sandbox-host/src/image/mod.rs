//! Images: what a machine's disk and memory start from.
//!
//! Everything here is made in a folder beside its place, published by a rename, and never changed
//! afterwards, since running machines map it.
//!
//! ```text
//! boot/KEY/initramfs                        agent and drivers
//! images/NAME/VERSION/disk.img              a raw sparse ext4 of one size
//! memory/KEY/{memory,device.state,disk.qcow2,clone.qcow2,manifest.json}
//!                                           a booted guest, waiting for its identity
//! ```

mod ext4;
mod initramfs;
mod manifest;
mod memory;
mod minimal;
mod outdated;

use std::fmt::Write;

pub(crate) use initramfs::ensure_initramfs;
#[cfg(feature = "testkit")]
pub(crate) use initramfs::{DIRECTORY, EXECUTABLE, Entry, module_entries, newc_archive};
pub(crate) use memory::{MemoryImage, MemoryImages};
pub(crate) use minimal::{MINIMAL, ensure_minimal};
use sha2::{Digest, Sha256};

/// A name for what is made from these parts: equal parts, equal name.
pub(crate) fn content_key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(12)
        .fold(String::new(), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
