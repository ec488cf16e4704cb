//! The host manager: owns every machine of one data folder and carries out the orders of
//! [`Host`]. It knows nothing of teams, of who may do what, or of other hosts.
//!
//! Orders for one sandbox are carried out one after the other, on tasks of their own: a caller that
//! goes away changes nothing.

mod capacity;
mod create;
mod destroy;
mod fill;
mod images;
mod lock;
mod order;
mod pause;
mod recover;
mod resume;
mod snapshot;
mod table;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sandbox_core::{
    clock::Clock,
    disk::DiskChoice,
    guest::Guest,
    host::{
        Host, HostCreate, HostError, HostImage, HostImport, HostInfo, HostOrder, HostReport,
        HostSnapshot, ImageDeletion,
    },
    id::{HostId, SandboxId, TemplateId},
    name::{DEFAULT_TEMPLATE, TemplateName},
    size::MachineSize,
    template::{MINIMAL_TEMPLATE_ID, TemplateKind},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    SystemClock,
    boot::BootParts,
    durable,
    image::MemoryImages,
    inventory::{Inventory, Manifest},
    link::client::GuestClient,
    machine::{Ended, Machine},
    pool::Pool,
};
pub(crate) use capacity::memory_mb;
pub use lock::FolderLock;
use table::Table;

/// What a stopping host gives its work to end: killing a machine that hangs takes most of it.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// How a host is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostConfig {
    /// The folder that holds all of the host's state. One process at a time may use it.
    pub data_dir: PathBuf,
    /// Where to look for a guest kernel before the usual places.
    pub kernel_dir: Option<PathBuf>,
    /// How many clones wait, already restored. Each costs some 30 MiB of memory.
    pub pool_size: usize,
    /// What makes the disks of new machines. Those that are there keep theirs.
    pub disk_backend: DiskChoice,
}

impl HostConfig {
    /// A host in this folder, with a pool of two.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            kernel_dir: None,
            pool_size: 2,
            disk_backend: DiskChoice::Auto,
        }
    }
}

/// One host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct HostManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: HostId,
    epoch: u64,
    pool_size: usize,
    boot: BootParts,
    images: MemoryImages,
    inventory: Inventory,
    table: Table,
    pool: Pool,
    /// Everything under way that makes or ends machines.
    tasks: TaskTracker,
    /// The tasks that follow machines.
    watches: TaskTracker,
    /// Ends what nobody waits for any more.
    stopping: CancellationToken,
    /// Ends the following of machines that run on, when all work is done.
    letting_go: CancellationToken,
    /// Held until the manager is shut down or gone.
    lock: Mutex<Option<FolderLock>>,
}

