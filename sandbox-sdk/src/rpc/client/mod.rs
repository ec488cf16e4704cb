//! The client's end: one connection, shared by all calls and dialled again when it is lost.
//!
//! ```text
//! connected ──lost──► dialling, pausing longer each time ──► connected
//!     ▲                    │ calls wait and are sent again       │ the same process: any call
//!     │                    └─ patience at an end: calls fail     │ another one: calls that may
//!     └──────────────────────────────────────────────────────────┘ be done twice without harm
//! ```

mod api;
mod builds;
mod connection;
mod exec;
mod templates;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use sandbox_core::{
    error::Error,
    wire::{Address, shorter_by_chance},
};
use tarpc::{client::RpcError, context::Context};
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use uuid::Uuid;

use super::protocol::ControlPlaneClient;
use crate::{Client, Result};
use connection::{Connection, DialError};

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection that a call was on for this long was a good one.
const LASTING: Duration = Duration::from_secs(1);
/// How often in a row a call's connection may be lost at once.
const QUICK_LOSSES_MAX: u32 = 6;

/// How a control plane is reached.
#[derive(Clone)]
#[non_exhaustive]
pub struct RemoteConfig {
    /// `unix:/path/to/socket` or `tcp:HOST:PORT`.
    pub address: String,
    /// The API key. A unix socket that the caller may open asks for none.
    pub key: Option<String>,
    /// How long a call waits for a lost connection to come back before it fails; 15 s by default.
    pub patience: Duration,
}

impl RemoteConfig {
    /// The default, for this address.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            key: None,
            patience: Duration::from_secs(15),
        }
    }

    /// With this API key. It travels as it is: over TCP, use it on a network that you trust.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With calls that wait this long for a lost connection to come back.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        f.debug_struct("RemoteConfig")
            .field("address", &self.address)
            .field("key", &self.key.as_ref().map(|_| "…"))
            .field("patience", &self.patience)
            .finish()
    }
}

impl Client {
    /// Connects to a control plane that listens at `unix:/path/to/socket` or `tcp:HOST:PORT`.
    ///
    /// A connection that is lost later is made again by itself, and calls go on over it; see
    /// [`RemoteConfig::patience`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), sandbox_sdk::Error> {
    /// use sandbox_sdk::Client;
    ///
    /// let client = Client::connect("unix:/var/lib/sandbox/sandboxd.sock").await?;
    /// let sandbox = client.create().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for an address that is none, [`Error::Unavailable`] where nobody
    /// answers, [`Error::Unauthorized`] where a key is needed, [`Error::Unsupported`] where the
    /// other side is of a version too far from ours.
    pub async fn connect(address: impl Into<String>) -> Result<Self> {
        Self::connect_with(RemoteConfig::new(address)).await
    }

    /// Like [`connect`](Self::connect), with a key and other settings.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn connect_with(config: RemoteConfig) -> Result<Self> {
        Ok(Self::from_api(Arc::new(Remote::connect(config).await?)))
    }
}

/// A control plane elsewhere.
pub(super) struct Remote {
    address: Address,
    key: Option<String>,
    patience: Duration,
    line: Mutex<Line>,
    room: Semaphore,
}

/// The connection, and how the last attempt to make one went.
struct Line {
    connection: Option<Arc<Connection>>,
    failed: Option<(Instant, String)>,
}

/// Whether a call may be sent again after its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Done twice is as good as once.
    Always,
    /// It carries a request ID, which the process that got it knows.
    SameInstance,
}

impl Remote {
    async fn connect(config: RemoteConfig) -> Result<Self> {
        let address: Address = config.address.parse()?;
        let first = Connection::dial(&address, config.key.as_deref(), connection::DIAL_LIMIT).await;
        let first = first.map_err(DialError::into_error)?;
        Ok(Self {
            address,
            key: config.key,
            patience: config.patience,
            line: Mutex::new(Line {
                connection: Some(Arc::new(first)),
                failed: None,
            }),
            room: Semaphore::new(connection::CALLS_MAX),
        })
    }

