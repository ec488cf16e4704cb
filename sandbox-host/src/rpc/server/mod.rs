//! A host, served to control planes.

mod reports;
mod service;

use std::{fmt, future::Future, io, sync::Arc};

use sandbox_core::{host::Host, wire::Secret};
use uuid::Uuid;

use super::serve::{Bounds, Listener, serve};
use reports::Reports;
use service::Service;

/// A control plane or two, and what is left of their earlier connections.
const CONNECTIONS_MAX: usize = 64;
/// Each command that someone waits for is a call.
const CALLS_MAX: usize = 8192;

/// Serves control planes. Clones are one server.
#[derive(Clone)]
pub struct HostServer {
    core: Arc<Core>,
}

/// What all connections share.
struct Core {
    host: Arc<dyn Host>,
    secret: Option<Secret>,
    reports: Reports,
    /// Differs after each start: a host's sequence begins anew then.
    instance: Uuid,
}

impl fmt::Debug for HostServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostServer")
            .field("instance", &self.core.instance)
            .finish_non_exhaustive()
    }
}

/// Why a listener is not served: others could come in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLocal {
    /// It takes connections from other machines.
    #[error(
        "{0} can be reached from other machines, and what passes is not encrypted: listen on a \
         unix socket or a loopback address, such as tcp:127.0.0.1:7070"
    )]
    OtherMachines(String),
    /// Everyone on this machine could come in.
    #[error("{0} would be open to everyone on this machine: a secret is needed")]
    NoSecret(String),
}

impl From<NotLocal> for io::Error {
    fn from(error: NotLocal) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

impl HostServer {
    /// A server of this host. Clients over TCP must show `secret`; a unix socket is its owner's
    /// alone and asks for none.
    #[must_use]
    pub fn new(host: Arc<dyn Host>, secret: Option<String>) -> Self {
        Self {
            core: Arc::new(Core {
                host,
                secret: secret.and_then(Secret::new),
                reports: Reports::default(),
                instance: Uuid::now_v7(),
            }),
        }
    }

    /// Serves clients until `shutdown` resolves. Returns when all connections are closed, about a
    /// second later at most. Orders under way go on.
    ///
    /// # Errors
    /// See [`NotLocal`].
    pub async fn serve(
        &self,
        listener: Listener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), NotLocal> {
        self.check(&listener)?;
        let bounds = Bounds {
            connections_max: CONNECTIONS_MAX,
            calls_max: CALLS_MAX,
        };
        serve(listener, bounds, shutdown, |session| {
            Service::new(Arc::clone(&self.core), session)
        })
        .await;
        Ok(())
    }

    /// Whether the listener is one to be served.
    ///
    /// # Errors
    /// See [`NotLocal`].
    pub fn check(&self, listener: &Listener) -> Result<(), NotLocal> {
        if !listener.is_local() {
            return Err(NotLocal::OtherMachines(listener.to_string()));
        }
        if !listener.is_private() && self.core.secret.is_none() {
            return Err(NotLocal::NoSecret(listener.to_string()));
        }
        Ok(())
    }
}
