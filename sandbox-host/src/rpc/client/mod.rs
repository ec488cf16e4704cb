//! A host that is another process.

pub(in crate::rpc) mod calls;
mod causes;
mod guest;
mod host;
mod line;
mod sequence;

use std::{fmt, sync::Arc, time::Duration};

use sandbox_core::{error::Error, host::HostError, wire::Address};
use tokio::sync::Semaphore;

pub use causes::CauseLayer;
use line::Line;

/// The most calls to guests at a time. Orders always find room beside them.
const GUEST_CALLS_MAX: usize = 4096;

/// How a host is reached.
#[derive(Clone)]
#[non_exhaustive]
pub struct RemoteHostConfig {
    /// `unix:/path/to/socket` or `tcp:HOST:PORT`, with a host that is this machine.
    pub address: String,
    /// The host's secret. A unix socket that the caller may open asks for none.
    pub secret: Option<String>,
    /// How long a call waits for a lost connection to come back before it fails; 15 s by default.
    pub patience: Duration,
}

impl RemoteHostConfig {
    /// The default, for this address.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            secret: None,
            patience: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for RemoteHostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("RemoteHostConfig")
            .field("address", &self.address)
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("patience", &self.patience)
            .finish()
    }
}

/// A host that is another process, with the same calls and results. Clones share one connection,
/// which is made again for as long as one of them is there.
///
/// Orders and reads whose connection is lost are asked again; the host does each order once. Other
/// calls to guests are not: they fail with
/// [`CallError::ConnectionLost`](sandbox_core::guest::CallError::ConnectionLost).
#[derive(Clone)]
pub struct RemoteHost {
    shared: Arc<Shared>,
}

struct Shared {
    line: Line,
    patience: Duration,
    room: Semaphore,
}

impl fmt::Debug for RemoteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHost")
            .field("address", self.shared.line.address())
            .finish_non_exhaustive()
    }
}

impl RemoteHost {
    /// Begins to connect, and does not wait for it: see [`reached`](Self::reached).
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for an address that is none.
    pub fn new(config: RemoteHostConfig) -> Result<Self, Error> {
        let address: Address = config.address.parse()?;
        Ok(Self {
            shared: Arc::new(Shared {
                line: Line::new(address, config.secret),
                patience: config.patience,
                room: Semaphore::new(GUEST_CALLS_MAX),
            }),
        })
    }

    /// Returns when the host has been reached, after `wait` at the latest.
    ///
    /// # Errors
    /// [`HostError::Unavailable`] with the reason, and at once where waiting won't help, such as
    /// for a secret that is not the host's.
    pub async fn reached(&self, wait: Duration) -> Result<(), HostError> {
        let until = tokio::time::Instant::now() + wait;
        match self.shared.line.connected(until).await {
            Ok(_) => Ok(()),
            Err(away) => Err(HostError::Unavailable(away.words)),
        }
    }

    /// Whether the host was reached and turned us away, which waiting does not mend.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.shared.line.is_refused()
    }
}
