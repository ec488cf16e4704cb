//! About the daemon itself: is it well, is it ready, what does it count, how is it asked.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
};
use sandbox_core::sandbox::{PageRequest, SandboxFilter};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::{ApiError, Code},
    state::AppState,
};

/// What store and host each have to show that they are there.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics))
}

/// How the daemon is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`: a daemon that isn't does not answer so.
    status: &'static str,
    /// The daemon's version.
    version: &'static str,
}

const OK: Health = Health {
    status: "ok",
    version: env!("CARGO_PKG_VERSION"),
};

/// Is the daemon alive?
#[utoipa::path(
    get,
    operation_id = "healthz",
    path = "/healthz",
    tag = "daemon",
    security(()),
    responses((status = OK, body = Health, description = "It answers.")),
)]
async fn health() -> Json<Health> {
    Json(OK)
}

/// Can the daemon do work?
///
/// It can where store and host answer and it is not about to stop.
#[utoipa::path(
    get,
    operation_id = "readyz",
    path = "/readyz",
    tag = "daemon",
    security(()),
    responses(
        (status = OK, body = Health, description = "It can."),
        (status = SERVICE_UNAVAILABLE, body = crate::error::ErrorBody, description = "It can't."),
    ),
)]
async fn ready(State(state): State<AppState>) -> Result<Json<Health>, ApiError> {
    if state.stopping.is_cancelled() {
        return Err(ApiError::new(Code::Unavailable, "the daemon is stopping"));
    }
    let one = PageRequest {
        limit: 1,
        ..PageRequest::default()
    };
    let filter = SandboxFilter::default();
    let (store, host) = tokio::join!(
        timeout(READY_TIMEOUT, state.store.list_sandboxes(&filter, one)),
        timeout(READY_TIMEOUT, state.host.hello()),
    );
    answers("the store", store.map(|asked| asked.map(drop)))?;
    answers("the host", host.map(|asked| asked.map(drop)))?;
    Ok(Json(OK))
}

fn answers<E: std::fmt::Display>(
    who: &str,
    asked: Result<Result<(), E>, tokio::time::error::Elapsed>,
) -> Result<(), ApiError> {
    let public = format!("{who} does not answer");
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ApiError::logged(Code::Unavailable, &public, &error)),
        Err(elapsed) => Err(ApiError::logged(Code::Unavailable, &public, &elapsed)),
    }
}

/// What the daemon counts
///
/// In the text format that Prometheus reads.
#[utoipa::path(
    get,
    operation_id = "metrics",
    path = "/metrics",
    tag = "daemon",
    security(()),
    responses((
        status = OK,
        body = String,
        content_type = "application/openmetrics-text",
        description = "All counters.",
    )),
)]
async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    state.metrics.count_sandboxes(&*state.store).await;
    let text = state
        .metrics
        .text()
        .map_err(|error| ApiError::logged(Code::Internal, "internal error", &error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The OpenAPI document, written once.
pub(crate) fn document(json: Bytes) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, json).into_response()
}

/// The page to read it by.
pub(crate) async fn docs() -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let policy = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (policy, Html(include_str!("../docs.html"))).into_response()
}
