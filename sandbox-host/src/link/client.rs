//! The host's end of a guest link.
//!
//! One connection, made when first needed and shared by all calls. When it is lost, every call on it
//! fails with [`CallError::ConnectionLost`] and the next one dials again. Nothing is sent twice.
//!
//! ```text
//! idle ──call──► dialling ──preamble answered──► connected
//!   ▲              │ ▲ └─ refused: back off, again ─┘ │
//!   └──────────────┴─┴────── lost, disconnect() ──────┘        gone: every call fails at once
//! ```

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::BytesMut;
use futures::future::BoxFuture;
use sandbox_core::guest::{CallError, GuestError};
use tarpc::{client::RpcError, context::Context};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_util::codec::Framed;

use super::{
    codec::MessageCodec,
    preamble::{self, Preamble},
    protocol::{AgentHello, GuestAgentClient, Identity, Waking},
};

mod guest;

/// Opens the stream to a guest.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, io::Result<UnixStream>> + Send + Sync>;

/// How long an ordinary call may take. Generous: an emulated guest on a busy host is slow.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// For calls that bring data to disk or remove whole trees.
const SLOW_CALL_LIMIT: Duration = Duration::from_secs(300);
/// No wait that a caller names is taken to be longer.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// After a call without an answer, a connection that does not answer this soon either is dropped.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A guest, reached through its agent. Clones share the connection.
#[derive(Clone)]
pub struct GuestClient {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Connector,
    not_running: watch::Receiver<Option<String>>,
    connection: Mutex<Option<Connection>>,
    /// How many [`Hold`]s there are: no connection is made while there is one.
    holds: watch::Sender<usize>,
}

/// Keeps a guest's link closed.
pub struct Hold {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.holds.send_modify(|holds| *holds -= 1);
    }
}

struct Connection {
    client: GuestAgentClient,
    dispatch: JoinHandle<()>,
    lost: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.dispatch.abort();
    }
}

impl std::fmt::Debug for GuestClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestClient").finish_non_exhaustive()
    }
}

