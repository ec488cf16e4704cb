//! The one connection to a host, kept by a task of its own.
//!
//! ```text
//! dialling ──hello──► connected ──lost──► away ──pause, longer each time──► dialling
//!     └── nobody there ──► away          └── calls on it fail or are asked again
//!     └── turned away ───► refused: calls fail at once, dialling goes on
//! ```

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use sandbox_core::wire::{
    Address, ClientCodec, ClientHello, Heard, NoWelcome, judge, shorter_by_chance,
};
use tarpc::{client::RpcError, context::Context};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::codec::Framed;
use uuid::Uuid;

use super::{
    calls::{Calls, Client},
    sequence::{Numbers, Sequence},
};
use crate::rpc::protocol::PROTOCOL_VERSION;

/// How long making a connection may take, the first words included.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How often the other side is asked whether it is there.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(10);
/// The most messages that wait for an answer; fewer than the server takes, since it counts those
/// that we gave up until it hears of that.
const IN_FLIGHT_MAX: usize = 6000;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection that lasted this long was a good one.
const LASTING: Duration = Duration::from_secs(1);
/// How often in a row a call's connection may be lost at once: perhaps it is this very call that
/// ends connections.
const QUICK_LOSSES_MAX: u32 = 6;

/// Whether a call whose connection was lost is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It does what it does once, or nothing.
    Always,
    /// It may do something each time.
    Never,
}

/// Why a call gave no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent: nobody was there.
    NotSent(String),
    /// It was sent, and its connection was lost.
    Lost(String),
    /// There was no answer in time.
    NoAnswer(Duration),
    /// It does not fit a message.
    TooLarge(String),
    /// The other side takes no more calls for now.
    Busy,
    /// The other side can't answer it.
    Unanswerable(String),
}

/// There is no connection.
#[derive(Debug, Clone)]
pub(super) struct Away {
    pub(super) words: String,
    refused: bool,
}

/// A connection that has been made.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) numbers: Numbers,
}

#[derive(Clone)]
enum State {
    Connected(Arc<Connection>),
    Away(Away),
}

/// The way to a host.
pub(super) struct Line {
    address: Address,
    state: watch::Receiver<State>,
    keeper: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Line {
    /// Begins to dial.
    pub(super) fn new(address: Address, secret: Option<String>) -> Self {
        let first = Away {
            words: format!("the host at {address} has not answered yet"),
            refused: false,
        };
        let (sender, state) = watch::channel(State::Away(first));
        let keeper = Keeper {
            address: address.clone(),
            secret,
            sequence: Sequence::default(),
            state: sender,
        };
        let keeper = tokio::spawn(keeper.keep()).abort_handle();
        Self {
            address,
            state,
            keeper,
        }
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(&*self.state.borrow(), State::Away(away) if away.refused)
    }

    /// The connection, waited for unless that is of no use.
    pub(super) async fn connected(&self, until: Instant) -> Result<Arc<Connection>, Away> {
        let mut state = self.state.clone();
        // In time or not, what stands there then is the answer.
        let _ = timeout_at(
            until,
            state.wait_for(|state| match state {
                State::Connected(_) => true,
                State::Away(away) => away.refused,
            }),
        )
        .await;
        match &*state.borrow() {
            State::Connected(connection) => Ok(Arc::clone(connection)),
            State::Away(away) => Err(away.clone()),
        }
    }

    /// Waits until it is known that a connection is lost.
    async fn lost(&self, lost: &Arc<Connection>, until: Instant) {
        let mut state = self.state.clone();
        let other = state
            .wait_for(|state| !matches!(state, State::Connected(now) if Arc::ptr_eq(now, lost)));
        // Where it is not known in time, the next attempt fails the same way.
        let _ = timeout_at(until, other).await;
    }

    /// Asks, over further connections where it may be asked again, for as long as there is patience
    /// for a connection to come back.
    pub(super) async fn call<T, F>(
        &self,
        again: Again,
        patience: Duration,
        limit: Duration,
        send: impl Fn(Arc<Connection>, Context) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        let mut until = Instant::now() + patience;
        let mut quick_losses = 0;
        let mut sent = false;
        // Asked again, it is the same call. Where it belongs to no request, the other side logs it
        // under this ID.
        let trace_id = Uuid::now_v7();
        loop {
            let connection = match self.connected(until).await {
                Ok(connection) => connection,
                Err(away) if sent => return Err(Failure::Lost(away.words)),
                Err(away) => return Err(Failure::NotSent(away.words)),
            };
            let sent_at = Instant::now();
            let mut context = tarpc::context::current();
            context.deadline = StdInstant::now() + limit;
            context.trace_context.trace_id = trace_id.as_u128().into();
            sent = true;
            match send(Arc::clone(&connection), context).await {
                Ok(answer) => return Ok(answer),
                Err(RpcError::Shutdown | RpcError::Channel(_)) => {}
                Err(RpcError::DeadlineExceeded) => return Err(Failure::NoAnswer(limit)),
                Err(RpcError::Send(problem)) => {
                    return Err(Failure::TooLarge(problem.to_string()));
                }
                Err(RpcError::Server(error)) if error.kind == io::ErrorKind::WouldBlock => {
                    return Err(Failure::Busy);
                }
                Err(RpcError::Server(error)) => return Err(Failure::Unanswerable(error.detail)),
            }
            if again == Again::Never {
                let words = format!("the connection to the host at {} was lost", self.address);
                return Err(Failure::Lost(words));
            }
            if sent_at.elapsed() >= LASTING {
                quick_losses = 0;
                until = Instant::now() + patience;
            } else {
                quick_losses += 1;
                if quick_losses >= QUICK_LOSSES_MAX {
                    let words = format!(
                        "the connection to the host at {} is lost each time",
                        self.address
                    );
                    return Err(Failure::Lost(words));
                }
            }
            self.lost(&connection, until).await;
        }
    }
}

/// Makes the connection, and makes it again.
struct Keeper {
    address: Address,
    secret: Option<String>,
    sequence: Sequence,
    state: watch::Sender<State>,
}

/// Why there is no connection.
enum DialError {
    /// Nobody answers for now.
    Unreachable(String),
    /// It would go the same way again.
    Refused(String),
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = BACKOFF_FIRST;
        loop {
            let away = match timeout(DIAL_LIMIT, self.dial()).await {
                Ok(Ok(dialled)) => {
                    tracing::info!(address = %self.address, "the host is reached");
                    let since = Instant::now();
                    let words = self.hold(dialled).await;
                    tracing::warn!(address = %self.address, reason = %words, "the host was lost");
                    if since.elapsed() >= LASTING {
                        pause = BACKOFF_FIRST;
                    }
                    Away {
                        words: format!(
                            "the connection to the host at {} was lost: {words}",
                            self.address
                        ),
                        refused: false,
                    }
                }
                Ok(Err(DialError::Unreachable(words))) => Away {
                    words: format!("can't reach the host at {}: {words}", self.address),
                    refused: false,
                },
                Ok(Err(DialError::Refused(words))) => Away {
                    words: format!("the host at {} {words}", self.address),
                    refused: true,
                },
                Err(_) => Away {
                    words: format!(
                        "the host at {} gave no answer in {DIAL_LIMIT:?}",
                        self.address
                    ),
                    refused: false,
                },
            };
            self.tell(away);
            sleep(shorter_by_chance(pause)).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Says why there is no connection; logs it where that is news.
    fn tell(&self, away: Away) {
        let known = match &*self.state.borrow() {
            State::Away(before) => before.words == away.words,
            State::Connected(_) => true,
        };
        if !known {
            tracing::warn!(reason = %away.words, "the host does not answer");
        }
        self.state.send_replace(State::Away(away));
    }

    async fn dial(&mut self) -> Result<Dialled, DialError> {
        let io = |error: io::Error| DialError::Unreachable(error.to_string());
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(io)?;
                self.greet(stream).await
            }
            Address::Tcp(place) => {
                let places: Vec<_> = lookup_host(place.as_str()).await.map_err(io)?.collect();
                if places.iter().any(|place| !place.ip().is_loopback()) {
                    let words = "is another machine, and what passes would not be encrypted: use a \
                                 unix socket or a loopback address";
                    return Err(DialError::Refused(words.to_owned()));
                }
                let stream = TcpStream::connect(&places[..]).await.map_err(io)?;
                stream.set_nodelay(true).map_err(io)?;
                self.greet(stream).await
            }
        }
    }

