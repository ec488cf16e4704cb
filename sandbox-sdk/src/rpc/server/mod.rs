//! The control plane's end: accepting connections and serving each until its client has gone.
//!
//! ```text
//!  accept ──► stranger ──hello, key fits──► served ──┬── client gone, unreadable input, silence
//!                │                                   └── shutdown: calls under way get a moment
//!                └── no good hello in time: closed
//! ```

mod listener;
mod pieces;
mod requests;
mod service;
mod session;

use std::{fmt, future::Future, io, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::Shared, stream::FuturesUnordered};
use sandbox_core::api::Api;
use tarpc::server::{BaseChannel, Channel};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::codec::Framed;
use uuid::Uuid;

use super::{
    codec::{FrameLimit, ServerCodec},
    protocol::ControlPlane,
};
pub use listener::Listener;
use listener::Stream;
use requests::Requests;
use service::Service;
use session::{Key, Session};

/// The most calls of one connection at a time; a client of ours holds itself back before.
const IN_FLIGHT_MAX: usize = 512;
/// The most connections of one listener at a time.
const CONNECTIONS_MAX: usize = 1024;
/// How long a stranger may take to show who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Clients speak up four times as often. One that does not has gone without a word.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long calls under way may go on when the server is to end. Their work goes on in any case.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves clients. Clones are one server: a client that loses its connection to one listener may
/// go on at another.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Core>,
}

/// What all connections share.
struct Core {
    api: Arc<dyn Api>,
    key: Option<Key>,
    requests: Requests,
    instance: Uuid,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("instance", &self.shared.instance)
            .finish_non_exhaustive()
    }
}

/// Serves clients of one listener until `shutdown` resolves; see [`Server::serve`].
///
/// # Errors
/// Where the listener is not a unix socket and there is no key.
pub async fn serve(
    listener: Listener,
    api: Arc<dyn Api>,
    key: Option<String>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    Server::new(api, key).serve(listener, shutdown).await
}

impl Server {
    /// A server of this interface. Clients over TCP must show `key`; the unix socket is its owner's
    /// alone and asks for none.
    #[must_use]
    pub fn new(api: Arc<dyn Api>, key: Option<String>) -> Self {
        Self {
            shared: Arc::new(Core {
                api,
                key: key.filter(|key| !key.is_empty()).map(Key::new),
                requests: Requests::default(),
                instance: Uuid::now_v7(),
            }),
        }
    }

    /// Serves clients until `shutdown` resolves. Returns when all connections are closed, about a
    /// second later at most. Work that clients began goes on.
    ///
    /// # Errors
    /// Where the listener is not a unix socket and the server has no key: it would be open to
    /// everyone.
    pub async fn serve(
        &self,
        listener: Listener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        if !listener.is_private() && self.shared.key.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{listener} would be open to everyone: a key is needed"),
            ));
        }
        let mut shutdown = shutdown.boxed().shared();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(stream) => {
                        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                            tracing::warn!(%listener, "too many connections; one is refused");
                            continue;
                        };
                        let core = Arc::clone(&self.shared);
                        let private = listener.is_private();
                        let shutdown = shutdown.clone();
                        connections.spawn(async move {
                            serve_connection(core, stream, private, shutdown).await;
                            drop(place);
                        });
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
        Ok(())
    }
}

/// Serves one client to its end.
async fn serve_connection(
    core: Arc<Core>,
    stream: Stream,
    private: bool,
    shutdown: Shared<impl Future<Output = ()>>,
) {
    let limit = FrameLimit::for_a_stranger();
    let transport = Framed::new(stream, ServerCodec::new(limit.clone()));
    let session = Arc::new(Session::new(limit, private));
    let service = Service::new(core, Arc::clone(&session));
    let requests = BaseChannel::with_defaults(transport)
        .max_concurrent_requests(IN_FLIGHT_MAX)
        .execute(service.serve());
    let mut requests = std::pin::pin!(requests);
    // Calls end with their connection: dropping the set drops what is left of them. What must not
    // end there runs on tasks of its own.
    let mut calls = FuturesUnordered::new();
    let mut too_late = std::pin::pin!(tokio::time::sleep(HELLO_LIMIT));
    let mut shutdown = std::pin::pin!(shutdown);
    let mut ending = false;
    loop {
        tokio::select! {
            biased;
            Some(()) = calls.next(), if !calls.is_empty() => {}
            call = requests.next() => match call {
                Some(call) => {
                    calls.push(call);
                    if session.is_known() && !ending {
                        too_late.as_mut().reset(Instant::now() + SILENCE_MAX);
                    }
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
    }
}
