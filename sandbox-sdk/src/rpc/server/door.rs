//! What is behind a key: the platform as one caller sees it.

use std::sync::Arc;

use sandbox_core::{api::Api, wire::Secret};

use super::requests::Requests;

/// The platform as one caller sees it, and the requests that this caller made: nobody joins
/// another's by its ID.
pub(super) struct Door {
    key: Option<Secret>,
    pub(super) api: Arc<dyn Api>,
    pub(super) requests: Requests,
}

impl Door {
    /// Without a key it opens for those only whom the system itself let in.
    pub(super) fn new(api: Arc<dyn Api>, key: Option<String>) -> Self {
        Self {
            key: key.and_then(Secret::new),
            api,
            requests: Requests::default(),
        }
    }

    pub(super) const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn opens_for(&self, shown: &str) -> bool {
        self.key.as_ref().is_some_and(|key| key.fits(shown))
    }
}