impl GuestClient {
    /// A client that opens its stream with `connector`. As soon as `not_running` holds a reason,
    /// pending and new calls fail with it.
    #[must_use]
    pub fn new(connector: Connector, not_running: watch::Receiver<Option<String>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                connector,
                not_running,
                connection: Mutex::new(None),
                holds: watch::Sender::new(0),
            }),
        }
    }

    /// A client of a unix socket, at most 107 bytes of path.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>, not_running: watch::Receiver<Option<String>>) -> Self {
        let path = path.into();
        let connector: Connector = Arc::new(move || {
            let path = path.clone();
            Box::pin(async move { UnixStream::connect(path).await })
        });
        Self::new(connector, not_running)
    }

    /// Waits until the guest answers, for at most `limit`, through refused and lost connections.
    ///
    /// # Errors
    /// [`CallError::NoAnswer`] when it did not in time, [`CallError::NotRunning`] when it is gone.
    pub async fn wait_ready(&self, limit: Duration) -> Result<AgentHello, CallError> {
        let until = Instant::now() + limit;
        let mut backoff = Backoff::default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.hello(left).await {
                Err(CallError::ConnectionLost) if !left.is_zero() => backoff.wait().await,
                Err(CallError::NoAnswer(_)) => return Err(CallError::NoAnswer(limit)),
                other => return other,
            }
        }
    }

    /// Asks the agent for its version, for at most `limit`.
    ///
    /// # Errors
    /// As for every call.
    pub async fn hello(&self, limit: Duration) -> Result<AgentHello, CallError> {
        self.call(limit, async |client, context| {
            client.hello(context).await.map(Ok)
        })
        .await
    }

    /// Makes the guest an individual; see [`Identity`].
    ///
    /// # Errors
    /// As for every call.
    pub async fn identify(&self, identity: Identity) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.identify(context, identity).await
        })
        .await
    }

    /// Has the guest go through an identity and a first command ahead of time.
    ///
    /// # Errors
    /// As for every call.
    pub async fn warm_up(&self, placeholder: Identity) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.warm_up(context, placeholder).await
        })
        .await
    }

    /// Brings everything that the guest has written to its disk.
    ///
    /// # Errors
    /// As for every call.
    pub async fn prepare_snapshot(&self) -> Result<(), CallError> {
        self.call(SLOW_CALL_LIMIT, async |client, context| {
            client.prepare_snapshot(context).await
        })
        .await
    }

    /// Brings the machine to rest, for at most `limit`; see [`GuestAgent::quiesce`].
    ///
    /// # Errors
    /// As for every call. The machine may come to rest later, after [`CallError::NoAnswer`].
    ///
    /// [`GuestAgent::quiesce`]: super::protocol::GuestAgent::quiesce
    pub async fn quiesce(&self, trim: bool, limit: Duration) -> Result<(), CallError> {
        self.call(limit, async |client, context| {
            client.quiesce(context, trim).await
        })
        .await
    }

    /// Has a machine at rest go on.
    ///
    /// # Errors
    /// As for every call.
    pub async fn wake(&self, waking: Waking) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.wake(context, waking).await
        })
        .await
    }

    /// Closes the connection and returns when its socket is closed, as it must be before a memory
    /// snapshot. Calls under way fail; the next call dials again.
    pub async fn disconnect(&self) {
        drop(self.disconnect_and_hold().await);
    }

    /// [`disconnect`](Self::disconnect), and keeps new calls waiting, each within its limit, until
    /// the hold is dropped.
    pub async fn disconnect_and_hold(&self) -> Hold {
        self.shared.holds.send_modify(|holds| *holds += 1);
        let hold = Hold {
            shared: Arc::clone(&self.shared),
        };
        if let Some(mut connection) = self.shared.connection.lock().await.take() {
            connection.dispatch.abort();
            // Cancelled, which is what was asked for.
            let _ = (&mut connection.dispatch).await;
        }
        hold
    }

    /// One call: gets a connection, sends, and waits for at most `limit` in all.
    async fn call<T>(
        &self,
        limit: Duration,
        send: impl AsyncFnOnce(GuestAgentClient, Context) -> Result<Result<T, GuestError>, RpcError>,
    ) -> Result<T, CallError> {
        let mut not_running = self.shared.not_running.clone();
        let gone = async move {
            let reason = match not_running.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone(),
                Err(_) => None,
            };
            match reason {
                Some(reason) => reason,
                // Nobody is left who could tell.
                None => std::future::pending().await,
            }
        };
        let exchange = async {
            let mut context = tarpc::context::current();
            context.deadline = Instant::now() + limit;
            let (client, lost) = self.connected().await;
            let answer = send(client.clone(), context).await;
            match answer {
                Ok(answer) => Ok(answer?),
                Err(RpcError::DeadlineExceeded) => {
                    self.probe(client, lost);
                    Err(CallError::NoAnswer(limit))
                }
                Err(_) => {
                    lost.store(true, Ordering::Release);
                    Err(CallError::ConnectionLost)
                }
            }
        };
        tokio::select! {
            biased;
            reason = gone => Err(CallError::NotRunning(reason)),
            answer = exchange => answer,
            // tarpc's own deadline comes first where a connection was made.
            () = tokio::time::sleep(limit + Duration::from_millis(50)) => {
                Err(CallError::NoAnswer(limit))
            }
        }
    }

    /// A call had no answer in time. Either that call is slow or the link is dead: asks again, and
    /// gives the connection up where nothing comes back.
    fn probe(&self, client: GuestAgentClient, lost: Arc<AtomicBool>) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let mut context = tarpc::context::current();
            context.deadline = Instant::now() + PROBE_LIMIT;
            if client.ping(context).await.is_ok() {
                return;
            }
            let mut slot = shared.connection.lock().await;
            if let Some(connection) = slot.as_ref()
                && Arc::ptr_eq(&connection.lost, &lost)
            {
                *slot = None;
            }
        });
    }

    /// The shared connection, dialled if there is none. Does not give up: its caller has a limit.
    async fn connected(&self) -> (GuestAgentClient, Arc<AtomicBool>) {
        let mut holds = self.shared.holds.subscribe();
        loop {
            // The sender is ours.
            let _ = holds.wait_for(|holds| *holds == 0).await;
            let mut slot = self.shared.connection.lock().await;
            if *holds.borrow() > 0 {
                continue;
            }
            if let Some(connection) = slot.as_ref()
                && !connection.lost.load(Ordering::Acquire)
                && !connection.dispatch.is_finished()
            {
                return (connection.client.clone(), Arc::clone(&connection.lost));
            }
            *slot = None;
            let connection = tokio::select! {
                connection = dial_until_answered(&self.shared.connector) => connection,
                _ = holds.wait_for(|holds| *holds > 0) => continue,
            };
            let shared = (connection.client.clone(), Arc::clone(&connection.lost));
            *slot = Some(connection);
            return shared;
        }
    }
}

