//! OCI images: an index names manifests for platforms, a manifest names a configuration and layers,
//! each by the digest of its content. Nothing is taken whose digest is another.
//!
//! ```text
//! index ──► index* ──► manifest ──► configuration (architecture, environment)
//!                         └───────► layers, lowest first ──► tree
//! ```

mod digest;
mod document;
mod layout;
mod registry;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

pub(super) use layout::{Layout, unpack};
pub(super) use registry::pull;

use self::{
    digest::HashingReader,
    document::{Config, Descriptor, Manifest},
};
use super::{
    archive,
    error::ImportError,
    stage::Stage,
    tar::{EndMark, read_entries},
    tree::{Tree, Whiteouts},
};

/// An image's file system, and the environment that its programs expect.
#[derive(Debug)]
pub(super) struct OciImage {
    pub(super) tree: Tree,
    /// `NAME=value` each.
    pub(super) env: Vec<String>,
}

/// Which image of an index is for this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    os: &'static str,
    architecture: &'static str,
}

impl Target {
    /// This machine's guests.
    pub(super) const fn here() -> Self {
        Self {
            os: "linux",
            architecture: if cfg!(target_arch = "aarch64") {
                "arm64"
            } else {
                "amd64"
            },
        }
    }
}

/// Lays an image's layers on one another, contents into the stage.
fn assemble(
    layout: &Layout,
    manifest: &Manifest,
    stage: &mut Stage,
) -> Result<OciImage, ImportError> {
    let config: Config = layout.json(&manifest.config)?;
    config.check(Target::here())?;
    let mut tree = Tree::default();
    for (number, layer) in manifest.layers.iter().enumerate() {
        let what = format!("layer {} ({})", number + 1, layer.digest);
        let entries = read_layer(&layout.blob(&layer.digest), layer, stage)
            .map_err(|error| error.within(&what))?;
        tree.apply(entries, Whiteouts::Honoured)
            .map_err(|error| ImportError::bad(error.to_string()).within(&what))?;
    }
    Ok(OciImage {
        tree,
        env: config.config.unwrap_or_default().env.unwrap_or_default(),
    })
}

fn read_layer(
    path: &Path,
    layer: &Descriptor,
    stage: &mut Stage,
) -> Result<Vec<super::entry::Entry>, ImportError> {
    layer.check_is_layer()?;
    let file = open_blob(path)?;
    let mut hashed = HashingReader::new(file, &layer.digest);
    let entries = {
        let plain = archive::decompress(&mut hashed)?;
        // Whether it is whole, the digest tells.
        read_entries(plain, EndMark::Optional, stage)
    };
    // A wrong digest explains whatever else is wrong.
    let unreadable = |error: io::Error| ImportError::bad(format!("can't be read: {error}"));
    io::copy(&mut hashed, &mut io::sink()).map_err(unreadable)?;
    hashed.check(layer.size)?;
    entries
}

fn open_blob(path: &Path) -> Result<File, ImportError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ImportError::bad("it is not in the image"),
        _ => ImportError::bad(format!("it can't be read: {error}")),
    })
}

/// Reads a document's bytes, whose digest is right.
fn read_document(path: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, ImportError> {
    let what = descriptor.digest.to_string();
    let read = || {
        let mut hashed = HashingReader::new(open_blob(path)?, &descriptor.digest);
        let mut bytes = Vec::new();
        (&mut hashed)
            .take(document::BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| ImportError::bad(format!("it can't be read: {error}")))?;
        if bytes.len() as u64 > document::BYTES_MAX {
            return Err(ImportError::bad("it is too large for a manifest"));
        }
        hashed.check(descriptor.size)?;
        Ok(bytes)
    };
    read().map_err(|error: ImportError| error.within(&what))
}

#[cfg(test)]
mod tests;
