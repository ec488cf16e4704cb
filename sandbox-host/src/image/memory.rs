//! Memory images: a guest that has booted once and waits for its identity, frozen with its disk.
//! Every new machine is a private copy-on-write clone of one.
//!
//! RAM is a plain file that QEMU shares with the booting guest and later maps privately for each
//! clone; the devices' state is a stream of some 0.3 MB beside it.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sandbox_core::{host::HostError, name::TemplateName, size::MachineSize};
use tokio::{
    net::UnixListener,
    sync::{Mutex, watch},
};

use super::{
    MINIMAL, content_key, ensure_minimal,
    manifest::{MANIFEST_FILE, Manifest, Platform},
    outdated,
};
use crate::{
    boot::BootParts,
    durable,
    folder::SocketFolder,
    identity,
    inventory::Origin,
    link::client::GuestClient,
    qemu::{
        DISK_FILE, GUEST_SOCKET, MachineConfig, MachineProcess, QMP_SOCKET, Qmp, Start,
        console_tail, launch,
    },
    setup::run,
    space,
};

const MEMORY_FILE: &str = "memory";
const STATE_FILE: &str = "device.state";
const STATE_SOCKET: &str = "state.sock";
const CLONE_FILE: &str = "clone.qcow2";

/// A boot takes some three seconds under emulation; on a machine that is busy with other things
/// many times that.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// What a boot writes to its memory file and disk, in MiB, beyond which it needs more by its size.
const BOOT_WRITES_MB: u64 = 256;

/// A memory image on disk.
#[derive(Debug, Clone)]
pub(crate) struct MemoryImage {
    folder: PathBuf,
    pub(crate) size: MachineSize,
}

impl MemoryImage {
    /// What a clone's manifest says of it.
    pub(crate) fn origin(&self) -> Origin {
        let key = self.folder.file_name().unwrap_or_default();
        Origin {
            memory_image: key.to_string_lossy().into_owned(),
            size: self.size,
        }
    }

    pub(crate) fn ram_file(&self) -> PathBuf {
        self.folder.join(MEMORY_FILE)
    }

    pub(crate) fn open_state(&self) -> io::Result<File> {
        File::open(self.folder.join(STATE_FILE))
    }

    /// Gives a new machine its disk: an empty overlay on the frozen one.
    pub(crate) fn clone_disk(&self, machine: &Path) -> io::Result<()> {
        fs::copy(self.folder.join(CLONE_FILE), machine.join(DISK_FILE)).map(drop)
    }
}

type Slot = Arc<Mutex<Option<MemoryImage>>>;

/// All memory images of one data folder.
#[derive(Debug)]
pub(crate) struct MemoryImages {
    root: PathBuf,
    images: PathBuf,
    /// One image is made by one task; others that need it wait for the result.
    made: Mutex<HashMap<(TemplateName, MachineSize), Slot>>,
}

impl MemoryImages {
    pub(crate) fn open(root: PathBuf, images: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&images)?;
        Ok(Self {
            root,
            images,
            made: Mutex::default(),
        })
    }

    /// Removes what an older program, kernel or QEMU made and no machine lies on.
    pub(crate) fn remove_outdated(
        &self,
        boot: &BootParts,
        in_use: &HashSet<String>,
    ) -> io::Result<()> {
        outdated::remove(&self.root, &self.images, &Platform::of(boot), in_use)
    }

    /// The memory image of a template at a size, booted now if it is the first use.
    pub(crate) async fn ensure(
        &self,
        boot: &BootParts,
        template: &TemplateName,
        size: MachineSize,
    ) -> Result<MemoryImage, HostError> {
        if template.as_str() != MINIMAL {
            return Err(HostError::UnknownTemplate {
                name: template.to_string(),
            });
        }
        let slot = self
            .made
            .lock()
            .await
            .entry((template.clone(), size))
            .or_default()
            .clone();
        let mut slot = slot.lock().await;
        if let Some(image) = slot.as_ref() {
            return Ok(image.clone());
        }
        let image = self.find_or_make(boot, template, size).await?;
        *slot = Some(image.clone());
        Ok(image)
    }

    async fn find_or_make(
        &self,
        boot: &BootParts,
        template: &TemplateName,
        size: MachineSize,
    ) -> Result<MemoryImage, HostError> {
        space::require(&self.root, space::SPARE_MB)?;
        let (base, image_version) = ensure_minimal(&self.images, &boot.setup, size.disk_size_mb)
            .await
            .map_err(|error| space::or_internal(&self.root, "making the image", &error))?;
        let manifest = Manifest {
            template: template.to_string(),
            image_version,
            size,
            platform: Platform::of(boot),
        };
        let text = serde_json::to_vec(&manifest)
            .map_err(|error| HostError::Internal(format!("writing a manifest: {error}")))?;
        let folder = self.root.join(content_key([text.as_slice()]));
        if !folder.join(MANIFEST_FILE).is_file() {
            space::require(&self.root, space::SPARE_MB + BOOT_WRITES_MB)?;
            tracing::info!(%template, ?size, "booting a template for the first time");
            self.make(boot, &base.join("disk.img"), size, &manifest, &folder)
                .await?;
        }
        Ok(MemoryImage { folder, size })
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
        create_overlay(boot, base, "raw", &folder.join(DISK_FILE), size)
            .await
            .map_err(step("making a disk"))?;

        let config = MachineConfig {
            name: format!("sandbox-template-{}", uuid::Uuid::now_v7()),
            size,
            accelerator: boot.accelerator,
            start: Start::Boot {
                kernel: boot.setup.kernel.image.clone(),
                initramfs: boot.initramfs.clone(),
                ram_file: folder.join(MEMORY_FILE),
                append: KERNEL_PARAMETERS.to_owned(),
            },
        };
        let process = KillOnDrop(
            launch(&boot.setup.qemu, folder, &config, None).map_err(step("starting QEMU"))?,
        );
        if let Err(error) = boot_and_save(folder).await {
            return Err(process.0.own_words_or(folder, error).await);
        }
        process.0.kill().await.map_err(step("ending QEMU"))?;
        for socket in [QMP_SOCKET, GUEST_SOCKET] {
            fs::remove_file(folder.join(socket)).map_err(step("removing a socket"))?;
        }

        File::open(folder.join(MEMORY_FILE))
            .and_then(|file| file.sync_all())
            .map_err(step("syncing the memory file"))?;
        create_overlay(
            boot,
            &place.join(DISK_FILE),
            "qcow2",
            &folder.join(CLONE_FILE),
            size,
        )
        .await
        .map_err(step("making a disk"))?;
        durable::write_json(&folder.join(MANIFEST_FILE), manifest)
            .map_err(step("writing a manifest"))?;
        durable::publish_folder(&making.keep(), place).map_err(step("publishing"))
    }
}

