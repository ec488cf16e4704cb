//! Images from elsewhere: a folder, a tar archive, an OCI image, a new Debian system.
//!
//! ```text
//! source ──read──► entries ──merge──► tree ──script──► debugfs ──► ext4 ──flatten──► disk.img
//!            └──contents──► stage (numbered files) ───────┘
//! ```
//!
//! What is read is foreign. Its names never become names on the host: contents wait in numbered
//! files, and the tree is plain data until debugfs writes it into the image. That is also why it
//! takes no root: owners, modes, devices and attributes are only numbers here.
//! What has to be decided is in [`tree`] and [`script`], which do no I/O.

mod archive;
mod debian;
mod directory;
mod disk;
mod entry;
mod error;
mod mount_points;
mod oci;
mod script;
mod stage;
mod tar;
mod tree;

use std::{collections::BTreeMap, path::Path};

use sandbox_core::{host::HostError, template::ImportSource};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::{
    entry::Entry,
    error::ImportError,
    oci::OciImage,
    stage::Stage,
    tar::EndMark,
    tree::{Tree, Whiteouts},
};
use crate::{
    image::{FlattenedDisk, IMAGE_FILE},
    setup::Setup,
};

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Imported {
    /// Its disk.
    pub(crate) disk: FlattenedDisk,
    /// The environment that its programs expect; empty where the source says nothing of it.
    pub(crate) env: BTreeMap<String, String>,
}

/// Makes `disk.img` in the folder `making` from a source: a checked ext4, as small as its content,
/// in a sparse file. Nothing else is left there, whatever becomes of it. Works as root and as an
/// ordinary user.
///
/// # Errors
/// [`HostError::BadSource`] for what can't become a root file system, [`HostError::DiskFull`],
/// [`HostError::NotSetUp`] where a program is missing.
pub(crate) async fn import(
    setup: &Setup,
    source: &ImportSource,
    making: &Path,
) -> Result<Imported, HostError> {
    let stop = CancellationToken::new();
    // Work on other threads ends soon after nobody waits for it any more.
    let _stop = stop.clone().drop_guard();
    let named = name_of(source);
    let work = async {
        let stage = Stage::create(making, stop).map_err(ImportError::at("preparing an import"))?;
        let (mut image, stage) = read(source, making, stage).await?;
        mount_points::ensure(&mut image.tree)?;
        let disk = disk::write(setup, image.tree, stage, &making.join(IMAGE_FILE)).await?;
        Ok(Imported {
            disk,
            env: variables(&image.env),
        })
    };
    work.await
        .map_err(|error: ImportError| error.within(&named).into_host(making))
}

/// What an image says of the environment, `NAME=value` each. What is no variable is left out: it
/// could be nobody's.
fn variables(lines: &[String]) -> BTreeMap<String, String> {
    let pairs = lines.iter().filter_map(|line| line.split_once('='));
    pairs
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The source, for messages.
fn name_of(source: &ImportSource) -> String {
    match source {
        ImportSource::Directory { path } | ImportSource::Tar { path } => path.clone(),
        ImportSource::OciLayout { path, .. } => path.clone(),
        ImportSource::OciRegistry { reference, .. } => reference.clone(),
        ImportSource::Debian { .. } => "Debian".to_owned(),
    }
}

async fn read(
    source: &ImportSource,
    making: &Path,
    stage: Stage,
) -> Result<(OciImage, Stage), ImportError> {
    match source {
        ImportSource::Directory { path } => {
            let (folder, except) = (archive::absolute(path)?, making.to_path_buf());
            on_thread(stage, move |stage| {
                plain(directory::read(&folder, &except, stage)?)
            })
            .await
        }
        ImportSource::Tar { path } => {
            let path = archive::absolute(path)?;
            on_thread(stage, move |stage| {
                let archive = archive::decompress(archive::open(&path)?)?;
                plain(tar::read_entries(archive, EndMark::Required, stage)?)
            })
            .await
        }
        ImportSource::OciLayout { path, reference } => {
            let (path, reference) = (archive::absolute(path)?, reference.clone());
            on_thread(stage, move |stage| {
                let layout = if path.is_dir() {
                    oci::Layout::new(&path)
                } else {
                    oci::unpack(archive::decompress(archive::open(&path)?)?, stage)?
                };
                layout.read(reference.as_deref(), stage)
            })
            .await
        }
        ImportSource::OciRegistry {
            reference,
            insecure,
        } => oci::pull(reference, *insecure, stage).await,
        ImportSource::Debian { suite, packages } => {
            let (entries, stage) = debian::read(suite, packages, stage).await?;
            Ok((plain(entries)?, stage))
        }
    }
}

/// One layer, where no name has a special meaning.
fn plain(entries: Vec<Entry>) -> Result<OciImage, ImportError> {
    let mut tree = Tree::default();
    tree.apply(entries, Whiteouts::Literal)
        .map_err(|error| ImportError::bad(error.to_string()))?;
    Ok(OciImage {
        tree,
        env: Vec::new(),
    })
}

/// Reads on a thread that may block.
async fn on_thread(
    mut stage: Stage,
    read: impl FnOnce(&mut Stage) -> Result<OciImage, ImportError> + Send + 'static,
) -> Result<(OciImage, Stage), ImportError> {
    spawn_blocking(move || read(&mut stage).map(|image| (image, stage)))
        .await
        .map_err(|error| ImportError::at("reading the source")(std::io::Error::other(error)))?
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
