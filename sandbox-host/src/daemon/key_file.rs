//! Files that hold a secret, written by a first start and readable by their owner alone.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

const RANDOM_BYTES: usize = 32;
const MODE: u32 = 0o600;
/// The shortest key that is taken from a file that someone wrote themselves, in bytes.
const BYTES_MIN: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file can't be read or written.
    #[error("the key {} can't be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file holds no key.
    #[error(
        "{} holds no key: one line of at least {BYTES_MIN} visible characters; where it \
         is the daemon's own, remove it, and the next start writes a new one",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("no random bytes for a key: {0}")]
    Random(String),
}

/// A file with a key.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    prefix: &'static str,
}

impl KeyFile {
    /// At this path. New keys begin with `prefix`, which tells people what they have found.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, prefix: &'static str) -> Self {
        Self {
            path: path.into(),
            prefix,
        }
    }

    /// Reads the key of a file that is someone else's: who may read it is left as it is.
    ///
    /// # Errors
    /// See [`KeyFileError`]; [`KeyFileError::File`] where there is no file.
    pub fn read(&self) -> Result<String, KeyFileError> {
        let text = fs::read_to_string(&self.path).map_err(|error| self.failed(error))?;
        let key = text.trim();
        if key.len() < BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyFileError::NoKey {
                path: self.path.clone(),
            });
        }
        Ok(key.to_owned())
    }

    /// Reads the key, or makes one where there is no file. One that others could read is closed to
    /// them.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn read_or_make(&self) -> Result<String, KeyFileError> {
        match self.read() {
            Err(KeyFileError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = self.new_key()?;
                self.write(&key).map_err(|error| self.failed(error))?;
                tracing::info!(path = %self.path.display(), "wrote a new key");
                Ok(key)
            }
            Ok(key) => {
                self.close_to_others().map_err(|error| self.failed(error))?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    fn failed(&self, source: io::Error) -> KeyFileError {
        KeyFileError::File {
            path: self.path.clone(),
            source,
        }
    }

    fn new_key(&self) -> Result<String, KeyFileError> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| KeyFileError::Random(error.to_string()))?;
        let mut key = self.prefix.to_owned();
        for byte in random {
            // Writing to a string does not fail.
            let _ = write!(key, "{byte:02x}");
        }
        Ok(key)
    }

    /// The file is there whole or not at all, and never readable by others.
    fn write(&self, key: &str) -> io::Result<()> {
        let part = self.path.with_extension("key.part");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(MODE)
            .open(&part)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(format!("{key}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &self.path)?;
        match self.path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Takes away what group and others may do with the file.
    fn close_to_others(&self) -> io::Result<()> {
        let mode = fs::metadata(&self.path)?.permissions().mode();
        if mode & 0o077 == 0 {
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), "others could read the key");
        fs::set_permissions(&self.path, Permissions::from_mode(MODE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const FILE_NAME: &str = "a.key";

    fn read_or_make(folder: &Path) -> Result<String, KeyFileError> {
        KeyFile::new(folder.join(FILE_NAME), "sbk_").read_or_make()
    }

    #[test]
    fn the_first_start_writes_a_key_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let made = read_or_make(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        let key = fs::read_to_string(&path).unwrap();
        assert!(key.starts_with("sbk_") && key.trim().len() == 68, "{key}");
        assert_eq!(made, key.trim());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read_or_make(folder.path()).unwrap(), made);
    }

    #[test]
    fn a_file_that_others_can_read_is_closed_to_them() {
        let folder = tempfile::tempdir().unwrap();
        read_or_make(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        read_or_make(folder.path()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_without_a_key_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        for bad in [
            "",
            "\n",
            "short",
            "a b c d e f g h i j k l m n o p q r s t u v",
        ] {
            fs::write(&path, bad).unwrap();
            let error = read_or_make(folder.path()).unwrap_err();
            assert!(matches!(error, KeyFileError::NoKey { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_file_that_is_only_read_is_neither_made_nor_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let file = KeyFile::new(&path, "");
        let error = file.read().unwrap_err();
        assert!(matches!(error, KeyFileError::File { .. }), "{error}");
        assert!(!path.exists());
        let key = "a".repeat(BYTES_MIN);
        fs::write(&path, &key).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(file.read().unwrap(), key);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "it is not ours to change");
    }
}
