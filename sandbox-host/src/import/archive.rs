//! Opening what an administrator named, and taking off its compression.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::error::ImportError;

/// The most memory that a zstd frame may ask for, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const BUFFER_BYTES: usize = 128 * 1024;

/// A path that an administrator gave.
pub(super) fn absolute(path: &str) -> Result<PathBuf, ImportError> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(ImportError::bad(format!(
            "{} is no absolute path on the host",
            path.display()
        )))
    }
}

/// Opens a regular file.
pub(super) fn open(path: &Path) -> Result<File, ImportError> {
    let cannot = |error: io::Error| ImportError::bad(format!("can't be opened: {error}"));
    let is_file = std::fs::metadata(path).map_err(cannot)?.is_file();
    if !is_file {
        return Err(ImportError::bad("it is no file"));
    }
    File::open(path).map_err(cannot)
}

/// Takes off gzip or zstd, told by the first bytes; anything else is given as it is.
///
/// # Errors
/// For compressions that are known and can't be taken off.
pub(super) fn decompress<'a>(
    mut reader: impl Read + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, ImportError> {
    let unreadable = |error: io::Error| ImportError::bad(format!("can't be read: {error}"));
    let mut magic = Vec::new();
    (&mut reader)
        .take(6)
        .read_to_end(&mut magic)
        .map_err(unreadable)?;
    let whole = Cursor::new(magic.clone()).chain(reader);
    let unsupported = |name: &str| {
        Err(ImportError::bad(format!(
            "it is compressed with {name}; gzip, zstd and none are understood"
        )))
    };
    match magic.as_slice() {
        [0x1F, 0x8B, ..] => Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            BUFFER_BYTES,
            whole,
        )))),
        // The second form is a frame to be skipped, which parallel compressors begin with.
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => {
            let mut decoder =
                zstd::stream::read::Decoder::new(whole).map_err(ImportError::at("unpacking"))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(ImportError::at("unpacking"))?;
            Ok(Box::new(decoder))
        }
        [0xFD, b'7', b'z', b'X', b'Z', ..] => unsupported("xz"),
        [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
        [b'P', b'K', 3, 4, ..] => unsupported("zip"),
        _ => Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, whole))),
    }
}
