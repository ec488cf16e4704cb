//! Whoever asks, as the handlers know it.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use sandbox_core::api::Api;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{ApiError, Code},
    http::auth::Opened,
    state::AppState,
};

/// The platform as whoever asks sees it.
#[derive(Clone)]
pub(crate) struct Platform {
    pub(crate) api: Arc<dyn Api>,
    /// Cancelled when the daemon stops.
    pub(crate) stopping: CancellationToken,
}

impl FromRequestParts<AppState> for Platform {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // A route that asks for no key has none.
        let Some(Opened(api)) = parts.extensions.get::<Opened>().cloned() else {
            let problem = "a route that works for a caller asks for no key";
            return Err(ApiError::logged(Code::Internal, "internal error", &problem));
        };
        Ok(Self {
            api,
            stopping: state.stopping.clone(),
        })
    }
}
