//! Build contexts: the files that a build's `COPY` steps can take, uploaded as a tar archive.
//!
//! ```text
//! upload ─► (gzip) ─► tar ─► tree of files, folders and links ──select──► puts for the guest
//!                                                             ──digest──► a part of the layer's key
//! ```
//!
//! All of it is in memory and pure. A name from an archive becomes a path in the guest at most; here
//! it is a key of a map and never a path on a host. Owners and times of an archive say nothing: what is
//! copied is root's, or whose the step says. What a `.dockerignore` leaves out is left out by whoever
//! packs the archive.

mod error;
mod pattern;
mod put;
mod read;
mod select;
#[cfg(test)]
mod tests;
mod tree;

use bytes::Bytes;

pub use error::{ContextError, SelectError};
pub use pattern::matches as name_matches;
pub use put::{Destination, Put};

use self::tree::Tree;

/// The largest upload, in bytes: 64 MiB.
pub const CONTEXT_MAX_BYTES: u64 = super::CONTEXT_MAX_BYTES as u64;
/// The most that an upload unpacks to, in bytes, as an archive and in all its files: 256 MiB.
pub const CONTEXT_UNPACKED_MAX_BYTES: u64 = 256 << 20;
/// The most files, folders and links.
pub const CONTEXT_ENTRIES_MAX: usize = 50_000;

/// A build context that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context(Tree);

impl Context {
    /// Reads a tar archive, plain or compressed with gzip: ustar, PAX or GNU. Hard links become copies
    /// of what they link to. Total: it ends for every input, and never panics.
    ///
    /// # Errors
    /// If it is no whole archive, beyond a bound, or has anything else than files, folders and links,
    /// or names that lead out of it.
    pub fn read(upload: Bytes) -> Result<Self, ContextError> {
        read::read(upload).map(Self)
    }

    /// How many files, folders and links there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
