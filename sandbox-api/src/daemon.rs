//! One daemon's life: assemble, serve, stop.
//!
//! ```text
//!  bind ──► host (locks the folder) ──► records ──► engine ──► key ──► ready ──► serve
//!                                                                                 │ SIGTERM, SIGINT
//!              gone ◄── host lets go ◄── operations end, requests are answered ◄──┘
//! ```

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use sandbox_core::{
    api::Api,
    audit::{Actor, ActorKind},
    clock::Clock,
    engine::{Engine, EngineConfig, Parts},
    error::Error,
    host::HostError,
    name::TemplateName,
    size::MachineSize,
};
use sandbox_host::{HostConfig, HostManager, SystemClock};
use sandbox_sdk::rpc::{Listener, Server};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admin_key::{self, AdminKeyError},
    app,
    config::Config,
    database::DatabaseError,
    http::auth::KeyHash,
    limits::Limits,
    metrics::Metrics,
    rpc,
    serve::{raise_open_files, serve},
    state::AppState,
};

/// What operations in flight get to end, at a stop: less than requests get, which wait for them.
const ENGINE_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// What the host gets then. Together with the above it is less than the 10 s that a stop may take.
const HOST_STOP_TIMEOUT: Duration = Duration::from_millis(3000);
/// Open files that are not connections: machines have some each.
const OTHER_FILES: u64 = 1024;

/// Why a daemon did not come up, or not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The host can't be opened.
    #[error(transparent)]
    Host(HostError),
    /// The database can't be opened.
    #[error("the records can't be opened")]
    Database(#[from] DatabaseError),
    /// Clients of the SDK can't come in.
    #[error("can't listen on {address}")]
    Rpc {
        /// The address.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The engine does not start.
    #[error("the engine can't start: {0}")]
    Engine(Error),
    /// There is no administrator's key.
    #[error(transparent)]
    Key(#[from] AdminKeyError),
    /// The interface's own description can't be written.
    #[error("the OpenAPI document can't be written")]
    Document(#[from] serde_json::Error),
    /// Connections can't be served.
    #[error("serving failed")]
    Serve(#[source] io::Error),
}

/// A daemon that is assembled and listens, and does not serve yet.
#[derive(Debug)]
pub struct Daemon {
    listener: TcpListener,
    doors: Vec<Listener>,
    rpc: Server,
    state: AppState,
    engine: Engine,
    host: HostManager,
    pool_size: usize,
}

impl Daemon {
    /// Assembles a daemon.
    ///
    /// # Errors
    /// See [`DaemonError`]; [`DaemonError::Host`] where another process uses the data folder.
    pub async fn open(config: Config) -> Result<Self, DaemonError> {
        let limits = fitted(config.limits);
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| DaemonError::Listen { address, source })?;
        let mut host_config = HostConfig::new(config.data.join("host"));
        host_config.kernel_dir = config.kernel_dir;
        host_config.pool_size = config.pool_size;
        // The host's lock on its folder is the lock on all of it, and so comes first.
        let host = HostManager::open(host_config)
            .await
            .map_err(DaemonError::Host)?;
        let parts = Parts {
            store: config.database.open().await?,
            host: Arc::new(host.clone()),
            clock: Arc::new(SystemClock),
        };
        let engine_config = EngineConfig {
            sole_owner: config.database.is_ours_alone(),
            shutdown_timeout: ENGINE_STOP_TIMEOUT,
            ..EngineConfig::DEFAULT
        };
        let engine = Engine::start(parts.clone(), engine_config)
            .await
            .map_err(DaemonError::Engine)?;
        let administrator = Actor {
            kind: ActorKind::App,
            id: "admin-key".to_owned(),
        };
        let key = admin_key::read_or_make(&config.data)?;
        let doors = rpc::open(&config.data, config.rpc_listen.as_deref()).await?;
        let api: Arc<dyn Api> = Arc::new(engine.api(administrator));
        let state = AppState {
            api: Arc::clone(&api),
            store: parts.store,
            host: parts.host,
            clock: parts.clock,
            key: KeyHash::of(&key),
            limits,
            metrics: Metrics::default(),
            stopping: CancellationToken::new(),
        };
        Ok(Self {
            listener,
            doors,
            rpc: Server::new(api, Some(key)),
            state,
            engine,
            host,
            pool_size: config.pool_size,
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` comes, then stops within 10 seconds. Sandboxes run on.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let Self {
            listener,
            doors,
            rpc,
            state,
            engine,
            host,
            pool_size,
        } = self;
        let stopping = state.stopping.clone();
        let (limits, metrics) = (state.limits, state.metrics.clone());
        let router = app::router(state)?;
        if pool_size > 0 {
            tokio::spawn(warm_up(host.clone()));
        }
        let serving = serve(listener, router, limits, metrics, stopping.clone());
        let remote = rpc::serve(&rpc, doors, &stopping);
        let until_stop = async {
            stop.await;
            tracing::info!("stopping; sandboxes run on");
            stopping.cancel();
            if !engine.shutdown().await {
                tracing::warn!("operations were in flight; the next start settles them");
            }
        };
        let (served, (), ()) = tokio::join!(serving, remote, until_stop);
        if timeout(HOST_STOP_TIMEOUT, host.shutdown()).await.is_err() {
            tracing::warn!("the host was at work; the next start settles what it left");
        }
        served.map_err(DaemonError::Serve)
    }
}

/// Connections may use what the system's limits leave.
fn fitted(mut limits: Limits) -> Limits {
    match raise_open_files() {
        Ok(files) => {
            let room = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
            limits.connections_max = limits.connections_max.min(room.max(64));
        }
        Err(error) => tracing::warn!(%error, "the limit of open files can't be raised"),
    }
    limits
}

/// Boots the default template where that was never done, so that the first create is a fast one.
async fn warm_up(host: HostManager) {
    let started = SystemClock.now();
    match host
        .prepare(&TemplateName::default(), MachineSize::default())
        .await
    {
        Ok(()) => {
            let took_ms = (SystemClock.now() - started).num_milliseconds();
            tracing::info!(took_ms, "the default template is ready");
        }
        Err(error) => tracing::warn!(%error, "the default template could not be made ready"),
    }
}
