//! Paths that are fixed and whose work is not built yet. They say so, and are in no document.

use axum::{
    Router,
    routing::{any, get},
};

use crate::{error::ApiError, state::AppState};

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/sandboxes/{id}/files/watch", get(no_watch))
        .route("/v1/admin/builds", any(no_builds))
        .route("/v1/admin/builds/{*rest}", any(no_builds))
}

async fn no_watch() -> ApiError {
    ApiError::unsupported("watching files")
}

async fn no_builds() -> ApiError {
    ApiError::unsupported("template builds")
}
