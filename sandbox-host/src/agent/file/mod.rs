//! Files of the guest. Paths come from callers, are resolved by this machine's kernel, and never
//! leave it.

mod directory;
mod error;
mod read;
mod write;

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use sandbox_core::{
    file::{FileKind, FileStat},
    guest::GuestError,
};

use error::{IoContext, wrong_kind};

pub(crate) use directory::list_dir;
pub(crate) use read::read_file;
pub(crate) use write::OpenWrites;

const PATH_MAX_BYTES: usize = 4096;

/// Accepts what can be a path here.
fn checked(path: &str) -> Result<&Path, GuestError> {
    let problem = if path.is_empty() {
        "is empty"
    } else if path.len() > PATH_MAX_BYTES {
        "is longer than 4096 bytes"
    } else if path.contains('\0') {
        "holds a NUL byte"
    } else if !path.starts_with('/') {
        "is not absolute"
    } else {
        return Ok(Path::new(path));
    };
    Err(GuestError::BadPath {
        path: path.chars().take(64).collect(),
        problem: problem.into(),
    })
}

pub(crate) fn stat(path: &str) -> Result<FileStat, GuestError> {
    let checked = checked(path)?;
    let metadata = fs::symlink_metadata(checked).at(path)?;
    let name = checked.file_name().unwrap_or(OsStr::new("/"));
    Ok(describe(checked, name, &metadata))
}

fn describe(path: &Path, name: &OsStr, metadata: &Metadata) -> FileStat {
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_symlink() {
        let target = fs::read_link(path).unwrap_or_default();
        FileKind::Symlink {
            target: target.to_string_lossy().into_owned(),
        }
    } else {
        FileKind::Other
    };
    FileStat {
        name: name.to_string_lossy().into_owned(),
        kind,
        size: metadata.len(),
        physical_bytes: metadata.blocks() * 512,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_ms: metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000,
    }
}

pub(crate) fn make_dir(path: &str, mode: u32, parents: bool) -> Result<(), GuestError> {
    let checked = checked(path)?;
    let mode = mode & 0o7777;
    if parents && let Some(parent) = checked.parent() {
        make_parents(parent).at(path)?;
    }
    match fs::DirBuilder::new().mode(mode).create(checked) {
        // The mask of permission bits must not take any away.
        Ok(()) => fs::set_permissions(checked, fs::Permissions::from_mode(mode)).at(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && parents => {
            if fs::metadata(checked).at(path)?.is_dir() {
                Ok(())
            } else {
                Err(wrong_kind(path, "is not a directory"))
            }
        }
        Err(error) => Err(error).at(path),
    }
}

fn make_parents(parent: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
}

pub(crate) fn rename(from: &str, to: &str) -> Result<(), GuestError> {
    let (from_path, to_path) = (checked(from)?, checked(to)?);
    // Names the path that is missing: the kernel does not say which.
    fs::symlink_metadata(from_path).at(from)?;
    fs::rename(from_path, to_path).at(to)
}

pub(crate) fn remove(path: &str) -> Result<(), GuestError> {
    let checked = checked(path)?;
    if fs::symlink_metadata(checked).at(path)?.is_dir() {
        fs::remove_dir(checked).at(path)
    } else {
        fs::remove_file(checked).at(path)
    }
}

pub(crate) fn remove_all(path: &str) -> Result<(), GuestError> {
    let checked = checked(path)?;
    if fs::canonicalize(checked).is_ok_and(|real| real == Path::new("/")) {
        return Err(wrong_kind(path, "is the root directory"));
    }
    if fs::symlink_metadata(checked).at(path)?.is_dir() {
        fs::remove_dir_all(checked).at(path)
    } else {
        fs::remove_file(checked).at(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r6_paths_that_can_be_none_are_refused_and_not_echoed_whole() {
        let long = format!("/{}", "x".repeat(PATH_MAX_BYTES));
        for path in ["", "relative", "./x", "/nul\0", long.as_str()] {
            let Err(GuestError::BadPath { path: shown, .. }) = checked(path) else {
                panic!("{path:?} was accepted");
            };
            assert!(shown.len() <= 64);
        }
        assert!(checked("/").is_ok());
        assert!(checked(&long[..PATH_MAX_BYTES]).is_ok());
    }

    #[test]
    fn the_root_is_never_removed() {
        for path in ["/", "//", "/proc/../", "/./"] {
            assert!(matches!(
                remove_all(path),
                Err(GuestError::WrongKind { .. })
            ));
        }
    }
}
