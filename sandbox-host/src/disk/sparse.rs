//! Copies of files that stay as sparse as they were.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use rustix::{
    fs::{FallocateFlags, SeekFrom as Whence, fallocate, ioctl_ficlone, seek},
    io::Errno,
};

/// What is read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The grain of holes.
const BLOCK_BYTES: usize = 4096;

/// Copies a file to one that is not there yet: as shared blocks where the file system can do so,
/// otherwise extent by extent. Holes stay holes. Nothing is left after an error.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().write(true).create_new(true).open(to)?;
    let filled = reflink(&source, &target).or_else(|_| copy_extents(&source, &target));
    if filled.is_err() {
        fs::remove_file(to)?;
    }
    filled
}

/// What a file takes on disk, in bytes.
pub(crate) fn physical_bytes(file: &Path) -> io::Result<u64> {
    Ok(fs::metadata(file)?.blocks() * 512)
}

/// Makes `target`, an empty file, share all blocks of `source`.
pub(crate) fn reflink(source: &File, target: &File) -> io::Result<()> {
    Ok(ioctl_ficlone(target.as_fd(), source.as_fd())?)
}

pub(super) fn copy_extents(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut at = 0;
    while let Some(data) = seek_to(source, Whence::Data(at))? {
        let end = seek_to(source, Whence::Hole(data))?.unwrap_or(length);
        copy_range(source, target, data, end)?;
        at = end;
    }
    Ok(())
}

/// `None` behind the last extent.
fn seek_to(file: &File, whence: Whence) -> io::Result<Option<u64>> {
    match seek(file, whence) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_range(mut source: &File, mut target: &File, start: u64, end: u64) -> io::Result<()> {
    source.seek(SeekFrom::Start(start))?;
    target.seek(SeekFrom::Start(start))?;
    let length = end - start;
    // The standard library has the kernel copy between two files.
    let copied = io::copy(&mut source.take(length), &mut target)?;
    if copied == length {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was copied",
        ))
    }
}

/// Makes holes of blocks that hold nothing but zeros.
pub(crate) fn punch_zeros(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while let Some(data) = seek_to(file, Whence::Data(at))? {
        let end = seek_to(file, Whence::Hole(data))?.unwrap_or(length);
        let mut zeros = Zeros {
            file,
            start: data,
            end: data,
        };
        let mut from = data;
        while from < end {
            let wanted = usize::try_from(end - from).map_or(PIECE_BYTES, |n| n.min(PIECE_BYTES));
            let piece = &mut piece[..wanted];
            file.read_exact_at(piece, from)?;
            for block in piece.chunks(BLOCK_BYTES) {
                let next = from + block.len() as u64;
                if block.iter().all(|byte| *byte == 0) {
                    zeros.end = next;
                } else {
                    zeros.punch()?;
                    zeros.start = next;
                    zeros.end = next;
                }
                from = next;
            }
        }
        zeros.punch()?;
        at = end;
    }
    Ok(())
}

/// A run of zeros, as far as it is known.
struct Zeros<'a> {
    file: &'a File,
    start: u64,
    end: u64,
}

impl Zeros<'_> {
    fn punch(&self) -> io::Result<()> {
        if self.start == self.end {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(self.file, flags, self.start, self.end - self.start) {
            // Such a file system has no holes.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// 64 MiB with data at the start, in the middle and at the very end.
    fn sparse_file(path: &Path) -> Vec<u8> {
        let file = File::create(path).unwrap();
        file.set_len(64 * MIB).unwrap();
        for (at, byte) in [(0, 1), (20 * MIB + 5, 2), (64 * MIB - 4096, 3)] {
            file.write_all_at(&[byte; 4096], at).unwrap();
        }
        fs::read(path).unwrap()
    }

    #[test]
    fn trap_23_a_copy_has_the_same_content_and_no_more_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        let content = sparse_file(&from);
        let copied = folder.path().join("copied");
        copy(&from, &copied).unwrap();
        let extents = folder.path().join("extents");
        copy_extents(
            &File::open(&from).unwrap(),
            &File::create(&extents).unwrap(),
        )
        .unwrap();
        for copy in [copied, extents] {
            assert!(fs::read(&copy).unwrap() == content, "{}", copy.display());
            let bytes = fs::metadata(&copy).unwrap().blocks() * 512;
            assert!(bytes < MIB, "{} takes {bytes} bytes", copy.display());
        }
    }

    #[test]
    fn r19_blocks_of_zeros_become_holes_and_all_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut content = vec![0; 3 * MIB as usize + 100];
        for at in [
            0,
            4096 * 5 + 17,
            4096 * 6,
            2 * MIB as usize,
            3 * MIB as usize + 99,
        ] {
            content[at] = 7;
        }
        fs::write(&path, &content).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        punch_zeros(&file).unwrap();
        assert!(fs::read(&path).unwrap() == content);
        assert_eq!(fs::metadata(&path).unwrap().blocks() * 512, 5 * 4096);
    }

    #[test]
    fn trap_20_a_copy_never_overwrites_a_file_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, b"new").unwrap();
        fs::write(&to, b"old").unwrap();
        let error = copy(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"old");
    }

    #[test]
    fn an_empty_file_and_a_file_of_holes_alone_are_copied() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 10 * MIB] {
            let (from, to) = (folder.path().join("from"), folder.path().join("to"));
            File::create(&from).unwrap().set_len(length).unwrap();
            copy_extents(&File::open(&from).unwrap(), &File::create(&to).unwrap()).unwrap();
            let copied = fs::metadata(&to).unwrap();
            assert_eq!((copied.len(), copied.blocks()), (length, 0));
        }
    }
}
