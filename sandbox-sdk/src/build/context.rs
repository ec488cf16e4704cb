//! Where a build's files come from.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sandbox_core::{api::Api, build::CONTEXT_MAX_BYTES, error::Error};

use crate::Result;

#[derive(Debug, Clone)]
pub(super) enum ContextSource {
    Archive(Bytes),
    Tar(PathBuf),
    #[cfg(feature = "build-context")]
    Folder(PathBuf),
    Uploaded(String),
}

impl ContextSource {
    /// Uploads it, where it is not there already, and gives its name.
    pub(super) async fn uploaded(self, api: &dyn Api) -> Result<String> {
        let archive = match self {
            Self::Uploaded(name) => return Ok(name),
            Self::Archive(archive) => archive,
            Self::Tar(path) => read(&path).await?,
            #[cfg(feature = "build-context")]
            Self::Folder(folder) => super::pack::pack(folder).await?,
        };
        if archive.len() > CONTEXT_MAX_BYTES {
            return Err(too_large());
        }
        api.upload_context(archive).await
    }
}

async fn read(path: &Path) -> Result<Bytes> {
    let bad = |problem: &dyn std::fmt::Display| {
        Error::InvalidRequest(format!("the context {}: {problem}", path.display()))
    };
    let length = tokio::fs::metadata(path).await;
    let length = length.map_err(|error| bad(&error))?.len();
    if length > CONTEXT_MAX_BYTES as u64 {
        return Err(too_large());
    }
    let archive = tokio::fs::read(path).await;
    Ok(archive.map_err(|error| bad(&error))?.into())
}

pub(super) fn too_large() -> Error {
    Error::InvalidRequest(format!(
        "the context is larger than {} MiB; leave out what is not copied, with a .dockerignore",
        CONTEXT_MAX_BYTES / (1024 * 1024)
    ))
}
