//! Paths that are fixed and whose work is not built yet. They say so, and are in no document.

use axum::{Router, routing::get};

use crate::{error::ApiError, state::AppState};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/sandboxes/{id}/files/watch", get(no_watch))
}

async fn no_watch() -> ApiError {
    ApiError::unsupported("watching files")
}
