//! Memory images: a guest that has booted once and waits for its identity, or one that was at work,
//! frozen with its disk. Every new machine is a private copy-on-write clone of one.
//!
//! RAM is a plain file that QEMU shares with the booting guest and later maps privately for each
//! clone; the devices' state is a stream of some 0.3 MB beside it.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sandbox_core::{
    disk::DiskFormat,
    host::HostError,
    id::TemplateId,
    size::MachineSize,
    template::{MINIMAL_TEMPLATE_ID, TemplateKind},
};
use tokio::{sync::Mutex, task::spawn_blocking};

use super::{
    IMAGE_FILE, MEMORY_FILE, STATE_FILE, content_key, ensure_minimal, first_boot,
    manifest::{MANIFEST_FILE, Manifest, Platform},
    outdated, sized,
    store::{Content, ImageStore, Lease, StoredImage},
};
use crate::{
    boot::BootParts,
    disk::{Base, OpenDisk, create_overlay, sparse},
    durable,
    emulator::{Emulator, SavedAs},
    inventory::Origin,
    setup::Setup,
    space,
};

/// What a boot writes to its memory file and disk, in MiB, beyond which it needs more by its size.
const BOOT_WRITES_MB: u64 = 256;

/// A memory image on disk.
#[derive(Debug, Clone)]
pub(crate) struct MemoryImage {
    folder: PathBuf,
    /// Which template it is of.
    pub(crate) image: TemplateId,
    pub(crate) size: MachineSize,
    base: Base,
    /// Held until the machine's manifest says whose clone it is.
    _lease: Option<Arc<Lease>>,
}

impl MemoryImage {
    /// What a clone's manifest says of it.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            image: self.image,
            memory_image: self.key(),
            size: self.size,
        }
    }

    /// The name by which a clone's manifest keeps it from being removed: its folder's below
    /// `memory/`; of a stored snapshot, which has none there, the template's ID.
    pub(crate) fn key(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        if *name == self.image.uuid().hyphenated().to_string() {
            self.image.to_string()
        } else {
            name.into_owned()
        }
    }

    pub(crate) fn ram_file(&self) -> PathBuf {
        self.folder.join(MEMORY_FILE)
    }

    pub(crate) fn open_state(&self) -> io::Result<File> {
        File::open(self.folder.join(STATE_FILE))
    }

    /// The frozen disk, which every clone's starts from.
    pub(crate) fn base(&self) -> &Base {
        &self.base
    }
}

/// The folder, once it is there.
type Slot = Arc<Mutex<Option<PathBuf>>>;

/// All memory images of one data folder.
#[derive(Debug)]
pub(crate) struct MemoryImages {
    root: PathBuf,
    store: Arc<ImageStore>,
    /// One image is made by one task; others that need it wait for the result.
    made: Mutex<HashMap<(TemplateId, MachineSize), Slot>>,
}

/// What a memory image is booted from.
struct BootDisk {
    disk: PathBuf,
    version: String,
}

/// A booted guest's disk, in its folder.
fn frozen_disk(folder: &Path, format: DiskFormat) -> Base {
    let name = match format {
        DiskFormat::Qcow2 => "disk.qcow2",
        DiskFormat::Raw => "disk.raw",
    };
    let path = folder.join(name);
    Base { path, format }
}

