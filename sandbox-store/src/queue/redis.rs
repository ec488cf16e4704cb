//! A queue on Redis: the bell that several control planes share.
//!
//! ```text
//!   announce ──► a connection ── RPUSH ──► [ list ] ──► BLPOP ── a connection ──► task ──► next
//!                                             ▲                                    │
//!                                             └── LPUSH ── nobody waits any more ◄─┘
//! ```
//!
//! A connection in `BLPOP` can do nothing else, so each wait has one of its own while it lasts. A
//! `BLPOP` that is let go of loses what it was about to get: each runs on a task of its own, which
//! ends it in order (`CLIENT UNBLOCK`) when its caller has gone, and puts back what came all the same.
//! Connections in doubt are let go of; how new ones are made is in `links`.

mod address;
mod links;
mod wait;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use fred::interfaces::ListInterface;
use sandbox_core::{
    id::BuildId,
    queue::{Queue, QueueError, WAKE_UPS_MAX},
};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use address::Address;
use links::{Links, Trouble};

pub use address::RedisUrlError;

/// Waits at a time; further ones wait for their turn to wait. Each holds a connection.
const WAITS_MAX: u32 = 64;

/// How a [`RedisQueue`] uses its server.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// What the names of all keys begin with. Default: `sandbox:`.
    pub key_prefix: String,
    /// How long connecting may take, and how long any answer may take that needs no waiting.
    /// Default: 3 s.
    pub command_timeout: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            key_prefix: "sandbox:".to_owned(),
            command_timeout: Duration::from_secs(3),
        }
    }
}

/// Why a queue can't be opened. Never says a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisOpenError {
    /// The URL makes no sense.
    #[error("the URL of the Redis server makes no sense")]
    Url(#[from] RedisUrlError),
    /// The server can't be reached, refuses, or is none.
    #[error("the Redis server at {endpoint} can't be used: {problem}")]
    Connect {
        /// Its socket.
        endpoint: String,
        /// What went wrong.
        problem: String,
    },
}

/// A [`Queue`] on a Redis server (6 or newer), for any number of processes.
///
/// While the server is away [`Queue::next`] goes on trying; where it has fallen silent, a patience of
/// less than four seconds may be overdrawn by one. [`Queue::announce`] fails within
/// [`RedisSettings::command_timeout`]; when it is back, both work again by themselves.
#[derive(Clone)]
pub struct RedisQueue {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisQueue")
            .field("endpoint", &self.shared.links.endpoint())
            .field("key", &self.shared.key)
            .finish()
    }
}

struct Shared {
    links: Links,
    /// The list of wake-ups.
    key: String,
    command_timeout: Duration,
    /// Held by each wait until it has left nothing behind.
    waits: Arc<Semaphore>,
    closed: watch::Sender<bool>,
}

