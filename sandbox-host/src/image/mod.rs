//! Images: what a machine's disk and memory start from.
//!
//! Everything here is made in a folder beside its place, published by a rename, and never changed
//! afterwards, since running machines map it.
//!
//! ```text
//! boot/KEY/initramfs                        agent and drivers
//! images/minimal/VERSION/disk.img           a raw sparse ext4 of one size
//! images/UUID/…                             what templates name, see `store`
//! memory/KEY/{memory,device.state,disk.qcow2 or disk.raw,manifest.json}
//!                                           a booted guest, waiting for its identity
//! ```

mod ext4;
mod first_boot;
mod flatten;
mod initramfs;
mod manifest;
mod memory;
mod minimal;
mod outdated;
mod sized;
mod store;

use std::fmt::Write;

pub(crate) use flatten::{FlattenedDisk, FrozenDisk, copy_exact, flatten_disk};
pub(crate) use initramfs::ensure_initramfs;
#[cfg(feature = "testkit")]
pub(crate) use initramfs::{DIRECTORY, EXECUTABLE, Entry, module_entries, newc_archive};
pub(crate) use memory::{MemoryImage, MemoryImages};
pub(crate) use minimal::ensure_minimal;
use sha2::{Digest, Sha256};
pub(crate) use store::{Content, Making, StoredImage};

/// Names inside an image's folder, which memory images and snapshots share: RAM, and the devices'
/// state.
const MEMORY_FILE: &str = "memory";
const STATE_FILE: &str = "device.state";
/// An image's disk: raw, and sparse.
pub(crate) const IMAGE_FILE: &str = "disk.img";

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

#[cfg(test)]
mod tests;
