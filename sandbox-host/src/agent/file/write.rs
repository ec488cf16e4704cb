//! Writing files beside their place, and putting them there at once.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sandbox_core::{
    file::{FileStat, WriteHandle, WriteSpec},
    guest::GuestError,
};

use super::{
    checked,
    error::{IoContext, wrong_kind},
    make_parents, stat,
};

/// Writes that one connection may have open.
const OPEN_MAX: usize = 64;
/// A run of this many zeros, so aligned, becomes a hole.
const BLOCK_BYTES: usize = 4096;
const NAME_MAX_BYTES: usize = 255;
const LINKS_MAX: usize = 40;

/// Writes that one connection has open. They end with it.
#[derive(Default)]
pub(crate) struct OpenWrites {
    writes: Mutex<HashMap<WriteHandle, Write>>,
}

impl OpenWrites {
    fn writes(&self) -> MutexGuard<'_, HashMap<WriteHandle, Write>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, spec: &WriteSpec) -> Result<WriteHandle, GuestError> {
        // No handle is given twice, so that one of a lost connection is no other's now.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut writes = self.writes();
        if writes.len() >= OPEN_MAX {
            return Err(GuestError::Limit {
                what: "open file writes".into(),
                limit: OPEN_MAX as u64,
            });
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let handle = WriteHandle(number);
        writes.insert(handle, Write::begin(spec, number)?);
        Ok(handle)
    }

    pub(crate) fn write(
        &self,
        handle: WriteHandle,
        offset: u64,
        data: &[u8],
    ) -> Result<(), GuestError> {
        self.writes()
            .get_mut(&handle)
            .ok_or(GuestError::NoSuchWrite)?
            .write(offset, data)
    }

    /// Gives all of them up.
    pub(crate) fn abort_all(&self) {
        self.writes().clear();
    }

    /// Hands a write over; dropping it gives it up.
    pub(crate) fn take(&self, handle: WriteHandle) -> Result<Write, GuestError> {
        self.writes().remove(&handle).ok_or(GuestError::NoSuchWrite)
    }
}

/// A file on its way. Removed when dropped before it was committed.
pub(crate) struct Write {
    /// As the caller wrote it, for errors and the answer.
    path: String,
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    mode: u32,
    owner: Option<(u32, u32)>,
    /// Nothing has been written at or behind this.
    fresh_from: u64,
    committed: bool,
}

