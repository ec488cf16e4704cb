//! Paths that are fixed and whose work is not built yet. They say so, and are in no document.

use axum::{
    Router,
    routing::{any, delete, get, post},
};

use crate::{error::ApiError, state::AppState};

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/sandboxes/{id}/pause", post(no_pause))
        .route("/v1/sandboxes/{id}/resume", post(no_pause))
        .route("/v1/sandboxes/{id}/files/watch", get(no_watch))
        .route("/v1/snapshots", get(no_snapshots).post(no_snapshots))
        .route("/v1/snapshots/{name}", delete(no_snapshots))
        .route("/v1/templates/{name}", get(no_templates))
        .route("/v1/admin/templates", get(no_templates))
        .route("/v1/admin/builds", any(no_builds))
        .route("/v1/admin/builds/{*rest}", any(no_builds))
}

async fn no_pause() -> ApiError {
    ApiError::unsupported("pausing and resuming")
}

async fn no_watch() -> ApiError {
    ApiError::unsupported("watching files")
}

async fn no_snapshots() -> ApiError {
    ApiError::unsupported("snapshots")
}

async fn no_templates() -> ApiError {
    ApiError::unsupported("showing templates")
}

async fn no_builds() -> ApiError {
    ApiError::unsupported("template builds")
}
