//! One daemon's life: assemble, serve, stop.
//!
//! ```text
//!  bind ──► host (locks the folder) ──► queue, records ──► engine ──► key ──► ready ──► serve
//!                                                                                 │ SIGTERM, SIGINT
//!              gone ◄── host lets go ◄── operations end, requests are answered ◄──┘
//! ```

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    engine::{Engine, EngineConfig, Parts},
    error::Error,
};
use sandbox_host::{SystemClock, daemon::KeyFileError};
use sandbox_sdk::rpc::{Listener, Server};
use sandbox_store::RedisOpenError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    admin_key, app,
    config::Config,
    database::DatabaseError,
    host::{DaemonHost, OpenHostError},
    keyring::Keyring,
    limits::Limits,
    metrics::Metrics,
    queue::OpenQueue,
    rpc,
    serve::{raise_open_files, serve},
    state::AppState,
    team_keys::{self, TeamKey, TeamKeysError},
};

/// What operations in flight get to end, at a stop: less than requests get, which wait for them.
const ENGINE_STOP_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// The host can't be opened, or not reached.
    #[error(transparent)]
    Host(#[from] OpenHostError),
    /// The database can't be opened.
    #[error("the records can't be opened")]
    Database(#[from] DatabaseError),
    /// The queue that wakes workers up can't be opened.
    #[error("the queue can't be opened")]
    Queue(#[from] RedisOpenError),
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
    Key(#[from] KeyFileError),
    /// The teams' keys can't be used.
    #[error(transparent)]
    TeamKeys(#[from] TeamKeysError),
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
    host: DaemonHost,
    queue: OpenQueue,
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
        // The lock on the data folder comes with it, and so first.
        let host = DaemonHost::open(&config).await?;
        let queue = config.queue.open().await?;
        let parts = Parts {
            store: config.database.open().await?,
            host: host.as_host(),
            queue: Arc::clone(&queue),
            clock: Arc::new(SystemClock),
        };
        let engine_config = EngineConfig {
            sole_owner: config.database.is_ours_alone(),
            shutdown_timeout: ENGINE_STOP_TIMEOUT,
            build_workers: config.build_workers,
            ..EngineConfig::DEFAULT
        };
        let engine = Engine::start(parts.clone(), engine_config)
            .await
            .map_err(DaemonError::Engine)?;
        let metrics = Metrics::default();
        let counting = metrics.clone();
        engine.on_operation_end(move |ended| counting.operation_ended(ended));
        let administrator = Actor::api_key("admin-key");
        let key = admin_key::read_or_make(&config.data)?;
        let team_keys = match &config.team_keys {
            Some(path) => team_keys::read(path, &key)?,
            None => Vec::new(),
        };
        let doors = rpc::open(&config.data, config.rpc_listen.as_deref()).await?;
        let api: Arc<dyn Api> = Arc::new(engine.api(Caller::admin(administrator)));
        let mut keys = Keyring::new().with(&key, Arc::clone(&api));
        let mut rpc = Server::new(api, Some(key));
        for TeamKey { team_id, key } in team_keys {
            let actor = Actor::api_key(team_id.to_string());
            let teams: Arc<dyn Api> = Arc::new(engine.api(Caller::team(actor, team_id)));
            keys = keys.with(&key, Arc::clone(&teams));
            rpc = rpc.with_key(key, teams);
        }
        let state = AppState {
            keys,
            store: parts.store,
            host: parts.host,
            clock: parts.clock,
            limits,
            metrics,
            stopping: CancellationToken::new(),
        };
        Ok(Self {
            listener,
            doors,
            rpc,
            state,
            engine,
            host,
            queue: OpenQueue(queue),
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
            queue: OpenQueue(queue),
            pool_size,
        } = self;
        let stopping = state.stopping.clone();
        let (limits, metrics) = (state.limits, state.metrics.clone());
        let router = app::router(state)?;
        if pool_size > 0 {
            host.warm_up();
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
        queue.close().await;
        host.shutdown().await;
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