impl HostManager {
    /// Opens the data folder: finds what the machine offers, removes what a killed process left
    /// half-made, and takes up the sandboxes that still run.
    ///
    /// # Errors
    /// [`HostError::NotSetUp`] with what mends it where QEMU or the kernel is missing, or the folder
    /// can't be made or written to,
    /// [`HostError::Unavailable`] where another process uses the folder.
    pub async fn open(config: HostConfig) -> Result<Self, HostError> {
        let internal = |step: &'static str| {
            move |error: std::io::Error| HostError::Internal(format!("{step}: {error}"))
        };
        let data = made_and_absolute(&config.data_dir);
        let data = data.map_err(|error| lock::unusable(&config.data_dir, &error))?;
        let lock = FolderLock::take(&data).await?;
        let boot =
            BootParts::prepare(&data, config.kernel_dir.as_deref(), config.disk_backend).await?;
        let images = MemoryImages::open(data.join("memory"), data.join("images"))
            .map_err(internal("making the image folder"))?;
        let inventory =
            Inventory::open(data.join("machines")).map_err(internal("making the inventory"))?;
        let inner = Arc::new(Inner {
            id: host_id(&data).map_err(internal("reading the host's ID"))?,
            epoch: next_epoch(&data).map_err(internal("numbering this start"))?,
            pool_size: config.pool_size,
            boot,
            images,
            inventory,
            table: Table::default(),
            pool: Pool::default(),
            tasks: TaskTracker::new(),
            watches: TaskTracker::new(),
            stopping: CancellationToken::new(),
            letting_go: CancellationToken::new(),
            lock: Mutex::new(Some(lock)),
        });
        inner
            .remove_half_made(&data)
            .await
            .map_err(internal("removing what was half-made"))?;
        inner
            .recover()
            .await
            .map_err(internal("reading the inventory"))?;
        let default_mb = MachineSize::default().disk_size_mb;
        inner
            .images
            .ensure_image_sizes(&inner.boot.setup, default_mb)
            .await?;
        Ok(Self { inner })
    }

    /// Makes the platform's template ready at this size and fills the pool with it, so that the first create is
    /// as fast as all others.
    ///
    /// # Errors
    /// As for creating a sandbox.
    pub async fn prepare(
        &self,
        template: &TemplateName,
        size: MachineSize,
    ) -> Result<(), HostError> {
        if template.as_str() != DEFAULT_TEMPLATE {
            return Err(HostError::UnknownTemplate {
                name: template.to_string(),
            });
        }
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.prepare(MINIMAL_TEMPLATE_ID, size).await })
            .await
    }

    /// Ends the waiting clones and all work under way, lets go of the data folder, and returns when
    /// that is done. Sandboxes run on and are found again at the next [`open`].
    ///
    /// [`open`]: Self::open
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.table.close();
        inner.stopping.cancel();
        for machine in inner.pool.close() {
            inner.discard(&machine).await;
        }
        inner.tasks.close();
        if timeout(SHUTDOWN_LIMIT, inner.tasks.wait()).await.is_err() {
            tracing::warn!("the host stops with work under way; the next start settles it");
        }
        inner.letting_go.cancel();
        inner.watches.close();
        inner.watches.wait().await;
        // The next manager of this folder needs the sandboxes' links, which have one end each.
        for machine in inner.table.leave() {
            machine.leave().await;
        }
        inner.lock.lock().take();
    }

    /// Process IDs of the clones that wait in the pool.
    #[must_use]
    pub fn waiting_pids(&self) -> Vec<u32> {
        self.inner.pool.pids()
    }

    /// The process ID of a sandbox's machine, if it runs.
    #[must_use]
    pub fn pid_of(&self, id: SandboxId) -> Option<u32> {
        self.inner
            .table
            .machine(id)
            .ok()
            .map(|machine| machine.pid())
    }
}

#[async_trait]
impl Host for HostManager {
    async fn hello(&self) -> Result<HostInfo, HostError> {
        Ok(HostInfo {
            host_id: self.inner.id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            accelerator: self.inner.boot.accelerator.as_str().to_owned(),
            cpus: capacity::cpus(),
            memory_mb: memory_mb()?,
        })
    }

    async fn create_sandbox(&self, order: HostCreate) -> Result<(), HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.create(order).await })
            .await
    }

    async fn destroy_sandbox(&self, id: SandboxId, generation: u64) -> Result<(), HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.destroy(id, generation).await })
            .await
    }

    async fn pause_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.pause(order).await })
            .await
    }

    async fn resume_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.resume(order).await })
            .await
    }

    async fn create_snapshot(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.snapshot(order, TemplateKind::Snapshot).await })
            .await
    }

    async fn flatten_rootfs(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.snapshot(order, TemplateKind::Image).await })
            .await
    }

    async fn import_image(&self, order: HostImport) -> Result<HostImage, HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.import(order).await })
            .await
    }

    async fn delete_snapshot(&self, image: TemplateId) -> Result<ImageDeletion, HostError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .order(async move { inner.delete_image(image).await })
            .await
    }

    async fn list_sandboxes(&self) -> Result<HostReport, HostError> {
        self.inner.report().await
    }

    async fn changed(&self, seen: u64, wait: Duration) -> Result<u64, HostError> {
        Ok(self.inner.table.changed(seen, wait).await)
    }

    fn guest(&self, id: SandboxId) -> Arc<dyn Guest> {
        match self.inner.table.machine(id) {
            Ok(machine) => Arc::new(machine.guest.clone()),
            Err(reason) => Arc::new(nobody(reason)),
        }
    }
}

