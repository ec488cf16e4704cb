//! Connections to a Redis server: made within a deadline and not too often, kept while they are good,
//! let go of once in doubt.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientInterface, ClientLike},
    types::{
        ConnectHandle,
        config::{ConnectionConfig, PerformanceConfig, ReconnectPolicy, TcpConfig},
    },
};
use tokio::time::{Instant, sleep_until, timeout};

use super::address::Address;

/// Connections that are kept while nobody uses them.
const IDLE_MAX: usize = 8;
/// Waits between attempts to connect: from the first, doubled up to the second, each with a bit of
/// chance, so that many programs do not come all at once.
const BACKOFF_MS: (u32, u32) = (50, 5_000);
const JITTER_MS: u32 = 50;

/// What went wrong, in words for an operator.
#[derive(Debug)]
pub(super) struct Trouble(pub(super) String);

/// A connection.
pub(super) struct Link {
    client: Client,
    driver: ConnectHandle,
    /// The server's number for it.
    id: Option<i64>,
    kept: bool,
}

impl Link {
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) const fn id(&self) -> Option<i64> {
        self.id
    }

    /// Whether it was used before, and so may have died since.
    pub(super) const fn is_kept(&self) -> bool {
        self.kept
    }

    fn is_good(&self) -> bool {
        !self.driver.is_finished() && self.client.is_connected()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The client's task would go on without it.
        self.driver.abort();
    }
}

struct State {
    idle: Vec<Link>,
    closed: bool,
    policy: ReconnectPolicy,
    not_before: Instant,
}

/// The connections to one server.
pub(super) struct Links {
    address: Address,
    timeout: Duration,
    state: Arc<Mutex<State>>,
}

fn fresh_policy() -> ReconnectPolicy {
    let (first, most) = BACKOFF_MS;
    let mut policy = ReconnectPolicy::new_exponential(0, first, most, 2);
    policy.set_jitter(JITTER_MS);
    policy
}

impl Links {
    pub(super) fn new(address: Address, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            state: Arc::new(Mutex::new(State {
                idle: Vec::new(),
                closed: false,
                policy: fresh_policy(),
                not_before: Instant::now(),
            })),
        }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.address.endpoint
    }

    pub(super) fn no_answer(&self) -> String {
        format!("the Redis server at {} does not answer", self.endpoint())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that nobody else uses: one that was kept, or a new one, once it may be made.
    pub(super) async fn get(&self) -> Result<Link, Trouble> {
        let not_before = {
            let mut state = self.state();
            while let Some(link) = state.idle.pop() {
                if link.is_good() {
                    return Ok(link);
                }
            }
            state.not_before
        };
        sleep_until(not_before).await;
        self.connect().await.inspect_err(|_| self.back_off())
    }

    async fn connect(&self) -> Result<Link, Trouble> {
        let client = Client::new(
            self.address.config.clone(),
            // Waits have no limit but their own.
            Some(PerformanceConfig {
                default_command_timeout: Duration::ZERO,
                ..PerformanceConfig::default()
            }),
            Some(ConnectionConfig {
                connection_timeout: self.timeout,
                internal_command_timeout: self.timeout,
                max_command_attempts: 1,
                disable_cluster_health_check: true,
                tcp: TcpConfig {
                    nodelay: Some(true),
                    ..TcpConfig::default()
                },
                ..ConnectionConfig::default()
            }),
            // A connection that broke is replaced from here.
            None,
        );
        // On a task of its own, since one that is let go of in the middle would connect to the end
        // and stay. It has the limits above.
        let connecting = tokio::spawn(async move {
            let driver = client.init().await?;
            let id = client.connection_ids().into_values().next();
            Ok::<_, Error>(Link {
                client,
                driver,
                id,
                kept: false,
            })
        });
        match connecting.await {
            Ok(connected) => connected.map_err(|error| self.trouble(&error)),
            Err(error) => Err(Trouble(format!("the connection was not made: {error}"))),
        }
    }

    fn trouble(&self, error: &Error) -> Trouble {
        Trouble(format!(
            "the Redis server at {}: {}",
            self.endpoint(),
            error.details()
        ))
    }

    fn back_off(&self) {
        let mut state = self.state();
        let delay = state.policy.next_delay().unwrap_or(u64::from(BACKOFF_MS.1));
        state.not_before = Instant::now() + Duration::from_millis(delay);
    }

    /// All went well with it.
    pub(super) fn give_back(&self, mut link: Link) {
        link.kept = true;
        let mut state = self.state();
        state.policy = fresh_policy();
        state.not_before = Instant::now();
        if !state.closed && state.idle.len() < IDLE_MAX {
            state.idle.push(link);
        }
    }

    /// A command failed on it, which ends it.
    pub(super) fn failed(&self, link: Link, error: &Error) -> Trouble {
        let is_new = !link.kept;
        drop(link);
        if is_new {
            self.back_off();
        }
        self.trouble(error)
    }

    /// Nothing came back over it, and so may not over others.
    pub(super) fn hung(&self, link: Link) {
        drop(link);
        self.state().idle.clear();
    }

    /// Takes leave of the server.
    pub(super) async fn close(&self) {
        let idle = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.idle)
        };
        let quits = idle.iter().map(|link| link.client.quit());
        let quits = futures::future::join_all(quits);
        if timeout(self.timeout, quits).await.is_err() {
            tracing::debug!("connections to Redis were not closed in time");
        }
    }
}
