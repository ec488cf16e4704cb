//! Reading a piece of a file, or learning that there is a hole.

use std::{
    fs::{File, Metadata, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use nix::unistd::{Whence, lseek};
use sandbox_core::{
    file::{FileChunk, FileData},
    guest::GuestError,
    process::CHUNK_MAX_BYTES,
};

use super::{
    checked,
    error::{IoContext, wrong_kind},
};

pub(crate) fn read_file(path: &str, offset: u64, max_bytes: u32) -> Result<FileChunk, GuestError> {
    let file = OpenOptions::new()
        .read(true)
        // Opening a pipe or a device must not wait for anything.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(checked(path)?)
        .at(path)?;
    let metadata = file.metadata().at(path)?;
    if metadata.is_dir() {
        return Err(wrong_kind(path, "is a directory"));
    }
    if !metadata.is_file() {
        return Err(wrong_kind(path, "is not a regular file"));
    }
    let size = metadata.len();
    let version = version(&metadata);
    let maybe_sparse = metadata.blocks() * 512 < size;
    let mut wanted = u64::from(max_bytes.clamp(1, CHUNK_MAX_BYTES));
    if maybe_sparse && offset < size {
        match next_extent(&file, offset, size) {
            Extent::Hole(length) => {
                let data = FileData::Hole(length);
                return Ok(FileChunk {
                    data,
                    size,
                    version,
                });
            }
            Extent::Data(length) => wanted = wanted.min(length),
        }
    }
    if size > 0 {
        // Less to make room for. Files of `/proc` say 0 and hold something.
        wanted = wanted.min(size.saturating_sub(offset).max(1));
    }
    // Fits: at most CHUNK_MAX_BYTES.
    let mut data = vec![0; wanted as usize];
    let mut length = 0;
    while length < data.len() {
        match file.read_at(&mut data[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // What came before the error is given first.
            Err(_) if length > 0 => break,
            Err(error) => return Err(error).at(path),
        }
        if size == 0 {
            // Each read of a file of `/proc` may be made anew; they end where they say.
            break;
        }
    }
    data.truncate(length);
    Ok(FileChunk {
        data: FileData::Bytes(Bytes::from(data)),
        size,
        version,
    })
}

/// Tells this file from others that had the path or, since numbers are given again, the inode.
fn version(metadata: &Metadata) -> u64 {
    let born_ns = metadata
        .created()
        .ok()
        .and_then(|born| born.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |age| age.as_nanos() as u64);
    // An odd factor spreads small numbers over all bits.
    metadata.ino().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ metadata.dev().rotate_left(32) ^ born_ns
}

#[derive(Debug, PartialEq, Eq)]
enum Extent {
    Hole(u64),
    Data(u64),
}

/// What stands at `offset`, which is before the end. A file system that can't say has data only.
fn next_extent(file: &File, offset: u64, size: u64) -> Extent {
    let all = Extent::Data(size - offset);
    let Ok(from) = i64::try_from(offset) else {
        return all;
    };
    let data_at = match lseek(file, from, Whence::SeekData) {
        Ok(at) => at.cast_unsigned(),
        // No data from here to the end.
        Err(nix::Error::ENXIO) => return Extent::Hole(size - offset),
        Err(_) => return all,
    };
    if data_at > offset {
        return Extent::Hole(data_at.min(size) - offset);
    }
    match lseek(file, from, Whence::SeekHole) {
        Ok(hole_at) if hole_at.cast_unsigned() > offset => {
            Extent::Data(hole_at.cast_unsigned() - offset)
        }
        _ => all,
    }
}