impl MemoryImages {
    pub(crate) fn open(root: PathBuf, images: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self {
            root,
            store: Arc::new(ImageStore::open(images)?),
            made: Mutex::default(),
        })
    }

    /// The memory that a machine's manifest says it maps.
    pub(crate) fn ram_file(&self, origin: &Origin) -> PathBuf {
        self.folder_of(origin).join(MEMORY_FILE)
    }

    fn folder_of(&self, origin: &Origin) -> PathBuf {
        match origin.memory_image.parse::<TemplateId>() {
            Ok(snapshot) => self.store.place(snapshot),
            Err(_) => self.root.join(&origin.memory_image),
        }
    }

    /// What the overlay of a machine lies on whose disk has no manifest: nothing else was made then.
    pub(crate) fn base_of_overlay(&self, origin: &Origin) -> Base {
        let folder = self.folder_of(origin);
        if origin.is_snapshot() {
            Base::raw(folder.join(IMAGE_FILE))
        } else {
            frozen_disk(&folder, DiskFormat::Qcow2)
        }
    }

    /// The images that templates name by ID.
    pub(crate) fn store(&self) -> &Arc<ImageStore> {
        &self.store
    }

    /// Removes what an older program, kernel or QEMU made and no machine lies on, and images that
    /// are to go and have lost their last user. `in_use` has the [keys](MemoryImage::key) that
    /// machines' manifests name. For the start, before anything new is made.
    pub(crate) fn remove_outdated(
        &self,
        boot: &BootParts,
        in_use: &HashSet<String>,
    ) -> io::Result<()> {
        outdated::remove(&self.root, &self.store, &Platform::of(boot), in_use)
    }

    /// Makes every stored image whose disk is smaller than the default available at the default
    /// size, before any sandbox uses it. One that can't be is told of in the log, and the first
    /// sandbox that wants it tells why.
    pub(crate) async fn ensure_image_sizes(
        &self,
        setup: &Setup,
        default_mb: u32,
    ) -> Result<(), HostError> {
        let internal = |error| space::or_internal(&self.root, "listing images", &error);
        for image in self.store.list().map_err(internal)? {
            let manifest = &image.manifest;
            let grows = manifest.content.kind() == TemplateKind::Image
                && manifest.size.disk_size_mb < default_mb;
            if !grows {
                continue;
            }
            let id = manifest.id;
            // Not where it is to go.
            let Some(_lease) = self.store.lease(id).map_err(internal)? else {
                continue;
            };
            if let Err(error) = sized::ensure(&self.store, setup, &image, default_mb).await {
                tracing::error!(%id, default_mb, %error, "an image is not there at the default size");
            }
        }
        Ok(())
    }

    /// Removes an image that no machine lies on, with all that was made from it, and returns
    /// whether it is gone. One that is about to be used stays, marked to go. No error where there
    /// is none.
    pub(crate) async fn remove_image(&self, id: TemplateId) -> io::Result<bool> {
        if id == MINIMAL_TEMPLATE_ID || !self.store.remove(id)? {
            return Ok(false);
        }
        let mut made = self.made.lock().await;
        made.retain(|(image, _), _| *image != id);
        outdated::remove_made_from(&self.root, id)?;
        Ok(true)
    }

    /// The memory image of a template at a size: booted now if it is the first use of an image, and
    /// a snapshot's own.
    ///
    /// # Errors
    /// [`HostError::UnknownImage`]; [`HostError::DiskTooSmall`] where the content does not fit;
    /// [`HostError::Incompatible`] for a snapshot of another platform or size.
    pub(crate) async fn ensure(
        &self,
        boot: &BootParts,
        image: TemplateId,
        size: MachineSize,
    ) -> Result<MemoryImage, HostError> {
        if image == MINIMAL_TEMPLATE_ID {
            return self.ensure_booted(boot, image, None, size).await;
        }
        let internal = |error| space::or_internal(&self.root, "reading an image", &error);
        let lease = self.store.lease(image).map_err(internal)?;
        let stored = self.store.find(image).map_err(internal)?;
        let (Some(lease), Some(stored)) = (lease, stored) else {
            return Err(HostError::UnknownImage(image));
        };
        let manifest = &stored.manifest;
        let memory_image = match &manifest.content {
            Content::Image => self.ensure_booted(boot, image, Some(&stored), size).await?,
            Content::Snapshot { platform } => {
                Emulator::of(boot).check(platform, SavedAs::Template)?;
                check_snapshot_size(manifest.size, size)?;
                MemoryImage {
                    base: Base::raw(stored.disk()),
                    folder: stored.folder,
                    image,
                    size,
                    _lease: None,
                }
            }
        };
        Ok(MemoryImage {
            _lease: Some(Arc::new(lease)),
            ..memory_image
        })
    }

    /// `stored` is `None` for `minimal`.
    async fn ensure_booted(
        &self,
        boot: &BootParts,
        image: TemplateId,
        stored: Option<&StoredImage>,
        size: MachineSize,
    ) -> Result<MemoryImage, HostError> {
        let slot = self
            .made
            .lock()
            .await
            .entry((image, size))
            .or_default()
            .clone();
        let mut slot = slot.lock().await;
        let folder = match slot.as_ref() {
            Some(folder) => folder.clone(),
            None => {
                let folder = self.find_or_make(boot, image, stored, size).await?;
                slot.insert(folder).clone()
            }
        };
        Ok(MemoryImage {
            base: frozen_disk(&folder, Platform::of(boot).disk),
            folder,
            image,
            size,
            _lease: None,
        })
    }

    async fn find_or_make(
        &self,
        boot: &BootParts,
        image: TemplateId,
        stored: Option<&StoredImage>,
        size: MachineSize,
    ) -> Result<PathBuf, HostError> {
        space::require(&self.root, space::SPARE_MB)?;
        let base = self.base(boot, stored, size.disk_size_mb).await?;
        let manifest = Manifest {
            image,
            image_version: base.version,
            size,
            platform: Platform::of(boot),
        };
        let text = serde_json::to_vec(&manifest)
            .map_err(|error| HostError::Internal(format!("writing a manifest: {error}")))?;
        let folder = self.root.join(content_key([text.as_slice()]));
        if !folder.join(MANIFEST_FILE).is_file() {
            space::require(&self.root, space::SPARE_MB + BOOT_WRITES_MB)?;
            tracing::info!(%image, ?size, "booting a template for the first time");
            self.make(boot, &base.disk, size, &manifest, &folder)
                .await?;
        }
        Ok(folder)
    }

    /// The disk at exactly this size.
    async fn base(
        &self,
        boot: &BootParts,
        stored: Option<&StoredImage>,
        disk_size_mb: u32,
    ) -> Result<BootDisk, HostError> {
        let Some(stored) = stored else {
            let (folder, version) = ensure_minimal(self.store.root(), &boot.setup, disk_size_mb)
                .await
                .map_err(|error| space::or_internal(&self.root, "making the image", &error))?;
            let disk = folder.join(IMAGE_FILE);
            return Ok(BootDisk { disk, version });
        };
        let disk = sized::ensure(&self.store, &boot.setup, stored, disk_size_mb).await?;
        let version = disk_size_mb.to_string();
        Ok(BootDisk { disk, version })
    }

    async fn make(
        &self,
        boot: &BootParts,
        base: &Path,
        size: MachineSize,
        manifest: &Manifest,
        place: &Path,
    ) -> Result<(), HostError> {
        let step = |what: &'static str| {
            move |error: io::Error| space::or_internal(&self.root, what, &error)
        };
        let making = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&self.root)
            .map_err(step("making a folder"))?;
        let folder = making.path();
        let frozen = frozen_disk(folder, manifest.platform.disk);
        let (base, disk) = (Base::raw(base), frozen.clone());
        spawn_blocking(move || match disk.format {
            DiskFormat::Qcow2 => create_overlay(&disk.path, &base, size.disk_bytes()),
            DiskFormat::Raw => sparse::copy(&base.path, &disk.path),
        })
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(step("making a disk"))?;

        let disk = OpenDisk {
            path: frozen.path,
            format: frozen.format,
        };
        first_boot::run(boot, folder, disk, size).await?;

        durable::write_json(&folder.join(MANIFEST_FILE), manifest)
            .map_err(step("writing a manifest"))?;
        durable::publish_folder(folder, place).map_err(step("publishing"))?;
        // Not there any more, under this name.
        let _ = making.keep();
        Ok(())
    }
}

/// A guest can't be given more memory, processors or disk than it has seen.
fn check_snapshot_size(frozen: MachineSize, asked: MachineSize) -> Result<(), HostError> {
    if frozen == asked {
        return Ok(());
    }
    let words = |size: MachineSize| {
        format!(
            "{} vCPUs, {} MiB of memory and {} MiB of disk",
            size.vcpus, size.memory_mb, size.disk_size_mb
        )
    };
    Err(HostError::Incompatible(format!(
        "it has {}, which can't become {}",
        words(frozen),
        words(asked)
    )))
}
