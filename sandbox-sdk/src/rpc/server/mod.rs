//! The control plane's end: whose key opens what, and each call handed to the engine. How
//! connections are taken and let go of is [`sandbox_host::rpc`]'s.

mod door;
mod pieces;
mod requests;
mod service;
mod told;
mod uploads;
mod waiting;

use std::{fmt, future::Future, io, sync::Arc};

use sandbox_core::api::Api;
use sandbox_host::rpc::{Bounds, Listener};
use uuid::Uuid;

use door::Door;
use service::Service;
use uploads::Room;

/// The most calls of one connection at a time; a client of ours holds itself back before.
const IN_FLIGHT_MAX: usize = 512;
/// The most connections of one listener at a time.
const CONNECTIONS_MAX: usize = 1024;
/// The most bytes of build contexts that are on their way in at a time.
const UPLOADS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Serves clients. Clones are one server: a client that loses its connection to one listener may
/// go on at another.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Core>,
}

/// What all connections share.
struct Core {
    /// The first is the owner's.
    doors: Vec<Arc<Door>>,
    instance: Uuid,
    uploads: Room,
}

impl Core {
    /// The door that opens for a client. The owner needs no key where the system let nobody else in.
    /// With a key it is whoever the key says, there too: a key that is not known, such as a team's
    /// that was taken away, makes nobody the owner.
    fn door_for(&self, shown: &str, private: bool) -> Option<Arc<Door>> {
        // All of them are tried: how long it takes does not tell which one opened.
        let open = self.doors.iter().filter(|door| door.opens_for(shown));
        let open: Vec<&Arc<Door>> = open.collect();
        let keyless = shown.is_empty() || !self.doors.iter().any(|door| door.has_key());
        let owner = self.doors.first().filter(|_| private && keyless);
        open.first().copied().or(owner).cloned()
    }
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
                doors: vec![Arc::new(Door::new(api, key))],
                instance: Uuid::now_v7(),
                uploads: Room::for_bytes(UPLOADS_BYTES_MAX),
            }),
        }
    }

    /// Takes clients with another key too, who ask through an interface of their own, such as a
    /// team's.
    #[must_use]
    pub fn with_key(self, key: String, api: Arc<dyn Api>) -> Self {
        let mut doors = self.shared.doors.clone();
        doors.push(Arc::new(Door::new(api, Some(key))));
        Self {
            shared: Arc::new(Core {
                doors,
                instance: self.shared.instance,
                uploads: self.shared.uploads.clone(),
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
        if !listener.is_private() && !self.shared.doors.iter().any(|door| door.has_key()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{listener} would be open to everyone: a key is needed"),
            ));
        }
        let bounds = Bounds {
            connections_max: CONNECTIONS_MAX,
            calls_max: IN_FLIGHT_MAX,
        };
        sandbox_host::rpc::serve(listener, bounds, shutdown, |session| {
            Service::new(Arc::clone(&self.shared), session)
        })
        .await;
        Ok(())
    }
}
