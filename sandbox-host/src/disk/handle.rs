//! One machine's disk, whichever backend made it.

use std::{
    io,
    path::{Path, PathBuf},
};

use sandbox_core::disk::DiskBackend;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{
    Base, DiskError, Disks, OpenDisk,
    dm_snapshot::DmSnapshot,
    manifest::{self, Manifest},
    qcow2::{self, Qcow2},
    reflink::Reflink,
};

/// A disk by its folder. Holds nothing open.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    disks: &'static dyn Disks,
    folder: PathBuf,
}

/// What makes a backend's disks.
pub(super) fn disks_of(backend: DiskBackend) -> &'static dyn Disks {
    #[cfg(feature = "testkit")]
    if backend == DiskBackend::DmSnapshot && super::double::in_place() {
        return &super::double::LoopDisks;
    }
    match backend {
        DiskBackend::Reflink => &Reflink,
        DiskBackend::Qcow2 => &Qcow2,
        DiskBackend::DmSnapshot => &DmSnapshot,
    }
}

impl Disk {
    /// See [`Disks::create`].
    pub(crate) fn create(
        backend: DiskBackend,
        folder: &Path,
        base: &Base,
        size_bytes: u64,
    ) -> Result<Self, DiskError> {
        let disks = disks_of(backend);
        disks.create(folder, base, size_bytes)?;
        let folder = folder.to_path_buf();
        Ok(Self { disks, folder })
    }

    /// The disk that is in a folder.
    ///
    /// # Errors
    /// [`DiskError::NoDisk`] where there is none.
    pub(crate) fn find(folder: &Path) -> Result<Self, DiskError> {
        let disks = disks_of(manifest::read(folder)?.backend);
        let folder = folder.to_path_buf();
        Ok(Self { disks, folder })
    }

    /// Writes down an overlay that was made before disks had manifests, if a folder has one.
    pub(crate) fn note_overlay(
        folder: &Path,
        base: Base,
        size_bytes: u64,
    ) -> Result<(), DiskError> {
        if manifest::exists(folder) || !qcow2::exists(folder) {
            return Ok(());
        }
        let backend = DiskBackend::Qcow2;
        let manifest = Manifest {
            backend,
            base,
            size_bytes,
        };
        manifest::write(folder, &manifest)
    }

    /// [`create`](Self::create) and [`open`](Self::open), on another thread. Where nobody waits for
    /// it any more, the disk is destroyed behind it: whoever removes its folder meanwhile can't see
    /// what is about to be made.
    pub(crate) async fn create_open(
        backend: DiskBackend,
        folder: &Path,
        base: &Base,
        size_bytes: u64,
    ) -> io::Result<OpenDisk> {
        let (folder, base) = (folder.to_path_buf(), base.clone());
        let make = move || Self::create(backend, &folder, &base, size_bytes);
        in_background(make, |disk| disk.disks.destroy(&disk.folder)).await
    }

    /// [`open`](Self::open), on another thread. Where nobody waits for it any more, the disk is closed
    /// behind it.
    pub(crate) async fn open_in_background(&self) -> io::Result<OpenDisk> {
        let disk = self.clone();
        in_background(move || Ok(disk), Self::close).await
    }

    /// See [`Disks::open`].
    pub(crate) fn open(&self) -> Result<OpenDisk, DiskError> {
        self.disks.open(&self.folder)
    }

    /// See [`Disks::close`].
    pub(crate) fn close(&self) -> Result<(), DiskError> {
        self.disks.close(&self.folder)
    }

    /// See [`Disks::fork`].
    pub(crate) fn fork(&self, to: &Path) -> Result<Self, DiskError> {
        self.disks.fork(&self.folder, to)?;
        Ok(Self {
            disks: self.disks,
            folder: to.to_path_buf(),
        })
    }

    /// See [`Disks::fork_bytes`].
    pub(crate) fn fork_bytes(&self) -> Result<u64, DiskError> {
        self.disks.fork_bytes(&self.folder)
    }

    /// Closes the disk of a folder, if it has one.
    pub(crate) fn close_in(folder: &Path) -> Result<(), DiskError> {
        match Self::find(folder) {
            Ok(disk) => disk.close(),
            Err(DiskError::NoDisk(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives up the disk of a folder, if it has one: what it holds beside its files, and those.
    pub(crate) fn destroy_in(folder: &Path) -> Result<(), DiskError> {
        match Self::find(folder) {
            Ok(disk) => disk.disks.destroy(folder),
            // Nothing was ever opened.
            Err(DiskError::NoDisk(_)) => Ok(()),
            // Whose it is can't be told any more.
            Err(_) => DiskBackend::ALL
                .into_iter()
                .try_for_each(|backend| disks_of(backend).destroy(folder)),
        }
    }
}

async fn in_background(
    make: impl FnOnce() -> Result<Disk, DiskError> + Send + 'static,
    give_up: fn(&Disk) -> Result<(), DiskError>,
) -> io::Result<OpenDisk> {
    let nobody_waits = CancellationToken::new();
    let _until_dropped = nobody_waits.clone().drop_guard();
    let work = move || {
        let disk = make()?;
        let open = disk.open();
        // From here on it is there for all to see.
        if nobody_waits.is_cancelled() {
            give_up(&disk)?;
        }
        open
    };
    let opened = spawn_blocking(work).await.map_err(io::Error::other)?;
    Ok(opened?)
}
