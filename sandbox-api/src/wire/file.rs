//! Files on the wire.

use chrono::{DateTime, Utc};
use sandbox_core::file::{FileKind, FileStat};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// What a path names.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe.
    Other,
}

/// What is known of a path. Symbolic links are described and not followed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileInfo {
    /// The last part of the path.
    name: String,
    /// What it is.
    #[serde(rename = "type")]
    kind: FileType,
    /// What a symbolic link holds; null for everything else.
    #[schema(required = true)]
    target: Option<String>,
    /// Length in bytes.
    size_bytes: u64,
    /// Bytes that it takes on the sandbox's disk; less than its length where it is sparse.
    physical_bytes: u64,
    /// Permission bits in octal.
    #[schema(example = "0644")]
    mode: String,
    /// Owner.
    uid: u32,
    /// Group.
    gid: u32,
    /// Last change of content.
    modified_at: DateTime<Utc>,
}

impl From<FileStat> for FileInfo {
    fn from(stat: FileStat) -> Self {
        let (kind, target) = match stat.kind {
            FileKind::File => (FileType::File, None),
            FileKind::Directory => (FileType::Directory, None),
            FileKind::Symlink { target } => (FileType::Symlink, Some(target)),
            FileKind::Other => (FileType::Other, None),
        };
        Self {
            name: stat.name,
            kind,
            target,
            size_bytes: stat.size,
            physical_bytes: stat.physical_bytes,
            mode: format!("{:04o}", stat.mode & 0o7777),
            uid: stat.uid,
            gid: stat.gid,
            modified_at: DateTime::from_timestamp_millis(stat.modified_ms)
                .unwrap_or(DateTime::UNIX_EPOCH),
        }
    }
}

/// Reads permission bits, such as `0644` or `755`.
pub(crate) fn mode(text: &str) -> Result<u32, ApiError> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| {
            ApiError::invalid_field("mode", "it must be octal permission bits, such as 0644")
        })
}

/// A cursor into a directory: behind this name, in hexadecimal.
pub(crate) fn cursor(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::new(), |mut cursor, byte| {
        // Writing to a string does not fail.
        let _ = write!(cursor, "{byte:02x}");
        cursor
    })
}

/// The name that a cursor stands behind.
pub(crate) fn after(cursor: &str) -> Result<String, ApiError> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = cursor.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    // Names are text as lists show it, too.
    let name = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    name.ok_or_else(|| {
        ApiError::invalid_field("cursor", "it must be a `next_cursor` that a list gave")
    })
}

/// A directory to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MkdirBody {
    /// Its absolute path.
    #[schema(example = "/srv/data", pattern = "^/[^\\x00]*$")]
    pub(crate) path: String,
    /// Its permission bits in octal; `0755` where absent.
    #[schema(pattern = "^[0-7]{1,4}$")]
    pub(crate) mode: Option<String>,
    /// Makes those above it too, and takes an existing one; true where absent.
    pub(crate) parents: Option<bool>,
}

/// What to move where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveBody {
    /// The path that is there.
    #[schema(pattern = "^/[^\\x00]*$")]
    pub(crate) from: String,
    /// The path that it shall have. A file that is there is replaced.
    #[schema(pattern = "^/[^\\x00]*$")]
    pub(crate) to: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0644"), Ok(0o644));
        assert_eq!(mode("755"), Ok(0o755));
        for bad in ["", "999", "17777", "-1", "+7", "0x1ff", "rw"] {
            assert!(mode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cursors_come_back_as_the_names_they_were() {
        for name in ["a", "ä b/c", ""] {
            assert_eq!(after(&cursor(name)).as_deref(), Ok(name));
        }
        for bad in ["%%", "6", "zz"] {
            assert!(after(bad).is_err(), "{bad}");
        }
    }
}
