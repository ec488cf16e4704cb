//! Where files' contents wait until the image is written: numbered files in one folder. No name
//! from an archive ever becomes a name on the host, so that there is nothing that one could lead to.
//! It also sees to it that an import stops when it is told, fills no disk and bounds its memory.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use sandbox_core::size::MIB;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    entry::{Content, Entry},
    error::ImportError,
};
use crate::space;

const BLOCK_BYTES: usize = 4096;
const BUFFER_BYTES: usize = 64 * 1024;
/// How much is written between two looks at the free space.
const CHECK_BYTES: u64 = 16 * MIB;
/// The most memory for names and attributes: about two million files.
const HELD_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The folder, gone when this is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    folder: TempDir,
    next: u64,
    unchecked_bytes: u64,
    held_bytes: usize,
    stop: CancellationToken,
}

impl Stage {
    /// A new one inside `parent`. Work on it ends with [`ImportError::Stopped`] once `stop` says so.
    pub(super) fn create(parent: &Path, stop: CancellationToken) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(".import-")
            .tempdir_in(parent)?;
        Ok(Self {
            folder,
            next: 0,
            unchecked_bytes: 0,
            held_bytes: 0,
            stop,
        })
    }

    /// For what else has to be kept until the image is written.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn path(&self, content: Content) -> PathBuf {
        self.numbered(content.number)
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.folder.path().join(format!("c{number}"))
    }

    /// Whether to go on.
    pub(super) fn check_stop(&self) -> Result<(), ImportError> {
        if self.stop.is_cancelled() {
            return Err(ImportError::Stopped);
        }
        Ok(())
    }

    /// Counts an entry that is kept in memory.
    pub(super) fn hold(&mut self, entry: &Entry) -> Result<(), ImportError> {
        self.check_stop()?;
        self.held_bytes += entry.held_bytes();
        if self.held_bytes > HELD_BYTES_MAX {
            return Err(ImportError::bad("it holds too many files"));
        }
        Ok(())
    }

    /// Begins a file that is written in pieces.
    pub(super) fn begin(&mut self) -> Result<Staged<'_>, ImportError> {
        self.check_stop()?;
        let number = self.next;
        let file = File::create_new(self.numbered(number))
            .map_err(ImportError::at("keeping a file's content"))?;
        self.next += 1;
        Ok(Staged {
            stage: self,
            file,
            number,
            data_bytes: 0,
        })
    }

    fn wrote(&mut self, bytes: usize) -> Result<(), ImportError> {
        self.check_stop()?;
        self.unchecked_bytes += bytes as u64;
        if self.unchecked_bytes >= CHECK_BYTES {
            self.unchecked_bytes = 0;
            // Running guests need room for their writes.
            space::require(self.folder.path(), space::SPARE_MB)?;
        }
        Ok(())
    }
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    stage: &'a mut Stage,
    file: File,
    number: u64,
    data_bytes: u64,
}

impl Staged<'_> {
    /// Writes all that `reader` gives at `offset`, and returns where it ended. Zeros become holes.
    pub(super) fn fill(
        &mut self,
        mut offset: u64,
        reader: &mut dyn Read,
        read_error: &dyn Fn(io::Error) -> ImportError,
    ) -> Result<u64, ImportError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let filled = read_full(reader, &mut buffer).map_err(read_error)?;
            self.put(offset, &buffer[..filled])?;
            offset += filled as u64;
            if filled < buffer.len() {
                return Ok(offset);
            }
        }
    }

    fn put(&mut self, offset: u64, data: &[u8]) -> Result<(), ImportError> {
        for (index, block) in data.chunks(BLOCK_BYTES).enumerate() {
            if block.iter().all(|&byte| byte == 0) {
                continue;
            }
            self.file
                .write_all_at(block, offset + (index * BLOCK_BYTES) as u64)
                .map_err(ImportError::at("keeping a file's content"))?;
            self.data_bytes += BLOCK_BYTES as u64;
        }
        self.stage.wrote(data.len())
    }

    /// Ends it at this length.
    pub(super) fn finish(self, size_bytes: u64) -> Result<Content, ImportError> {
        self.file
            .set_len(size_bytes)
            .map_err(ImportError::at("keeping a file's content"))?;
        Ok(Content {
            number: self.number,
            size_bytes,
            data_bytes: self.data_bytes,
        })
    }
}

/// Fills the buffer, but for the end.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(stage: &mut Stage, reader: &mut dyn Read) -> Result<Content, ImportError> {
        let mut file = stage.begin()?;
        let end = file.fill(0, reader, &internal)?;
        file.finish(end)
    }

    fn internal(error: io::Error) -> ImportError {
        ImportError::at("reading")(error)
    }

    #[test]
    fn r19_zeros_become_holes_and_the_content_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut stage = Stage::create(folder.path(), CancellationToken::new()).unwrap();
        let mut data = vec![0; 3 * 1024 * 1024 + 17];
        data[1024 * 1024 + 5] = 7;
        let content = store(&mut stage, &mut data.as_slice()).unwrap();
        assert_eq!(content.size_bytes, data.len() as u64);
        assert_eq!(content.data_bytes, BLOCK_BYTES as u64);
        assert_eq!(std::fs::read(stage.path(content)).unwrap(), data);
        let blocks =
            std::os::unix::fs::MetadataExt::blocks(&stage.path(content).metadata().unwrap());
        assert!(blocks * 512 <= 16 * 1024, "{blocks} blocks");
        drop(stage);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stop_ends_the_reading_of_an_endless_source() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let mut stage = Stage::create(folder.path(), stop.clone()).unwrap();
        struct Endless(CancellationToken, u32);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 += 1;
                if self.1 == 5 {
                    self.0.cancel();
                }
                Ok(buffer.len())
            }
        }
        let error = store(&mut stage, &mut Endless(stop, 0)).unwrap_err();
        assert!(matches!(error, ImportError::Stopped), "{error}");
    }
}
