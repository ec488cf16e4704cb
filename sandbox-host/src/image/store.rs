//! The images that templates name by ID: disks, and snapshots of disk and memory.
//!
//! ```text
//! begin ──► .making-… ──publish──► images/UUID ──mark_deleting──► (no new users) ──remove──► gone
//!               │ dropped, buried meanwhile, or cut off: removed at the next start
//!               ▼
//!             gone
//! ```
//!
//! A published image never changes: machines map its files and lay their disks on them. What is
//! added beside it are versions of its disk at other sizes (`sized`) and the mark that it is to go.
//! Nothing here knows names, teams or machines; who lies on an image is the manager's to count.
//!
//! ```text
//! images/UUID/manifest.json     written last
//! images/UUID/disk.img          raw and sparse
//! images/UUID/memory            of a snapshot: the guest's RAM,
//! images/UUID/device.state      and its devices
//! images/UUID/sized/MB/disk.img the disk at another size
//! images/UUID/deleting          it goes with its last user
//! ```

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sandbox_core::{host::HostImage, id::TemplateId, size::MachineSize, template::TemplateKind};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::{IMAGE_FILE, MEMORY_FILE, STATE_FILE, manifest::MANIFEST_FILE};
use crate::{disk::sparse, durable, emulator::Emulator};

/// Beside the manifest of an image that is to go.
const DELETING_FILE: &str = "deleting";

/// What an image holds beside its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Content {
    /// Nothing: guests boot from it.
    Image,
    /// Memory, which only a host of this emulator can go on from.
    Snapshot { platform: Emulator },
}

impl Content {
    pub(crate) fn kind(&self) -> TemplateKind {
        match self {
            Self::Image => TemplateKind::Image,
            Self::Snapshot { .. } => TemplateKind::Snapshot,
        }
    }
}

/// What an image's manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageManifest {
    pub(crate) id: TemplateId,
    pub(crate) content: Content,
    /// A snapshot's size. Of an image, `disk_size_mb` is the least disk that its content fits, and
    /// the rest is what it was taken from, or the default.
    pub(crate) size: MachineSize,
    /// Physical bytes of its disk.
    pub(crate) disk_bytes: u64,
    /// Physical bytes of its memory; 0 for an image.
    pub(crate) memory_bytes: u64,
    /// What every process in its sandboxes finds in its environment, unless the sandbox has another
    /// value of it.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

/// A published image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredImage {
    pub(crate) manifest: ImageManifest,
    pub(crate) folder: PathBuf,
    /// No new user may come to it.
    pub(crate) deleting: bool,
}

impl StoredImage {
    /// Its disk, as published.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join(IMAGE_FILE)
    }

    /// What the host reports of it, `users` sandboxes lying on it.
    pub(crate) fn report(&self, users: u32) -> HostImage {
        HostImage {
            id: self.manifest.id,
            kind: self.manifest.content.kind(),
            size: self.manifest.size,
            disk_bytes: self.manifest.disk_bytes,
            memory_bytes: self.manifest.memory_bytes,
            users,
            deleting: self.deleting,
        }
    }
}

/// All images of one data folder, but for those that the host makes by itself.
#[derive(Debug)]
pub(crate) struct ImageStore {
    root: PathBuf,
    /// How many hold each image that is about to be used, see [`Lease`].
    leases: Mutex<HashMap<TemplateId, usize>>,
    buried: Arc<Mutex<Buried>>,
}

/// Images that were ordered to go, the last ones: who still makes one does so for nobody. Held where
/// an image becomes visible.
type Buried = VecDeque<TemplateId>;

/// Making an image takes minutes; so many are not deleted meanwhile.
const BURIED_MAX: usize = 1000;

impl ImageStore {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self {
            root,
            leases: Mutex::default(),
            buried: Arc::default(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn place(&self, id: TemplateId) -> PathBuf {
        self.root.join(id.uuid().hyphenated().to_string())
    }

    /// Begins to make an image. What is to become of it goes into the [`Making`]'s folder.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when an image of this ID is there, be it on its way out, or
    /// was.
    pub(crate) fn begin(&self, id: TemplateId) -> io::Result<Making> {
        let place = self.place(id);
        if place.try_exists()? || self.buried.lock().contains(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let folder = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&self.root)?;
        let buried = Arc::clone(&self.buried);
        Ok(Making {
            id,
            folder,
            place,
            buried,
        })
    }

    /// Has no image of this ID become visible any more. One that is there stays.
    pub(crate) fn bury(&self, id: TemplateId) {
        let mut buried = self.buried.lock();
        if buried.contains(&id) {
            return;
        }
        if buried.len() >= BURIED_MAX {
            buried.pop_front();
        }
        buried.push_back(id);
    }

    /// The image of this ID, also one that is to go.
    ///
    /// # Errors
    /// When it is there and can't be read.
    pub(crate) fn find(&self, id: TemplateId) -> io::Result<Option<StoredImage>> {
        read(&self.place(id))
    }

    /// All images, by ID. One that can't be read is left out, and told of in the log.
    pub(crate) fn list(&self) -> io::Result<Vec<StoredImage>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_image = name
                .to_str()
                .is_some_and(|name| name.parse::<uuid::Uuid>().is_ok());
            if !is_image {
                continue;
            }
            match read(&entry.path()) {
                Ok(image) => found.extend(image),
                Err(error) => {
                    let folder = entry.path();
                    tracing::error!(folder = %folder.display(), %error, "an image can't be read");
                }
            }
        }
        found.sort_by_key(|image| image.manifest.id);
        Ok(found)
    }