impl RedisQueue {
    /// Looks at a URL without using it.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub fn check_url(url: &str) -> Result<(), RedisUrlError> {
        Address::of(url).map(drop)
    }

    /// Opens the queue on the server that this URL names, with default settings.
    ///
    /// # Errors
    /// As [`RedisQueue::open_with`].
    pub async fn open(url: &str) -> Result<Self, RedisOpenError> {
        Self::open_with(url, RedisSettings::default()).await
    }

    /// Opens the queue on the server that this URL names: `redis://user:password@host:port/database`
    /// (`rediss://` for TLS, with the certificates that this system trusts), or
    /// `redis+unix:///path/of/socket`. Queues with the same database and key prefix are one. Call it
    /// within a tokio runtime.
    ///
    /// # Errors
    /// Says what stands in the way: a URL that makes no sense, a server that can't be reached,
    /// refuses, or has something else under the queue's key.
    pub async fn open_with(url: &str, settings: RedisSettings) -> Result<Self, RedisOpenError> {
        let address = Address::of(url)?;
        let endpoint = address.endpoint.clone();
        let links = Links::new(address, settings.command_timeout);
        let key = format!("{}builds", settings.key_prefix);
        let failed = |problem| RedisOpenError::Connect { endpoint, problem };
        let limit = 2 * settings.command_timeout;
        let tried = timeout(limit, async {
            let link = links.get().await?;
            let waiting: Result<u64, _> = link.client().llen(&key).await;
            match waiting {
                Ok(_) => links.give_back(link),
                Err(error) => return Err(links.failed(link, &error)),
            }
            Ok(())
        });
        match tried.await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => return Err(failed(trouble.0)),
            Err(_) => return Err(failed(format!("no answer within {} ms", limit.as_millis()))),
        }
        Ok(Self {
            shared: Arc::new(Shared {
                links,
                key,
                command_timeout: settings.command_timeout,
                waits: Arc::new(Semaphore::new(WAITS_MAX as usize)),
                closed: watch::Sender::new(false),
            }),
        })
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Puts a wake-up at the list's end, or back at its front.
    async fn push(&self, id: BuildId, back: bool) -> Result<(), Trouble> {
        loop {
            let link = self.links.get().await?;
            match self.push_over(link.client(), id, back).await {
                Ok(()) => {
                    self.links.give_back(link);
                    return Ok(());
                }
                // One that was kept may have been dead for long.
                Err(error) if link.is_kept() => drop(self.links.failed(link, &error)),
                Err(error) => return Err(self.links.failed(link, &error)),
            }
        }
    }

    async fn push_over(
        &self,
        client: &fred::clients::Client,
        id: BuildId,
        back: bool,
    ) -> Result<(), fred::error::Error> {
        let text = id.to_string();
        let length: u64 = if back {
            client.lpush(&self.key, text).await?
        } else {
            client.rpush(&self.key, text).await?
        };
        if length > WAKE_UPS_MAX as u64 {
            let last = i64::try_from(WAKE_UPS_MAX).unwrap_or(i64::MAX) - 1;
            let _: () = client.ltrim(&self.key, 0, last).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Queue for RedisQueue {
    async fn announce(&self, id: BuildId) -> Result<(), QueueError> {
        let shared = &self.shared;
        if shared.is_closed() {
            return Err(QueueError::Closed);
        }
        let pushed = timeout(shared.command_timeout, shared.push(id, false)).await;
        match pushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Trouble(problem))) => Err(QueueError::Unavailable(problem)),
            Err(_) => Err(QueueError::Unavailable(shared.links.no_answer())),
        }
    }

    async fn next(&self, patience: Duration) -> Result<Option<BuildId>, QueueError> {
        let deadline = Instant::now() + patience;
        let mut closed = self.shared.closed.subscribe();
        let answer = async {
            let waits = Arc::clone(&self.shared.waits);
            // All waits are taken: those who have one will hear of what comes.
            let turn = match timeout_at(deadline, waits.acquire_owned()).await {
                Err(_) => return Ok(None),
                Ok(Err(_)) => return Err(QueueError::Closed),
                Ok(Ok(turn)) => turn,
            };
            let (answer, answered) = oneshot::channel();
            // Its caller may go; it ends what it began.
            tokio::spawn(wait::run(Arc::clone(&self.shared), turn, deadline, answer));
            match answered.await {
                Ok(answer) => answer.map(|taken| taken.map(wait::Taken::keep)),
                Err(_) => Err(QueueError::Unavailable("the runtime stops".to_owned())),
            }
        };
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(QueueError::Closed),
            answer = answer => answer,
        }
    }

    async fn close(&self) {
        let shared = &self.shared;
        if shared.closed.send_replace(true) {
            return;
        }
        // Waits have seen it, and put back what they hold.
        let ended = timeout(shared.command_timeout, shared.waits.acquire_many(WAITS_MAX));
        if ended.await.is_err() {
            tracing::debug!("waits for wake-ups did not end in time");
        }
        shared.waits.close();
        shared.links.close().await;
    }
}
