//! The kernel's errors in the contract's words.

use std::io;

use sandbox_core::guest::GuestError;

pub(super) fn wrong_kind(path: &str, problem: &str) -> GuestError {
    GuestError::WrongKind {
        path: path.into(),
        problem: problem.into(),
    }
}

/// Adds the path to an error.
pub(super) trait IoContext<T> {
    fn at(self, path: &str) -> Result<T, GuestError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, path: &str) -> Result<T, GuestError> {
        self.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => GuestError::NotFound { path: path.into() },
            Some(libc::EEXIST) => GuestError::AlreadyExists { path: path.into() },
            Some(libc::EISDIR) => wrong_kind(path, "is a directory"),
            Some(libc::ENOTDIR) => wrong_kind(path, "a part of the path is not a directory"),
            Some(libc::ENOTEMPTY) => wrong_kind(path, "directory not empty"),
            Some(libc::ENOSPC | libc::EDQUOT) => GuestError::DiskFull { path: path.into() },
            Some(libc::ENAMETOOLONG) => GuestError::BadPath {
                path: path.chars().take(64).collect(),
                problem: "a part of it is longer than the file system allows".into(),
            },
            _ => GuestError::Io {
                path: path.into(),
                problem: error.to_string(),
            },
        })
    }
}

impl<T> IoContext<T> for nix::Result<T> {
    fn at(self, path: &str) -> Result<T, GuestError> {
        self.map_err(io::Error::from).at(path)
    }
}
