//! The administrator's key: a file that the first start writes.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The file in the data folder.
pub(crate) const FILE_NAME: &str = "admin.key";
const PREFIX: &str = "sbk_";
const RANDOM_BYTES: usize = 32;
const MODE: u32 = 0o600;
/// The shortest key that is taken from a file that someone wrote themselves, in bytes.
const BYTES_MIN: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// The file can't be read or written.
    #[error("the administrator's key {} can't be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file holds no key.
    #[error(
        "{} holds no key: one line of at least {BYTES_MIN} visible characters; remove the file, \
         and the next start writes a new one",
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

/// Reads the key of a data folder, or makes one where there is none.
///
/// # Errors
/// See [`AdminKeyError`].
pub(crate) fn read_or_make(data_dir: &Path) -> Result<String, AdminKeyError> {
    let path = data_dir.join(FILE_NAME);
    let failed = |source| AdminKeyError::File {
        path: path.clone(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) => {
            close_to_others(&path).map_err(failed)?;
            let key = text.trim();
            if key.len() < BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(AdminKeyError::NoKey { path });
            }
            Ok(key.to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = new_key()?;
            write(&path, &key).map_err(failed)?;
            tracing::info!(path = %path.display(), "wrote the administrator's key");
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

fn new_key() -> Result<String, AdminKeyError> {
    use std::fmt::Write;
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| AdminKeyError::Random(error.to_string()))?;
    let mut key = PREFIX.to_owned();
    for byte in random {
        // Writing to a string does not fail.
        let _ = write!(key, "{byte:02x}");
    }
    Ok(key)
}

/// The file is there whole or not at all, and never readable by others.
fn write(path: &Path, key: &str) -> io::Result<()> {
    let part = path.with_extension("key.part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(&part)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Takes away what group and others may do with the file.
fn close_to_others(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "others could read the administrator's key");
    fs::set_permissions(path, Permissions::from_mode(MODE))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(matches!(error, AdminKeyError::NoKey { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
