//! Space held back for hard times.
//!
//! ```text
//!   whole ──disk full at an update or removal──► one slice less, the write is tried again
//!     ▲                                                │
//!     └───── there is room again, with headroom ───────┘   (until then: no new sandboxes)
//! ```
//!
//! A file of really allocated blocks beside the database. On a full disk it gives way slice by
//! slice, not at once: others who fill the disk would take all of it in one go.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs,
};

const MIB: u64 = 1024 * 1024;

/// Enough for the log to grow to where it is folded back (1000 pages of 4 KiB) and for the database
/// to take in as much again: thousands of updates and removals.
const SIZE_BYTES: u64 = 8 * MIB;
const SLICE_BYTES: u64 = MIB;
/// What must be free besides the ballast before it is made whole, so that it is not taken and given
/// back by turns.
const HEADROOM_BYTES: u64 = 8 * MIB;
/// With less than this free an I/O error is put down to the full disk.
const NEARLY_FULL_BYTES: u64 = MIB;

#[derive(Debug, Clone)]
pub(super) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(super) fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-ballast");
        Self { path: path.into() }
    }

    /// The file, made where it is missing.
    pub(super) fn file(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)
    }

    /// Takes away a file that was made beside something that is no database of ours.
    pub(super) fn remove_empty(&self) {
        if self.path.metadata().is_ok_and(|meta| meta.len() == 0) {
            // An empty file that stays is in nobody's way.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether nothing of it is given away.
    pub(super) fn is_whole(&self) -> bool {
        self.path
            .metadata()
            .is_ok_and(|meta| meta.len() >= SIZE_BYTES)
    }

    /// Gives one slice to whoever writes next; false when nothing is left. Blocks.
    pub(super) fn release_slice(&self) -> io::Result<bool> {
        let file = self.file()?;
        let len = file.metadata()?.len();
        if len == 0 {
            return Ok(false);
        }
        file.set_len(len.saturating_sub(SLICE_BYTES))?;
        // Journalling file systems hand out freed blocks only once the freeing is on the disk.
        file.sync_all()?;
        Ok(true)
    }

    /// Takes back what is missing if there is room for it; whether it is whole now. Blocks.
    pub(super) fn restore(&self) -> io::Result<bool> {
        let file = self.file()?;
        let len = file.metadata()?.len();
        if len >= SIZE_BYTES {
            return Ok(true);
        }
        if self.free_bytes()? < SIZE_BYTES - len + HEADROOM_BYTES {
            return Ok(false);
        }
        let taken = match fallocate(&file, FallocateFlags::empty(), 0, SIZE_BYTES as i64) {
            Err(Errno::EOPNOTSUPP) => fill(&file, len),
            other => other.map_err(io::Error::from),
        };
        if let Err(error) = taken {
            // Its length must tell what is really allocated.
            file.set_len(len)?;
            return Err(error);
        }
        Ok(true)
    }

    /// Whether so much is free, and headroom besides. Where the disk does not tell, the write will.
    pub(super) fn leaves_room_for(&self, bytes: u64) -> bool {
        let needed = bytes.saturating_add(HEADROOM_BYTES);
        !self.free_bytes().is_ok_and(|free| free < needed)
    }

    /// Whether there is hardly a block left.
    pub(super) fn disk_full(&self) -> bool {
        self.free_bytes().is_ok_and(|free| free < NEARLY_FULL_BYTES)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let stat = statvfs::statvfs(folder)?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }
}

/// For file systems that can't allocate without writing.
fn fill(mut file: &File, from: u64) -> io::Result<()> {
    let zeros = vec![0; SLICE_BYTES as usize];
    let mut at = file.seek(SeekFrom::Start(from))?;
    while at < SIZE_BYTES {
        let piece = (SIZE_BYTES - at).min(SLICE_BYTES) as usize;
        file.write_all(&zeros[..piece])?;
        at += piece as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn ballast_is_really_allocated_gives_way_in_slices_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&folder.path().join("db"));
        let allocated = || ballast.path.metadata().unwrap().blocks() * 512;

        assert!(!ballast.is_whole());
        assert!(ballast.restore().unwrap());
        assert!(ballast.is_whole());
        assert!(allocated() >= SIZE_BYTES);

        let mut slices = 0;
        while ballast.release_slice().unwrap() {
            slices += 1;
            assert!(!ballast.is_whole());
        }
        assert_eq!(slices, SIZE_BYTES / SLICE_BYTES);
        assert!(allocated() < SLICE_BYTES);

        assert!(ballast.restore().unwrap());
        assert!(allocated() >= SIZE_BYTES);
    }

    #[test]
    fn writing_zeros_allocates_where_fallocate_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&folder.path().join("db"));
        let file = ballast.file().unwrap();
        fill(&file, 0).unwrap();
        assert!(ballast.is_whole());
        assert!(file.metadata().unwrap().blocks() * 512 >= SIZE_BYTES);
    }
}
