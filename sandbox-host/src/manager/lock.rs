//! One process at a time on a data folder.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use sandbox_core::host::HostError;

/// Why a data folder is none.
pub(super) fn unusable(data: &Path, error: &std::io::Error) -> HostError {
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    HostError::NotSetUp {
        missing: format!("the data folder {} can't be used: {error}", data.display()),
        mend: "make it a folder that this user may write to, or name another".to_owned(),
    }
}

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
    /// [`HostError::Unavailable`], with the process that has it, where another one does;
    /// [`HostError::NotSetUp`] where the folder can't be written to.
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
            .map_err(|error| unusable(data, &error))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{HostConfig, HostManager};

    #[tokio::test]
    async fn a_data_folder_that_can_t_be_one_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        let locked = folder.path().join("locked");
        std::fs::create_dir_all(locked.join("lock")).unwrap();
        for data in [file.clone(), file.join("below"), locked] {
            let refused = HostManager::open(HostConfig::new(&data)).await;
            let error = refused.err().unwrap();
            assert!(matches!(error, HostError::NotSetUp { .. }), "{error}");
            let words = error.to_string();
            assert!(words.contains(data.to_str().unwrap()), "{words}");
            assert!(words.contains("or name another"), "{words}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }
}