    /// One call, sent again where its connection is lost.
    async fn call<T, F>(
        &self,
        again: Again,
        limit: Duration,
        send: impl Fn(ControlPlaneClient, Context) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Result<T, Error>, RpcError>>,
    {
        // Never closed.
        let _place = self.room.acquire().await;
        let mut sent_to: Option<Uuid> = None;
        let mut until = Instant::now() + self.patience;
        let mut quick_losses = 0;
        // Sent again, it is the same request: the other side logs it under this ID.
        let trace_id = Uuid::now_v7().as_u128().into();
        loop {
            let connection = match self.connected(until).await {
                Ok(connection) => connection,
                Err(DialError::Unreachable(words)) if sent_to.is_some() => {
                    return Err(maybe_done(&words));
                }
                Err(error) => return Err(error.into_error()),
            };
            if again == Again::SameInstance
                && sent_to.is_some_and(|instance| instance != connection.instance)
            {
                return Err(maybe_done("the control plane was started anew"));
            }
            let sent_at = Instant::now();
            let mut context = tarpc::context::current();
            context.deadline = std::time::Instant::now() + limit;
            context.trace_context.trace_id = trace_id;
            let error = match send(connection.client.clone(), context).await {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            match error {
                RpcError::Shutdown | RpcError::Channel(_) => {}
                RpcError::DeadlineExceeded => {
                    let words = format!("{} gave no answer in {limit:?}", self.address);
                    return Err(maybe_done(&words));
                }
                RpcError::Send(problem) => return Err(Error::InvalidRequest(problem.to_string())),
                RpcError::Server(refusal) if refusal.kind == std::io::ErrorKind::WouldBlock => {
                    let words = format!("{} has too much to do; try again later", self.address);
                    return Err(Error::Unavailable(words));
                }
                RpcError::Server(refusal) => return Err(Error::Internal(refusal.detail)),
            }
            connection.give_up();
            sent_to = Some(connection.instance);
            if sent_at.elapsed() >= LASTING {
                quick_losses = 0;
                until = Instant::now() + self.patience;
            } else {
                // Perhaps it is this very call that ends connections.
                quick_losses += 1;
                if quick_losses >= QUICK_LOSSES_MAX {
                    let words = format!("the connection to {} is lost each time", self.address);
                    return Err(maybe_done(&words));
                }
                tokio::time::sleep(shorter_by_chance(BACKOFF_FIRST * quick_losses)).await;
            }
        }
    }

    /// Fails where the other side does not know such calls: sent all the same, they would end the
    /// connection.
    async fn need(&self, capability: &str) -> Result<()> {
        let until = Instant::now() + self.patience;
        let connection = self.connected(until).await.map_err(DialError::into_error)?;
        if connection.can(capability) {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "the control plane at {} is of a release without {capability}",
            self.address
        )))
    }

    /// The connection, made again where it was lost, for as long as there is time.
    async fn connected(&self, until: Instant) -> Result<Arc<Connection>, DialError> {
        let asked_at = Instant::now();
        let mut line = self.line.lock().await;
        if let Some(connection) = line.connection.as_ref().filter(|one| !one.is_lost()) {
            return Ok(Arc::clone(connection));
        }
        line.connection = None;
        // Those who waited while another dialled in vain need not all do the same.
        if let Some((at, words)) = &line.failed
            && *at >= asked_at
            && Instant::now() >= until
        {
            return Err(DialError::Unreachable(words.clone()));
        }
        let mut pause = BACKOFF_FIRST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let limit = left.clamp(BACKOFF_MAX, connection::DIAL_LIMIT);
            match Connection::dial(&self.address, self.key.as_deref(), limit).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    line.connection = Some(Arc::clone(&connection));
                    return Ok(connection);
                }
                Err(DialError::Unreachable(words)) => {
                    if Instant::now() + pause > until {
                        line.failed = Some((Instant::now(), words.clone()));
                        return Err(DialError::Unreachable(words));
                    }
                }
                Err(refused) => return Err(refused),
            }
            tokio::time::sleep(shorter_by_chance(pause)).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }
}

fn maybe_done(words: &str) -> Error {
    Error::Unavailable(format!(
        "{words}; what was asked for may have been done, or may still be"
    ))
}