/// Quiet, since every line costs time on an emulated serial port; a panic or a triple fault resets
/// at once, which QEMU turns into its own end.
const KERNEL_PARAMETERS: &str =
    "console=ttyS0 quiet panic=-1 reboot=t no_timer_check random.trust_cpu=on";

/// Ends the process also where its task is dropped or fails.
struct KillOnDrop(MachineProcess);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill_now();
    }
}

/// Waits for the agent, lets it settle the disk, stops the guest between two instructions and has
/// QEMU write the devices' state to the inherited descriptor.
async fn boot_and_save(folder: &Path) -> Result<(), HostError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| HostError::Boot(format!("{what}: {error}"));
    let sockets = SocketFolder::open(folder).map_err(|error| failed("its folder", &error))?;
    let mut qmp = Qmp::connect(&sockets.path(QMP_SOCKET))
        .await
        .map_err(|error| failed("connecting to QEMU", &error))?;
    let (_running, not_running) = watch::channel(None);
    let guest = GuestClient::new(sockets.connector(GUEST_SOCKET), not_running);
    if let Err(error) = guest.wait_ready(BOOT_LIMIT).await {
        let console = qmp.console().await.unwrap_or_default();
        return Err(HostError::Boot(format!(
            "its agent did not answer ({error}); the console's last lines: {}",
            console_tail(&console)
        )));
    }
    let placeholder = identity::placeholder().map_err(|error| failed("an identity", &error))?;
    guest
        .warm_up(placeholder)
        .await
        .map_err(|error| failed("warming up", &error))?;
    guest
        .prepare_snapshot()
        .await
        .map_err(|error| failed("settling the disk", &error))?;
    // The clones' agents must find nobody connected.
    guest.disconnect().await;
    let saved = async {
        let listener = UnixListener::bind(sockets.path(STATE_SOCKET))?;
        let file = tokio::fs::File::create_new(folder.join(STATE_FILE)).await?;
        // A guest that runs is stopped by the saving itself, and its clones run by themselves.
        let (sent, received) =
            tokio::join!(qmp.save_devices(STATE_SOCKET), receive(listener, file));
        sent?;
        received?;
        Ok::<_, crate::qemu::QmpError>(())
    };
    saved
        .await
        .map_err(|error| failed("saving the state", &error))?;
    fs::remove_file(sockets.path(STATE_SOCKET)).map_err(|error| failed("its folder", &error))
}

/// Takes one stream to a file and brings it to disk.
async fn receive(listener: UnixListener, mut file: tokio::fs::File) -> io::Result<()> {
    let (mut stream, _) = tokio::time::timeout(CONNECT_LIMIT, listener.accept())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    tokio::io::copy(&mut stream, &mut file).await?;
    file.sync_all().await
}

/// A qcow2 of the disk's size on top of `backing`, which need not be in its place yet.
async fn create_overlay(
    boot: &BootParts,
    backing: &Path,
    backing_format: &str,
    overlay: &Path,
    size: MachineSize,
) -> io::Result<()> {
    let arguments: [OsString; 10] = [
        "create".into(),
        "-q".into(),
        "-u".into(),
        "-f".into(),
        "qcow2".into(),
        "-F".into(),
        backing_format.into(),
        "-b".into(),
        backing.into(),
        overlay.into(),
    ];
    let size = OsString::from(size.disk_bytes().to_string());
    run(&boot.setup.qemu_img, arguments.into_iter().chain([size]))
        .await
        .map(drop)
}
