//! One connection to a control plane.

use std::{
    future::Future,
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use sandbox_core::{
    error::Error,
    wire::{Address, ClientCodec, ClientHello, Heard, NoWelcome, judge},
};
use tarpc::context::Context;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::AbortHandle,
};
use tokio_util::codec::Framed;
use uuid::Uuid;

use crate::rpc::protocol::{ControlPlaneClient, PROTOCOL_VERSION};

/// How long making a connection may take, the first words included.
pub(super) const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How often the other side is asked whether it is there.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// How long it may take to answer.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(10);
/// The most messages that wait for an answer; fewer than the server takes, since it counts those
/// that we gave up until it hears of that.
const IN_FLIGHT_MAX: usize = 400;
/// The most calls at a time. Heartbeats always find room beside them.
pub(super) const CALLS_MAX: usize = 384;

pub(super) struct Connection {
    pub(super) client: ControlPlaneClient,
    /// Which process is at the other end.
    pub(super) instance: Uuid,
    capabilities: Vec<String>,
    lost: AtomicBool,
    dispatch: Task,
    _heartbeat: Task,
}

/// A task that ends with its owner.
struct Task(AbortHandle);

impl Task {
    fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// Nobody answers for now.
    Unreachable(String),
    /// It would go the same way again.
    Refused(Error),
}

impl DialError {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Unreachable(words) => Error::Unavailable(words),
            Self::Refused(error) => error,
        }
    }
}

impl Connection {
    pub(super) async fn dial(
        address: &Address,
        key: Option<&str>,
        limit: Duration,
    ) -> Result<Self, DialError> {
        let unreachable = |words: &dyn std::fmt::Display| {
            DialError::Unreachable(format!(
                "can't reach the control plane at {address}: {words}"
            ))
        };
        let dialling = async {
            let io = |error: io::Error| unreachable(&error);
            match address {
                Address::Unix(path) => {
                    greet(
                        UnixStream::connect(path).await.map_err(io)?,
                        address,
                        key,
                        limit,
                    )
                    .await
                }
                Address::Tcp(place) => {
                    let stream = TcpStream::connect(place).await.map_err(io)?;
                    stream.set_nodelay(true).map_err(io)?;
                    greet(stream, address, key, limit).await
                }
            }
        };
        match tokio::time::timeout(limit, dialling).await {
            Ok(done) => done,
            Err(_) => Err(unreachable(&format_args!("no answer in {limit:?}"))),
        }
    }

    /// Whether the other side has said that it can do this.
    pub(super) fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.dispatch.0.is_finished()
    }

    /// Ends the connection. Calls on it fail, and are sent again on the next.
    pub(super) fn give_up(&self) {
        self.lost.store(true, Ordering::Release);
        self.dispatch.0.abort();
    }
}

async fn greet(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    address: &Address,
    key: Option<&str>,
    limit: Duration,
) -> Result<Connection, DialError> {
    let heard = Heard::default();
    let transport = Framed::new(stream, ClientCodec::new(heard.clone()));
    let mut config = tarpc::client::Config::default();
    config.max_in_flight_requests = IN_FLIGHT_MAX;
    let tarpc::client::NewClient { client, dispatch } = ControlPlaneClient::new(config, transport);
    let dispatch = Task::spawn(async move {
        if let Err(error) = dispatch.await {
            tracing::debug!(%error, "the connection to the control plane was lost");
        }
    });
    let hello = ClientHello::new(PROTOCOL_VERSION, key);
    let answer = client.hello(context(limit), hello).await;
    let hello = judge(PROTOCOL_VERSION, answer).map_err(|error| turned_away(&error, address))?;
    let heartbeat = Task::spawn(watch_over(client.clone(), heard, dispatch.0.clone()));
    Ok(Connection {
        client,
        instance: hello.instance,
        capabilities: hello.capabilities,
        lost: AtomicBool::new(false),
        dispatch,
        _heartbeat: heartbeat,
    })
}

/// How we tell that there was no welcome.
fn turned_away(error: &NoWelcome, address: &Address) -> DialError {
    let words = format!("the control plane at {address} {error}");
    match error {
        NoWelcome::TooFar { .. } => DialError::Refused(Error::Unsupported(words)),
        NoWelcome::Unauthorized => DialError::Refused(Error::Unauthorized(words)),
        NoWelcome::NoAnswer(_) => DialError::Unreachable(words),
    }
}

/// Ends a connection whose other side has gone without a word: everything that waits on it then
/// learns of that.
async fn watch_over(client: ControlPlaneClient, heard: Heard, dispatch: AbortHandle) {
    loop {
        heard.lately();
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        let answer = client.heartbeat(context(HEARTBEAT_LIMIT)).await;
        // Behind much that is on its way, the answer may come late.
        if answer.is_err() && !heard.lately() {
            dispatch.abort();
            return;
        }
    }
}

fn context(limit: Duration) -> Context {
    let mut context = tarpc::context::current();
    context.deadline = Instant::now() + limit;
    context
}
