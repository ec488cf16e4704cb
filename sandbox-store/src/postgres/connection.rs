//! Connections: made within a deadline, bounded in number, never used again once in doubt.

use std::{
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult,
    Timeouts,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use sandbox_core::store::StoreError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tokio_postgres::{NoTls, SimpleQueryMessage, error::SqlState};

use super::{
    PostgresSettings,
    address::{Address, Endpoint},
    error::{Fault, Refusal, answer, chain, fault_of_state},
    tap::{LastState, Tap},
};

pub(super) type Conn = AsyncPgConnection;
pub(super) type Transactions = <Conn as AsyncConnection>::TransactionManager;

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing answers there.
    #[error("the server at {endpoint} can't be reached")]
    Unreachable {
        /// Its socket.
        endpoint: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The server, or what listens in its place, refused: an unknown user or database, a wrong
    /// password, too many connections, a server that only just starts.
    #[error("the server at {endpoint} refused")]
    Refused {
        /// Its socket.
        endpoint: String,
        /// What it said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server only follows another one, and takes no writes.
    #[error("the server at {endpoint} is a standby")]
    Standby {
        /// Its socket.
        endpoint: String,
    },
    /// The server took too long.
    #[error("the server at {endpoint} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// Its socket.
        endpoint: String,
        /// How long it had.
        timeout_ms: u128,
    },
    /// The connection broke while it was set up.
    #[error("the connection could not be set up")]
    SetUp(#[source] diesel::ConnectionError),
}

impl ConnectError {
    /// Whatever a server may have against a connection can be mended while this runs.
    fn fault(&self) -> Fault {
        match self {
            Self::Refused { source, .. }
                if source.code().map(fault_of_state) == Some(Fault::Full) =>
            {
                Fault::Full
            }
            _ => Fault::Busy,
        }
    }
}

/// A connection.
pub(super) struct Link {
    pub(super) conn: Conn,
    pub(super) last: LastState,
    pub(super) driver: Driver,
}

impl Link {
    pub(super) fn take_state(&self) -> Option<SqlState> {
        self.last.take()
    }

    /// What ends the connection from elsewhere.
    pub(super) fn cutter(&self) -> AbortHandle {
        self.driver.0.abort_handle()
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// The task that moves a connection's bytes. Ends with the connection, whatever that may still be
/// doing: a server that sees its client gone rolls back what was not committed.
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn dial(endpoint: &Endpoint) -> io::Result<Box<dyn Stream>> {
    let tcp = match endpoint {
        Endpoint::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Endpoint::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
        Endpoint::Ip(ip, port) => TcpStream::connect((*ip, *port)).await?,
    };
    // Short messages that each wait for an answer.
    tcp.set_nodelay(true)?;
    Ok(Box::new(tcp))
}

/// Connects to the first of the servers that takes writes.
pub(super) async fn connect(
    address: &Address,
    settings: &PostgresSettings,
) -> Result<Link, ConnectError> {
    let mut last = None;
    for endpoint in &address.endpoints {
        let attempt = connect_to(endpoint, address, settings);
        let limit = settings.connect_timeout;
        match timeout(limit, attempt).await.unwrap_or_else(|_| {
            Err(ConnectError::TimedOut {
                endpoint: endpoint.to_string(),
                timeout_ms: limit.as_millis(),
            })
        }) {
            Ok(link) => return Ok(link),
            Err(error) => {
                tracing::debug!(%error, "no connection");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| ConnectError::Unreachable {
        endpoint: "nowhere".to_owned(),
        source: io::ErrorKind::AddrNotAvailable.into(),
    }))
}

async fn connect_to(
    endpoint: &Endpoint,
    address: &Address,
    settings: &PostgresSettings,
) -> Result<Link, ConnectError> {
    let refused = |source| ConnectError::Refused {
        endpoint: endpoint.to_string(),
        source,
    };
    let stream = dial(endpoint)
        .await
        .map_err(|source| ConnectError::Unreachable {
            endpoint: endpoint.to_string(),
            source,
        })?;
    let last = LastState::default();
    let tap = Tap::on(stream, last.clone());
    let (client, connection) = address
        .config
        .connect_raw(tap, NoTls)
        .await
        .map_err(refused)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the database ended");
        }
    });
    let driver = Driver(driver);
    let answers = client
        .simple_query(&session(settings.statement_timeout))
        .await
        .map_err(refused)?;
    let standby = answers.iter().any(
        |answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get("standby") == Some("t")),
    );
    if standby {
        return Err(ConnectError::Standby {
            endpoint: endpoint.to_string(),
        });
    }
    let conn = Conn::try_from(client).await.map_err(ConnectError::SetUp)?;
    Ok(Link { conn, last, driver })
}

/// Settings of a session. The server itself ends what would take too long, and lets go of the locks
/// of a program that fell silent.
fn session(statement_timeout: Duration) -> String {
    let ms = statement_timeout.as_millis().max(1);
    format!(
        "SET statement_timeout = {ms}; SET lock_timeout = {ms}; \
         SET idle_in_transaction_session_timeout = {ms}; \
         SELECT pg_is_in_recovery() AS standby"
    )
}

/// Makes connections for the pool, and sorts out those that are of no more use.
#[derive(Debug)]
pub(super) struct Dialer {
    address: Address,
    settings: PostgresSettings,
}

impl Manager for Dialer {
    type Type = Link;
    type Error = ConnectError;

    async fn create(&self) -> Result<Link, ConnectError> {
        connect(&self.address, &self.settings).await
    }

    async fn recycle(&self, link: &mut Link, _: &Metrics) -> RecycleResult<ConnectError> {
        if link.driver.0.is_finished()
            || Transactions::is_broken_transaction_manager(&mut link.conn)
        {
            return Err(RecycleError::message("the connection ended"));
        }
        Ok(())
    }
}

/// A bounded number of connections.
#[derive(Debug)]
pub(super) struct Connections {
    pool: Pool<Dialer>,
}

impl Connections {
    #[expect(
        clippy::expect_used,
        reason = "a pool refuses time limits without a runtime to time them, and this one has one"
    )]
    pub(super) fn new(address: Address, settings: &PostgresSettings) -> Self {
        let config = PoolConfig {
            max_size: settings.connections_max.get(),
            timeouts: Timeouts {
                wait: Some(settings.statement_timeout),
                // Each attempt has a limit of its own.
                create: None,
                recycle: None,
            },
            // Those that are idle longest are used last, and can be let go of by the server.
            queue_mode: QueueMode::Lifo,
        };
        let dialer = Dialer {
            address,
            settings: settings.clone(),
        };
        let pool = Pool::builder(dialer)
            .config(config)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("time limits have a runtime");
        Self { pool }
    }

    pub(super) async fn lease(&self) -> Result<Lease, Refusal> {
        let refused = |fault, message| Refusal {
            answer: answer(fault, message),
            fault,
        };
        match self.pool.get().await {
            Ok(object) => {
                object.last.take();
                Ok(Lease(Some(object)))
            }
            Err(PoolError::Backend(error)) => Err(refused(error.fault(), chain(&error))),
            Err(PoolError::Timeout(_)) => {
                let all = "all connections to the database are busy";
                Err(refused(Fault::Busy, all.to_owned()))
            }
            Err(error) => Err(StoreError::Internal(error.to_string()).into()),
        }
    }

    /// Lets go of all connections that nobody uses: where one was lost, the others are likely to be.
    pub(super) fn renew(&self) {
        self.pool.retain(|_, _| false);
    }
}

/// A connection in use. Goes back to the others only by [`Lease::give_back`]; a caller that goes
/// away in the middle leaves none behind that is in a transaction or busy with a query.
pub(super) struct Lease(Option<Object<Dialer>>);

impl Lease {
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Lease {
    type Target = Link;

    #[expect(clippy::expect_used, reason = "only what ends the lease takes it out")]
    fn deref(&self) -> &Link {
        self.0.as_ref().expect("there until the end")
    }
}

impl DerefMut for Lease {
    #[expect(clippy::expect_used, reason = "only what ends the lease takes it out")]
    fn deref_mut(&mut self) -> &mut Link {
        self.0.as_mut().expect("there until the end")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
