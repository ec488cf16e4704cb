//! What a running guest's memory differs in from the image that it was cloned from.
//!
//! A machine maps its image's RAM file privately, so a page that it has written to is a page of its
//! own, no longer the file's: the kernel tells which. Those pages, all of them, are saved as a
//! *delta*; it is always against the image, never against another delta, so saving again and again
//! makes no chain. All costs follow the number of such pages, not the memory's size.
//!
//! ```text
//! QEMU's mapping ──dirty──► extents ──save──► memory.delta ──fill──► another QEMU's mapping
//!                                                  └────────apply──► a copy of the RAM file
//! ```

mod delta;
mod mapping;

pub(crate) use delta::{Delta, save};
pub(crate) use mapping::{Extent, Mapping};

/// Bytes of a page. Guest memory is mapped in these.
pub(crate) const PAGE_BYTES: u64 = 4096;
