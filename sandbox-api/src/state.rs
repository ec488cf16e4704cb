//! What all handlers share.

use std::sync::Arc;

use sandbox_core::{clock::Clock, host::Host, store::Store};
use tokio_util::sync::CancellationToken;

use crate::{keyring::Keyring, limits::Limits, metrics::Metrics};

/// What a router is made of.
#[derive(Clone)]
pub struct AppState {
    /// The keys that requests may carry, and all that each of them opens.
    pub keys: Keyring,
    /// Asked whether it is ready, and nothing else.
    pub store: Arc<dyn Store>,
    /// Asked whether it is ready, and nothing else.
    pub host: Arc<dyn Host>,
    /// Time and request IDs.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the daemon stops: streams end then, so that their readers come back elsewhere.
    pub stopping: CancellationToken,
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").finish_non_exhaustive()
    }
}
