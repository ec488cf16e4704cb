//! What a running guest's memory differs in from the image that it was cloned from.
//!
//! A machine maps its image's RAM file privately, so a page that it has written to is a page of its
//! own, no longer the file's: the kernel tells which. Those of them that say something else than the
//! image are saved as a *delta*; it is always against the image, never against another delta, so
//! saving again and again makes no chain. All costs follow the number of such pages, not the memory's
//! size.
//!
//! A delta grows at first, while the guest's kernel comes to touch what it works with, and then no
//! more to speak of: of a guest that replaces a file ten times a second it was 1.6 MiB at the second
//! pause, 2.6 at the fiftieth and 2.7 at the five-hundredth (measured). A page that the guest has
//! freed keeps what was in it and is saved as others are; less would need a guest that tells of them.
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
