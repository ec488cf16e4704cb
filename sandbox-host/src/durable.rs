//! Files that are there whole or not at all, also after a power cut.

#![cfg_attr(
    not(feature = "host"),
    expect(
        dead_code,
        reason = "the disk contract's program needs one function alone"
    )
)]

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

/// Writes `content` beside `path`, brings it to disk and renames it into place.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    place(path, content)?;
    sync_folder(parent(path)?)
}

/// [`write()`] of a value as JSON, whose name comes to disk with the next write to its folder: that
/// halves what it costs.
pub(crate) fn place_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    place(path, &json(value)?)
}

fn place(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = parent(path)?;
    let mut file = tempfile::Builder::new()
        .prefix(".write-")
        .tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// [`write`] of a value as JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write(path, &json(value)?)
}

fn json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(io::Error::other)
}

/// Brings a folder's entries to disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Renames a finished folder into its place and makes that durable. A folder that is there already
/// stays, and the new one is removed: both were made from the same inputs.
pub(crate) fn publish_folder(finished: &Path, place: &Path) -> io::Result<()> {
    match fs::rename(finished, place) {
        Ok(()) => sync_folder(parent(place)?),
        Err(_) if place.is_dir() => fs::remove_dir_all(finished),
        Err(error) => Err(error),
    }
}

/// Removes a folder with all in it; one that is not there is no error. Work that was given up may put
/// the last of its files into it meanwhile.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    const ATTEMPTS_MAX: usize = 8;
    let mut attempt = 1;
    loop {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::other(format!("{} has no parent", path.display())))
}