impl Write {
    fn begin(spec: &WriteSpec, number: u64) -> Result<Self, GuestError> {
        let path = spec.path.clone();
        let named = checked(&path)?;
        if path.ends_with('/') {
            return Err(wrong_kind(&path, "is a directory"));
        }
        let target = follow(named).at(&path)?;
        let existing = match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(wrong_kind(&path, "is a directory"));
            }
            Ok(metadata) if !metadata.is_file() => {
                return Err(wrong_kind(&path, "is not a regular file"));
            }
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at(&path),
        };
        let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(wrong_kind(&path, "is a directory"));
        };
        if name.len() > NAME_MAX_BYTES {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)).at(&path);
        }
        if spec.create_parents {
            make_parents(folder).at(&path)?;
        }
        let (temporary, file) = create_beside(folder, &name.to_string_lossy(), number).at(&path)?;
        let mode = spec
            .mode
            .or(existing.as_ref().map(MetadataExt::mode))
            .unwrap_or(0o644);
        Ok(Self {
            path,
            temporary,
            file,
            mode: mode & 0o7777,
            owner: existing.map(|existing| (existing.uid(), existing.gid())),
            target,
            fresh_from: 0,
            committed: false,
        })
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), GuestError> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end else {
            return Err(GuestError::Invalid(format!(
                "no file can have {} bytes at {offset}",
                data.len()
            )));
        };
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (length, zero) = next_run(at, &data[done..]);
            // Where something was written before, zeros must replace it.
            if !zero || at < self.fresh_from {
                self.file
                    .write_all_at(&data[done..done + length], at)
                    .at(&self.path)?;
            }
            done += length;
        }
        self.fresh_from = self.fresh_from.max(end);
        Ok(())
    }

    pub(crate) fn commit(mut self, size: u64) -> Result<FileStat, GuestError> {
        let path = self.path.clone();
        if i64::try_from(size).is_err() {
            return Err(GuestError::Invalid(format!(
                "no file can be {size} bytes long"
            )));
        }
        self.file.set_len(size).at(&path)?;
        if let Some((uid, gid)) = self.owner {
            fchown(&self.file, Some(uid), Some(gid)).at(&path)?;
        }
        // After the owner, whose change clears some bits.
        self.file
            .set_permissions(fs::Permissions::from_mode(self.mode))
            .at(&path)?;
        self.file.sync_all().at(&path)?;
        // The kernel would replace an empty directory by no file, but says so in other words.
        if fs::symlink_metadata(&self.target).is_ok_and(|found| found.is_dir()) {
            return Err(wrong_kind(&path, "is a directory"));
        }
        fs::rename(&self.temporary, &self.target).at(&path)?;
        self.committed = true;
        if let Some(folder) = self.target.parent() {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .at(&path)?;
        }
        stat(&self.target.to_string_lossy())
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.committed {
            // Somebody may have removed it, or its directory, before us.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The next run at `offset` that is all zero blocks, or that has none: its length and which.
fn next_run(offset: u64, data: &[u8]) -> (usize, bool) {
    // Fits: the remainder is below a block.
    let into_block = (offset % BLOCK_BYTES as u64) as usize;
    let first = if into_block == 0 {
        BLOCK_BYTES
    } else {
        BLOCK_BYTES - into_block
    };
    let zero_block = |at: usize, length: usize| {
        length == BLOCK_BYTES
            && data
                .get(at..at + length)
                .is_some_and(|block| block.iter().all(|byte| *byte == 0))
    };
    let zero = zero_block(0, first);
    let mut length = first;
    while length < data.len() && zero_block(length, BLOCK_BYTES) == zero {
        length += BLOCK_BYTES;
    }
    (length.min(data.len()), zero)
}

/// Follows the last part of the path while it is a link, also to where nothing is yet.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => {
                let folder = path.parent().unwrap_or(Path::new("/"));
                path = folder.join(target);
            }
            // Not a link, or nothing there.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn create_beside(folder: &Path, name: &str, number: u64) -> io::Result<(PathBuf, File)> {
    // Another agent before a restart may have left one under the same number.
    for attempt in 0..100u32 {
        let suffix = format!(".sandbox-write-{:08x}", (number << 7) + u64::from(attempt));
        let mut kept = name.len().min(NAME_MAX_BYTES - 1 - suffix.len());
        while !name.is_char_boundary(kept) {
            kept -= 1;
        }
        let temporary = folder.join(format!(".{}{suffix}", &name[..kept]));
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary);
        match created {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn r6_whatever_the_pieces_the_file_is_what_plain_writes_make(
            pieces in proptest::collection::vec(
                (0u64..20_000, any::<u8>(), 0usize..20_000, 0usize..6000), 1..8),
            size in 0u64..45_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file").to_string_lossy().into_owned();
            let spec = WriteSpec { path: path.clone(), mode: None, create_parents: false };
            let writes = OpenWrites::default();
            let handle = writes.open(&spec).unwrap();
            let mut expected = vec![0u8; 50_000];
            for (offset, byte, zeros, ones) in pieces {
                let mut data = vec![0; zeros];
                data.resize(zeros + ones, byte);
                writes.write(handle, offset, &data).unwrap();
                expected[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
            }
            expected.resize(size as usize, 0);
            let stat = writes.take(handle).unwrap().commit(size).unwrap();
            prop_assert_eq!(stat.size, size);
            prop_assert_eq!(fs::read(&path).unwrap(), expected);
        }

        #[test]
        fn runs_cover_the_data(offset in 0u64..9000, data in proptest::collection::vec(0u8..2, 1..20_000)) {
            let mut done = 0;
            while done < data.len() {
                let (length, zero) = next_run(offset + done as u64, &data[done..]);
                prop_assert!(length > 0);
                if zero {
                    prop_assert!(data[done..done + length].iter().all(|byte| *byte == 0));
                }
                done += length;
            }
            prop_assert_eq!(done, data.len());
        }
    }
}
