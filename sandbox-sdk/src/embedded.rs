//! The platform inside the app: store, host and engine assembled in one process.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sandbox_core::{
    audit::Actor,
    caller::Caller,
    disk::DiskChoice,
    engine::{Engine, EngineConfig, Parts},
    host::HostError,
    name::TemplateName,
    size::MachineSize,
};
use sandbox_host::{HostConfig, HostManager, SystemClock};
use sandbox_store::{EmbeddedQueue, SqliteStore};

use crate::{Client, Error, Result};

/// How an embedded platform is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EmbeddedConfig {
    /// The folder that holds everything: records, templates, disks. One process at a time may use
    /// it. By default `$SANDBOX_DATA`, else `$SANDBOX_DATA_DIR`, else `/var/lib/sandbox` for root
    /// and `~/.local/share/sandbox` for others.
    pub data_dir: PathBuf,
    /// Where to look for a guest kernel before the usual places.
    pub kernel_dir: Option<PathBuf>,
    /// How many clones of the template used last wait, already restored; 2 by default. Each costs
    /// some 30 MiB of memory and makes one create faster.
    pub pool_size: usize,
    /// What makes the disks of new sandboxes; by default the best that works in the data folder.
    /// Sandboxes that are there keep what they have.
    pub disk_backend: DiskChoice,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            data_dir: default_data_dir(),
            kernel_dir: None,
            pool_size: 2,
            disk_backend: DiskChoice::Auto,
        }
    }
}

impl EmbeddedConfig {
    /// The default, in another folder.
    #[must_use]
    pub fn in_folder(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            ..Self::default()
        }
    }

    /// How many clones wait, already restored.
    #[must_use]
    pub fn pool_size(mut self, clones: usize) -> Self {
        self.pool_size = clones;
        self
    }

    /// What makes the disks of new sandboxes. Opening fails where it can't be had.
    #[must_use]
    pub fn disk_backend(mut self, choice: DiskChoice) -> Self {
        self.disk_backend = choice;
        self
    }
}

fn default_data_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|folder| !folder.is_empty());
    // The one name is the daemon's flag as a variable, the other says what it is.
    if let Some(folder) = variable("SANDBOX_DATA").or_else(|| variable("SANDBOX_DATA_DIR")) {
        return folder.into();
    }
    match std::env::var_os("HOME") {
        Some(home) if !is_root() => Path::new(&home).join(".local/share/sandbox"),
        _ => PathBuf::from("/var/lib/sandbox"),
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// What an embedded client is made of.
#[derive(Clone)]
pub(crate) struct Embedded {
    engine: Engine,
    host: HostManager,
}

impl Client {
    /// Opens the platform in this process. No daemon is started; sandboxes are processes of their
    /// own and survive this one.
    ///
    /// # Errors
    /// [`Error::NotSetUp`] with the command to run where QEMU or a guest kernel is missing, and
    /// [`Error::Unavailable`] where another process uses the data folder.
    pub async fn embedded(config: EmbeddedConfig) -> Result<Self> {
        let mut host_config = HostConfig::new(config.data_dir.join("host"));
        host_config.kernel_dir = config.kernel_dir;
        host_config.pool_size = config.pool_size;
        host_config.disk_backend = config.disk_backend;
        // The host's lock on its folder is the lock on all of it, and so comes first.
        let host = HostManager::open(host_config).await.map_err(from_host)?;
        let store = SqliteStore::open(config.data_dir.join("sandbox.db"))
            .await
            .map_err(|error| Error::Unavailable(format!("opening the database: {error}")))?;
        let parts = Parts {
            store: Arc::new(store),
            host: Arc::new(host.clone()),
            queue: Arc::new(EmbeddedQueue::new()),
            clock: Arc::new(SystemClock),
        };
        let engine = Engine::start(parts, EngineConfig::default()).await?;
        let api = Arc::new(engine.api(Caller::admin(Actor::app())));
        let embedded = Embedded { engine, host };
        Ok(Self {
            api,
            embedded: Some(Arc::new(embedded)),
        })
    }

    /// Makes the default template ready and fills the pool, so that the first create is as fast as
    /// all others. Does nothing for a client that is not embedded.
    ///
    /// # Errors
    /// As for creating a sandbox.
    pub async fn prepare(&self) -> Result<()> {
        let Some(embedded) = &self.embedded else {
            return Ok(());
        };
        let size = MachineSize::default();
        embedded
            .host
            .prepare(&TemplateName::default(), size)
            .await
            .map_err(from_host)
    }

    /// Ends the background work and the waiting clones. Sandboxes run on and are found again by the
    /// next client on the data folder.
    pub async fn shutdown(&self) {
        if let Some(embedded) = &self.embedded {
            embedded.engine.shutdown().await;
            embedded.host.shutdown().await;
        }
    }

    /// The host of an embedded client, for those who measure or test it.
    #[must_use]
    pub fn host(&self) -> Option<&HostManager> {
        self.embedded.as_ref().map(|embedded| &embedded.host)
    }
}

/// Errors of opening and preparing a host. Those of orders are the engine's to translate.
fn from_host(error: HostError) -> Error {
    let words = error.to_string();
    match error {
        HostError::NotSetUp { .. } => Error::NotSetUp(words),
        HostError::UnknownTemplate { name } => Error::TemplateNotFound(name),
        HostError::Capacity(_) | HostError::DiskTooSmall { .. } | HostError::DiskFull { .. } => {
            Error::Capacity(words)
        }
        HostError::Unavailable(_) => Error::Unavailable(words),
        _ => Error::Host(words),
    }
}
