//! What is saved of a machine, in its folder: memory and devices as of one moment. The disk is saved
//! where it lies.
//!
//! ```text
//! .memory.delta, .device.state   on their way, or set aside for a snapshot
//! .aside-UUID/                   a fork of the disk, set aside for a snapshot
//! memory.delta, device.state     a paused machine's
//! ```

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sandbox_core::{host::HostError, size::MIB};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Machine, internal};
use crate::{
    disk::Disk,
    durable, fault,
    memory::{self, Mapping, PAGE_BYTES},
    space,
};

const MEMORY: &str = "memory.delta";
const DEVICES: &str = "device.state";
const NEW_MEMORY: &str = ".memory.delta";
const NEW_DEVICES: &str = ".device.state";
/// With the machine's name behind it: some backends make devices that are called as the folder is.
const ASIDE_PREFIX: &str = ".aside-";

/// The names of what is saved in a machine's folder.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    folder: PathBuf,
}

impl Saved {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        let folder = folder.to_path_buf();
        Self { folder }
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.folder.join(MEMORY)
    }

    pub(crate) fn devices(&self) -> PathBuf {
        self.folder.join(DEVICES)
    }

    pub(crate) fn new_memory(&self) -> PathBuf {
        self.folder.join(NEW_MEMORY)
    }

    pub(crate) fn new_devices(&self) -> PathBuf {
        self.folder.join(NEW_DEVICES)
    }

    /// The folder of a disk that is set aside.
    fn aside(&self) -> PathBuf {
        let machine = self.folder.file_name().unwrap_or_default();
        let name = format!("{ASIDE_PREFIX}{}", machine.to_string_lossy());
        self.folder.join(name)
    }

    /// Sets a fork of the machine's disk aside, which nobody writes to meanwhile. Blocks.
    pub(crate) fn fork_disk(&self) -> io::Result<Disk> {
        let disk = Disk::find(&self.folder)?;
        // What another attempt left would be in the way.
        self.remove_aside()?;
        fs::create_dir(self.aside())?;
        Ok(disk.fork(&self.aside())?)
    }

    /// Whether both are there.
    pub(crate) fn is_whole(&self) -> bool {
        self.memory().is_file() && self.devices().is_file()
    }

    /// Gives what was just saved its final names. It is on disk already, and the names come there
    /// with the manifest that counts on them.
    pub(crate) fn keep(&self) -> io::Result<()> {
        fs::rename(self.new_devices(), self.devices())?;
        fs::rename(self.new_memory(), self.memory())
    }

    /// Removes what was on its way.
    pub(crate) fn remove_new(&self) -> io::Result<()> {
        durable::remove_file(&self.new_memory())?;
        durable::remove_file(&self.new_devices())?;
        self.remove_aside()
    }

    fn remove_aside(&self) -> io::Result<()> {
        Disk::destroy_in(&self.aside())?;
        durable::remove_folder(&self.aside())
    }

    /// Removes all of it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.remove_new()?;
        durable::remove_file(&self.memory())?;
        durable::remove_file(&self.devices())
    }
}

/// What a machine is saved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveFor {
    /// Its process ends: what is saved must be on disk by then.
    Pause,
    /// It goes on, and should soon: what is saved is copied at once, and a crash removes it.
    Snapshot,
}

/// Fails once the work is called off.
pub(crate) fn called_off(cancel: &CancellationToken) -> io::Result<()> {
    if cancel.is_cancelled() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

impl Machine {
    /// Saves a machine at rest under the names of what is on its way, and for a pause brings that to
    /// disk. What is left after a failure is the caller's to remove.
    pub(crate) async fn save(
        &self,
        save_for: SaveFor,
        cancel: CancellationToken,
    ) -> Result<(), HostError> {
        let saved = Saved::in_folder(&self.folder);
        // What another attempt left would be in the way.
        saved
            .remove_new()
            .map_err(internal(&self.folder, "saving"))?;
        self.save_devices(NEW_DEVICES).await?;
        let (pid, ram_file, folder) = (self.pid(), self.ram_file.clone(), self.folder.clone());
        spawn_blocking(move || {
            let step = |error| internal(&folder, "saving the memory")(error);
            fault::point("devices saved").map_err(step)?;
            let mapping = Mapping::find(pid, &ram_file).map_err(step)?;
            let dirty = mapping.dirty().map_err(step)?;
            let pages: u64 = dirty.iter().map(|extent| extent.count).sum();
            space::require(&folder, space::SPARE_MB + pages * PAGE_BYTES / MIB + 1)?;
            let image = File::open(&ram_file).map_err(step)?;
            let memory = memory::save(&mapping, &image, &dirty, &saved.new_memory(), &|| {
                called_off(&cancel)
            })
            .map_err(step)?;
            fault::point("memory saved").map_err(step)?;
            match save_for {
                SaveFor::Snapshot => Ok(()),
                SaveFor::Pause => memory
                    .sync_data()
                    .and_then(|()| File::open(saved.new_devices())?.sync_data())
                    .map_err(step),
            }
        })
        .await
        .unwrap_or_else(|error| Err(HostError::Internal(format!("saving the memory: {error}"))))
    }
}
