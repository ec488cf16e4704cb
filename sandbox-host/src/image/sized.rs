//! Versions of an image's disk at other sizes. The published disk is never touched: growing a file
//! system rewrites blocks all over it, and machines lie on it.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
};

use sandbox_core::{host::HostError, size::MIB};
use tokio::task::spawn_blocking;

use super::{
    IMAGE_FILE, ext4,
    store::{ImageStore, StoredImage},
};
use crate::{disk::sparse, durable, fault, setup::Setup, space};

/// Below an image's folder, a folder for each size, by its MiB.
pub(super) const SIZED_FOLDER: &str = "sized";

/// Where tests interrupt it.
pub(super) const STEPS: [&str; 3] = fault::GROWTH;

/// An image's disk at exactly this size, made if it is not there yet. The caller keeps the image
/// from being removed.
pub(super) async fn ensure(
    store: &ImageStore,
    setup: &Setup,
    image: &StoredImage,
    disk_size_mb: u32,
) -> Result<PathBuf, HostError> {
    let needed_mb = image.manifest.size.disk_size_mb;
    if disk_size_mb < needed_mb {
        return Err(HostError::DiskTooSmall {
            asked_mb: disk_size_mb,
            needed_mb,
        });
    }
    make(store, setup, image, disk_size_mb)
        .await
        .map_err(|error| space::or_internal(store.root(), "giving an image its size", &error))
}

async fn make(
    store: &ImageStore,
    setup: &Setup,
    image: &StoredImage,
    disk_size_mb: u32,
) -> io::Result<PathBuf> {
    let published = image.disk();
    let bytes = u64::from(disk_size_mb) * MIB;
    if fs::metadata(&published)?.len() == bytes {
        return Ok(published);
    }
    let parent = image.folder.join(SIZED_FOLDER);
    let place = parent.join(disk_size_mb.to_string());
    let version = place.join(IMAGE_FILE);
    if version.is_file() {
        return Ok(version);
    }
    // Beside the images, where the next start looks for what was cut off.
    let making = tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(store.root())?;
    let disk = making.path().join(IMAGE_FILE);
    let copy = disk.clone();
    spawn_blocking(move || {
        sparse::copy(&published, &copy)?;
        File::options().write(true).open(&copy)?.set_len(bytes)
    })
    .await
    .map_err(io::Error::other)??;
    fault::point(STEPS[0])?;
    ext4::grow(setup, &disk)
        .await
        .map_err(|error| space::told_by_helper(making.path(), error))?;
    fault::point(STEPS[1])?;
    spawn_blocking(move || {
        File::open(&disk)?.sync_all()?;
        durable::sync_folder(making.path())?;
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(image) = parent.parent() {
            durable::sync_folder(image)?;
        }
        fault::point(STEPS[2])?;
        durable::publish_folder(making.path(), &place)?;
        // Not there any more, under this name.
        let _ = making.keep();
        Ok(())
    })
    .await
    .map_err(io::Error::other)??;
    Ok(version)
}
