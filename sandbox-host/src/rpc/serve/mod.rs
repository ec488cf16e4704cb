//! The server's end of any of our interfaces: accepting connections and serving each until its
//! client has gone.
//!
//! ```text
//!  accept ──► stranger ──hello, key fits──► served ──┬── client gone, unreadable input, silence
//!                │                                   └── shutdown: calls under way get a moment
//!                └── no good hello in time, or its place is needed: closed
//! ```

mod listener;
mod session;
mod strangers;
mod traced;

use std::{future::Future, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::Shared, stream::FuturesUnordered};
use sandbox_core::wire::{FrameLimit, ServerCodec};
use serde::{Serialize, de::DeserializeOwned};
use tarpc::server::{BaseChannel, Channel};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::codec::Framed;

pub use listener::Listener;
use listener::Stream;
pub use session::Session;
use strangers::Strangers;
pub use traced::Answer;
use traced::Traced;

/// The most calls of a stranger at a time: to show who it is takes one.
const STRANGER_CALLS_MAX: usize = 4;
/// How long a stranger may take to show who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Clients speak up four times as often. One that does not has gone without a word.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long calls under way may go on when the server is to end. Their work goes on in any case.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How much a server takes on.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most connections of one listener at a time.
    pub connections_max: usize,
    /// The most calls of one connection at a time; a client of ours holds itself back before.
    pub calls_max: usize,
}

/// Serves clients of one listener until `shutdown` resolves. Returns when all connections are
/// closed, about a second later at most.
///
/// `welcome` gives what serves a connection's calls. Calls end with their connection; what must not
/// end there runs on tasks of its own.
pub async fn serve<S, D>(
    listener: Listener,
    bounds: Bounds,
    shutdown: impl Future<Output = ()> + Send + 'static,
    welcome: impl Fn(Arc<Session<D>>) -> S,
) where
    D: Clone + Send + 'static,
    S: Answer<Req: DeserializeOwned, Resp: Serialize>,
{
    let mut shutdown = shutdown.boxed().shared();
    let mut connections = JoinSet::new();
    let mut strangers = Strangers::new();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    let full = connections.len() >= bounds.connections_max;
                    if full && !strangers.turn_out_the_oldest() {
                        tracing::warn!(%listener, "too many connections; one is refused");
                        continue;
                    }
                    let limit = FrameLimit::for_a_stranger();
                    let session = Arc::new(Session::new(limit.clone(), listener.is_private()));
                    let connection = Connection {
                        service: welcome(Arc::clone(&session)),
                        stream,
                        limit,
                        session: Arc::clone(&session),
                        calls_max: bounds.calls_max,
                    };
                    let handle = connections.spawn(connection.serve(shutdown.clone()));
                    strangers.add(session, handle);
                }
                Err(error) => {
                    tracing::warn!(%listener, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

struct Connection<S, D> {
    service: S,
    stream: Stream,
    limit: FrameLimit,
    session: Arc<Session<D>>,
    calls_max: usize,
}

impl<S, D> Connection<S, D>
where
    D: Clone,
    S: Answer<Req: DeserializeOwned, Resp: Serialize>,
{
    /// Serves one client to its end.
    async fn serve(self, shutdown: Shared<impl Future<Output = ()>>) {
        let codec = ServerCodec::<S::Req, S::Resp>::new(self.limit);
        let requests = BaseChannel::with_defaults(Framed::new(self.stream, codec))
            .max_concurrent_requests(self.calls_max)
            .execute(Traced(self.service));
        let mut requests = std::pin::pin!(requests);
        // Dropping the set drops what is left of them.
        let mut calls = FuturesUnordered::new();
        let mut too_late = std::pin::pin!(tokio::time::sleep(HELLO_LIMIT));
        let mut shutdown = std::pin::pin!(shutdown);
        let (mut known, mut ending) = (false, false);
        loop {
            let mut heard = false;
            tokio::select! {
                biased;
                Some(()) = calls.next(), if !calls.is_empty() => {}
                call = requests.next(), if known || calls.len() < STRANGER_CALLS_MAX => match call {
                    Some(call) => {
                        calls.push(call);
                        heard = true;
                    }
                    None => break,
                },
                () = &mut shutdown, if !ending => {
                    ending = true;
                    too_late.as_mut().reset(Instant::now() + SHUTDOWN_GRACE);
                }
                () = &mut too_late => break,
            }
            if ending && calls.is_empty() {
                break;
            }
            let is_known = self.session.door().is_some();
            // A stranger's time runs on whatever it says, until it has shown who it is.
            if is_known && (heard || !known) && !ending {
                too_late.as_mut().reset(Instant::now() + SILENCE_MAX);
            }
            known = is_known;
        }
    }
}
