//! What a `COPY` does in the guest, as plain data.

use bytes::Bytes;

use crate::build::guest_path::{join, says_dir};

/// Where a `COPY` puts things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// An absolute path in the guest, without `.`, `..` and a slash at the end.
    pub path: String,
    /// Whether sources come to lie in it. Otherwise a single file gets this name.
    ///
    /// It is so by the way it was written: with a slash at the end, or as `.` or `..`. Where it is not,
    /// and the guest has a directory (or a link to one) of this name, whoever copies sets it before
    /// asking what to put, so that nobody's directory is replaced by a file.
    pub is_dir: bool,
}

impl Destination {
    /// As a step says it, for a step with this working directory.
    #[must_use]
    pub fn new(dest: &str, workdir: &str) -> Self {
        Self {
            path: join(workdir, dest),
            is_dir: says_dir(dest),
        }
    }

    /// The path of what comes to lie below it.
    pub(super) fn below(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            (path, "") => path.to_owned(),
            ("/", name) => format!("/{name}"),
            (path, name) => format!("{path}/{name}"),
        }
    }
}

/// One thing to put into the guest. Parents that are missing are made by whoever puts it, with mode
/// `0o755` and root's. Paths are absolute paths in the guest, and are never joined to one of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// A directory. One that is there stays, with what it holds.
    Dir {
        /// Where.
        path: String,
        /// Permission bits, also of one that is there. Where absent, a new one gets `0o755` and one
        /// that is there keeps its own.
        mode: Option<u32>,
    },
    /// A regular file, in the place of any file or link that is there.
    File {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Its content.
        data: Bytes,
    },
    /// A symbolic link, in the place of any file or link that is there.
    Symlink {
        /// Where.
        path: String,
        /// What it says. It means something to the guest alone.
        target: String,
    },
}

impl Put {
    /// Where it goes.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Dir { path, .. } | Self::File { path, .. } | Self::Symlink { path, .. } => path,
        }
    }
}
