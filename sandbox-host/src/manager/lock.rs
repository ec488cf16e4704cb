//! One process at a time on a data folder.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use sandbox_core::host::HostError;

/// The right to use a data folder, which one process at a time has. The kernel drops it with the
/// process, however that ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes it.
    ///
    /// # Errors
    /// [`HostError::Unavailable`], with the process that has it, where another one does.
    pub fn take(data: &Path) -> Result<Self, HostError> {
        let internal = |error: std::io::Error| {
            HostError::Internal(format!("locking the data folder: {error}"))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(data.join("lock"))
            .map_err(internal)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(HostError::Unavailable(format!(
                    "the data folder {} is in use by another process (pid {}); end that one or \
                     choose another folder",
                    data.display(),
                    holder.trim()
                )));
            }
            Err(error) => return Err(internal(error.into())),
        }
        file.set_len(0).map_err(internal)?;
        // A full disk must not keep a host from starting: the number is for people alone.
        let _ = write!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}
