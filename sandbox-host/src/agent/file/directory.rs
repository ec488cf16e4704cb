//! Directories, a page at a time.

use std::{collections::BinaryHeap, ffi::OsString, fs, io};

use sandbox_core::{file::DirPage, guest::GuestError};

use super::{
    checked, describe,
    error::{IoContext, wrong_kind},
};

/// Most entries of one page: with the longest links they still fit a frame.
const PAGE_MAX: usize = 1000;

/// Names behind `after` in the order of their bytes, as they are shown. Holds no more than a page
/// at a time, however large the directory is.
pub(crate) fn list_dir(path: &str, after: Option<&str>, limit: u32) -> Result<DirPage, GuestError> {
    let folder = checked(path)?;
    let limit = usize::try_from(limit)
        .unwrap_or(PAGE_MAX)
        .clamp(1, PAGE_MAX);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if error.kind() == io::ErrorKind::NotADirectory && fs::metadata(folder).is_ok() =>
        {
            return Err(wrong_kind(path, "is not a directory"));
        }
        Err(error) => return Err(error).at(path),
    };
    // The greatest of the smallest names is on top and goes first.
    let mut names: BinaryHeap<(String, OsString)> = BinaryHeap::with_capacity(limit + 2);
    for entry in entries {
        let name = entry.at(path)?.file_name();
        let shown = name.to_string_lossy().into_owned();
        if after.is_some_and(|after| shown.as_str() <= after) {
            continue;
        }
        names.push((shown, name));
        if names.len() > limit + 1 {
            names.pop();
        }
    }
    let mut names = names.into_sorted_vec();
    let more = names.len() > limit;
    names.truncate(limit);
    let mut page = DirPage {
        entries: Vec::with_capacity(names.len()),
        more,
    };
    for (_, name) in names {
        let entry = folder.join(&name);
        match fs::symlink_metadata(&entry) {
            Ok(metadata) => page.entries.push(describe(&entry, &name, &metadata)),
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at(path),
        }
    }
    Ok(page)
}
