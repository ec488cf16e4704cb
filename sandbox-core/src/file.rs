//! Files inside a sandbox. Paths are absolute and are resolved in the guest, by the guest's kernel;
//! they are never joined to a path of the host.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What kind of thing a path names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and what it holds.
    Symlink {
        /// The link's text, not resolved.
        target: String,
    },
    /// A device, socket or pipe.
    Other,
}

/// What is known of a path. Symbolic links are described and not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// The last part of the path. Bytes that are not UTF-8 are shown as U+FFFD.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that it takes on the guest's disk; less than `size` where the file is sparse.
    pub physical_bytes: u64,
    /// Permission bits, such as `0o644`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content, in milliseconds since 1970.
    pub modified_ms: i64,
}

/// A page of a directory, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirPage {
    /// The entries.
    pub entries: Vec<FileStat>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChunk {
    /// What stands there.
    pub data: FileData,
    /// The file's length when this was read.
    pub size: u64,
    /// Which file this is of. A reader that gets another one between two pieces must begin anew:
    /// the path has come to name another file, and the pieces do not belong together.
    #[serde(default)]
    pub version: u64,
}

/// Content, or the absence of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileData {
    /// Bytes. Empty at the end of the file and only there.
    Bytes(Bytes),
    /// A hole of this many bytes, all zero and not on disk.
    Hole(u64),
}

/// How a file is created or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSpec {
    /// Where. The content appears there as a whole when the write is committed, and not before.
    pub path: String,
    /// Permission bits of the new file; where absent, those of the file that it replaces, or
    /// `0o644`.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Creates missing parent directories.
    #[serde(default)]
    pub create_parents: bool,
}

/// A write that has been opened in the guest and not yet committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WriteHandle(pub u64);