    /// Holds an image that is about to be used; `None` where there is none, or it is to go.
    pub(crate) fn lease(self: &Arc<Self>, id: TemplateId) -> io::Result<Option<Lease>> {
        // Counted before it is looked at: `remove` looks at the count after it has marked.
        let lease = Lease::new(Arc::clone(self), id);
        let usable = self.find(id)?.is_some_and(|image| !image.deleting);
        Ok(usable.then_some(lease))
    }

    /// Lets no new user come to an image. Durable; no error where there is none.
    pub(crate) fn mark_deleting(&self, id: TemplateId) -> io::Result<()> {
        let place = self.place(id);
        if !place.try_exists()? {
            return Ok(());
        }
        File::create(place.join(DELETING_FILE))?;
        durable::sync_folder(&place)
    }

    /// Removes an image with all its versions, and returns whether it is gone. One that is leased
    /// stays, marked to go. No error where there is none. That no machine lies on it is the
    /// caller's to know.
    pub(crate) fn remove(&self, id: TemplateId) -> io::Result<bool> {
        self.mark_deleting(id)?;
        // Held to the end, so that nobody comes to it in the middle.
        let leases = self.leases.lock();
        if leases.contains_key(&id) {
            return Ok(false);
        }
        let place = self.place(id);
        let going = self.root.join(format!(".removed-{}", id.uuid()));
        durable::remove_folder(&going)?;
        match fs::rename(&place, &going) {
            Ok(()) => durable::sync_folder(&self.root)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        }
        drop(leases);
        durable::remove_folder(&going).map(|()| true)
    }
}

fn read(folder: &Path) -> io::Result<Option<StoredImage>> {
    let text = match fs::read(folder.join(MANIFEST_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    Ok(Some(StoredImage {
        manifest: serde_json::from_slice(&text).map_err(io::Error::other)?,
        folder: folder.to_path_buf(),
        deleting: folder.join(DELETING_FILE).try_exists()?,
    }))
}

/// Keeps an image from being removed between the decision to use it and the machine's manifest that
/// says so. Dropping it removes nothing: the manager collects what is marked once a user has gone.
#[derive(Debug)]
pub(crate) struct Lease {
    store: Arc<ImageStore>,
    id: TemplateId,
}

impl Lease {
    fn new(store: Arc<ImageStore>, id: TemplateId) -> Self {
        *store.leases.lock().entry(id).or_default() += 1;
        Self { store, id }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.store.leases.lock();
        if let Some(count) = leases.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                leases.remove(&self.id);
            }
        }
    }
}

/// An image on its way. Dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Making {
    id: TemplateId,
    folder: TempDir,
    place: PathBuf,
    buried: Arc<Mutex<Buried>>,
}

impl Making {
    /// Where all of it goes. Files beside those below are welcome in between, and must be gone
    /// when it is published.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its disk goes: raw, and sparse.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder().join(IMAGE_FILE)
    }

    /// Where a snapshot's memory goes.
    pub(crate) fn memory(&self) -> PathBuf {
        self.folder().join(MEMORY_FILE)
    }

    /// Where the state of a snapshot's devices goes.
    pub(crate) fn device_state(&self) -> PathBuf {
        self.folder().join(STATE_FILE)
    }

    /// Brings all files to disk and makes the image visible, whole, by one rename. Of an image,
    /// `size.disk_size_mb` is the least disk that its content fits; of a snapshot, its disk's size.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when another image of this ID came first. Nothing is left
    /// after any error.
    pub(crate) async fn publish(
        self,
        content: Content,
        size: MachineSize,
        env: BTreeMap<String, String>,
    ) -> io::Result<StoredImage> {
        spawn_blocking(move || self.publish_files(content, size, env))
            .await
            .map_err(io::Error::other)?
    }

    fn publish_files(
        self,
        content: Content,
        size: MachineSize,
        env: BTreeMap<String, String>,
    ) -> io::Result<StoredImage> {
        for entry in fs::read_dir(self.folder())? {
            File::open(entry?.path())?.sync_all()?;
        }
        // Behind the sync: a file system that allocates late knows only then what a file takes.
        let memory_bytes = match content {
            Content::Image => 0,
            Content::Snapshot { .. } => {
                sparse::physical_bytes(&self.memory())?
                    + sparse::physical_bytes(&self.device_state())?
            }
        };
        let manifest = ImageManifest {
            id: self.id,
            content,
            size,
            disk_bytes: sparse::physical_bytes(&self.disk())?,
            memory_bytes,
            env,
        };
        // All names in the folder come to disk with it.
        durable::write_json(&self.folder().join(MANIFEST_FILE), &manifest)?;
        {
            let buried = self.buried.lock();
            if buried.contains(&self.id) {
                return Err(io::Error::other("it was deleted meanwhile"));
            }
            match fs::rename(self.folder(), &self.place) {
                Ok(()) => {}
                Err(_) if self.place.is_dir() => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) => return Err(error),
            }
        }
        let Self { folder, place, .. } = self;
        // It is not there any more, under its old name.
        let _ = folder.keep();
        if let Some(parent) = place.parent() {
            durable::sync_folder(parent)?;
        }
        Ok(StoredImage {
            manifest,
            folder: place,
            deleting: false,
        })
    }
}