    async fn greet(
        &mut self,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
    ) -> Result<Dialled, DialError> {
        let heard = Heard::default();
        let transport = Framed::new(stream, ClientCodec::new(heard.clone()));
        let mut config = tarpc::client::Config::default();
        config.max_in_flight_requests = IN_FLIGHT_MAX;
        let tarpc::client::NewClient { client, dispatch } = tarpc::client::new(config, transport);
        let client = Client::from(Calls::on(client));
        let mut dispatch: Dispatch = Box::pin(async move {
            match dispatch.await {
                Ok(()) => "it was closed".to_owned(),
                Err(error) => error.to_string(),
            }
        });
        let hello = ClientHello::new(PROTOCOL_VERSION, self.secret.as_deref());
        let answer = tokio::select! {
            answer = client.hello(context(DIAL_LIMIT), hello) => answer,
            words = &mut dispatch => return Err(DialError::Unreachable(words)),
        };
        let hello = judge(PROTOCOL_VERSION, answer).map_err(|error| match error {
            NoWelcome::NoAnswer(_) => DialError::Unreachable(error.to_string()),
            NoWelcome::TooFar { .. } | NoWelcome::Unauthorized => {
                DialError::Refused(error.to_string())
            }
        })?;
        let numbers = self.sequence.of(hello.instance);
        Ok(Dialled {
            connection: Arc::new(Connection { client, numbers }),
            dispatch,
            heard,
        })
    }

    /// Lets calls use a connection until it is lost; gives the reason.
    async fn hold(&self, dialled: Dialled) -> String {
        let Dialled {
            connection,
            dispatch,
            heard,
        } = dialled;
        let client = connection.client.clone();
        self.state.send_replace(State::Connected(connection));
        // Whichever ends first, both end: everything that waits for an answer then learns of that.
        tokio::select! {
            words = dispatch => words,
            () = silence(client, heard) => "it has gone without a word".to_owned(),
        }
    }
}

type Dispatch = std::pin::Pin<Box<dyn Future<Output = String> + Send>>;

struct Dialled {
    connection: Arc<Connection>,
    dispatch: Dispatch,
    heard: Heard,
}

/// Returns when the other side gives no sign of life.
async fn silence(client: Client, heard: Heard) {
    loop {
        // What was heard before does not count.
        heard.lately();
        sleep(HEARTBEAT_INTERVAL).await;
        let answer = client.heartbeat(context(HEARTBEAT_LIMIT)).await;
        // Behind much that is on its way, the answer may come late.
        if answer.is_err() && !heard.lately() {
            return;
        }
    }
}

fn context(limit: Duration) -> Context {
    let mut context = tarpc::context::current();
    context.deadline = StdInstant::now() + limit;
    context
}
