//! The administrator's key: a file that the first start writes.

use std::path::Path;

use sandbox_host::daemon::{KeyFile, KeyFileError};

/// The file in the data folder.
const FILE_NAME: &str = "admin.key";
const PREFIX: &str = "sbk_";

/// Reads the key of a data folder, or makes one where there is none.
pub(crate) fn read_or_make(data_dir: &Path) -> Result<String, KeyFileError> {
    KeyFile::new(data_dir.join(FILE_NAME), PREFIX).read_or_make()
}