impl Inner {
    /// Starts the task that notices a machine's end. It keeps nothing alive.
    fn watch(self: &Arc<Self>, machine: &Arc<Machine>) {
        let machine = Arc::clone(machine);
        let inner: Weak<Self> = Arc::downgrade(self);
        let letting_go = self.letting_go.clone();
        self.watches.spawn(async move {
            let ended = tokio::select! {
                ended = machine.watch() => ended,
                () = letting_go.cancelled() => return,
            };
            if let Some(inner) = inner.upgrade() {
                inner.machine_ended(&machine, ended).await;
            }
        });
    }

    async fn machine_ended(self: &Arc<Self>, machine: &Arc<Machine>, Ended(reason): Ended) {
        if self.pool.forget(machine) {
            tracing::warn!(machine = %machine.id, reason, "a waiting clone ended");
            self.discard(machine).await;
        } else if let Some(stopped) = self.table.stop(machine, &reason) {
            let sandbox = stopped.sandbox;
            tracing::info!(%sandbox, reason, "a sandbox's machine ended");
            let lock = self.table.order_lock(sandbox);
            let _one_at_a_time = lock.lock().await;
            // It may have been destroyed meanwhile.
            if self.table.has_machine(sandbox, machine.id) {
                machine.close_disk();
                self.note(machine.id, stopped.manifest(machine.origin.clone()))
                    .await;
            }
        }
    }

    /// Writes a machine's manifest. A failure is logged and not returned: the truth is in the
    /// process table and is found again at the next start.
    async fn note(self: &Arc<Self>, machine: Uuid, manifest: Manifest) {
        if let Err(error) = self.write_manifest(machine, manifest).await {
            tracing::error!(%machine, %error, "a machine's manifest could not be written");
        }
    }

    async fn write_manifest(
        self: &Arc<Self>,
        machine: Uuid,
        manifest: Manifest,
    ) -> std::io::Result<()> {
        let inner = Arc::clone(self);
        tokio::task::spawn_blocking(move || inner.inventory.write(machine, &manifest))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// Carries an order out on a task of its own.
    async fn order<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HostError>> + Send + 'static,
    ) -> Result<T, HostError> {
        joined(self.tasks.spawn(work.in_current_span())).await
    }

    /// Ends a machine that is nobody's, with all it holds.
    async fn discard(&self, machine: &Machine) {
        if let Err(error) = machine.destroy().await {
            tracing::error!(machine = %machine.id, %error, "a machine could not be removed");
        }
    }
}

impl Drop for Inner {
    /// What [`HostManager::shutdown`] does, without waiting, for those who forget to call it.
    fn drop(&mut self) {
        for machine in self.pool.close() {
            machine.discard_now();
        }
    }
}

/// The result of an order's task. Tasks are not cancelled: one that gives no result has panicked,
/// or its runtime is going down.
async fn joined<T>(task: JoinHandle<Result<T, HostError>>) -> Result<T, HostError> {
    task.await.unwrap_or_else(|error| {
        Err(HostError::Internal(format!(
            "the order's task ended: {error}"
        )))
    })
}

/// A guest that answers every call with the reason why it can't.
fn nobody(reason: String) -> GuestClient {
    let (_sender, not_running) = watch::channel(Some(reason));
    let connector = Arc::new(|| -> futures::future::BoxFuture<'static, _> {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    });
    GuestClient::new(connector, not_running)
}

/// Symbolic links are resolved, since processes are found by the paths of their open files.
fn made_and_absolute(path: &Path) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(path)?;
    path.canonicalize()
}

/// A number that is greater with every start: one more than the last, or the time in microseconds
/// where that is more, which it is also where the folder was put back to an earlier state.
fn next_epoch(data: &Path) -> std::io::Result<u64> {
    let file = data.join("epoch.json");
    let last: u64 = match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::other)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let time_us = u64::try_from(SystemClock.now().timestamp_micros());
    let epoch = time_us.unwrap_or(0).max(last.saturating_add(1));
    durable::write_json(&file, &epoch)?;
    Ok(epoch)
}

fn host_id(data: &Path) -> std::io::Result<HostId> {
    let file = data.join("host.json");
    if let Ok(bytes) = std::fs::read(&file) {
        return serde_json::from_slice(&bytes).map_err(std::io::Error::other);
    }
    let id = HostId::from_uuid(Uuid::now_v7());
    durable::write_json(&file, &id)?;
    Ok(id)
}