async fn dial_until_answered(connector: &Connector) -> Connection {
    let mut backoff = Backoff::default();
    loop {
        match dial(connector).await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::trace!(%error, "the guest link is not there yet");
                backoff.wait().await;
            }
        }
    }
}

/// Opens a stream and agrees on its beginning with the agent.
async fn dial(connector: &Connector) -> io::Result<Connection> {
    let mut stream = connector().await?;
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&uuid::Uuid::now_v7().as_bytes()[8..]);
    let preamble = Preamble::new(nonce);
    let mut input = BytesMut::with_capacity(4 * 1024);
    let mut repeat = tokio::time::interval(Duration::from_millis(preamble::REPEAT_MS));
    // A full socket buffer must not keep us from reading, so writing is one branch of the loop.
    let mut unsent: &[u8] = &[];
    while !preamble::find_own(&mut input, &preamble) {
        let wanted = if unsent.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        tokio::select! {
            ready = stream.ready(wanted) => {
                let ready = ready?;
                if ready.is_readable()
                    && unless_blocked(stream.try_read_buf(&mut input))? == Some(0)
                {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if ready.is_writable() && !unsent.is_empty() {
                    let written = unless_blocked(stream.try_write(unsent))?.unwrap_or(0);
                    unsent = &unsent[written..];
                }
            }
            _ = repeat.tick(), if unsent.is_empty() => unsent = preamble.as_bytes(),
        }
    }
    stream.write_all(unsent).await?;
    let mut transport = Framed::new(stream, MessageCodec::new(preamble));
    *transport.read_buffer_mut() = input;
    let tarpc::client::NewClient { client, dispatch } =
        GuestAgentClient::new(tarpc::client::Config::default(), transport);
    let dispatch = tokio::spawn(async move {
        if let Err(error) = dispatch.await {
            tracing::debug!(%error, "the guest link was lost");
        }
    });
    Ok(Connection {
        client,
        dispatch,
        lost: Arc::default(),
    })
}

fn unless_blocked(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits that double up to a bound, each by chance up to a half shorter, so that the clients of
/// many guests do not dial in step.
#[derive(Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    fn next_wait(&mut self, chance: u8) -> Duration {
        let full = BACKOFF_FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(BACKOFF_MAX);
        self.attempts += 1;
        full - full.mul_f64(f64::from(chance) / 512.0)
    }

    async fn wait(&mut self) {
        let chance = uuid::Uuid::now_v7().as_bytes()[15];
        tokio::time::sleep(self.next_wait(chance)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound_and_never_below_half() {
        let mut backoff = Backoff::default();
        for attempt in 0..40u32 {
            let full = BACKOFF_FIRST
                .saturating_mul(1 << attempt.min(16))
                .min(BACKOFF_MAX);
            let wait = backoff.next_wait(if attempt % 2 == 0 { 255 } else { 0 });
            assert!(wait <= full && wait >= full / 2);
        }
    }
}
