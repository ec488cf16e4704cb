//! The router: every route, and what each request passes through on its way to one.
//!
//! ```text
//!  request ──► observe (ID, span, count) ──► catch panics ──► drain ──► body may not stand still
//!                │
//!                ├─ /healthz /readyz /metrics /openapi.json /docs
//!                └─ /v1/...  ──► key ──► (bounded time) ──► handler
//! ```

use axum::{
    Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::get,
};
use tower_http::{catch_panic::CatchPanicLayer, timeout::RequestBodyTimeoutLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    error::{ApiError, Code},
    http::{auth::require_key, drain::drain_unread, watch},
    limits::JSON_BODY_BYTES_MAX,
    openapi::{ApiDoc, finish},
    routes::{
        admin_builds, admin_plan, admin_templates, build_contexts, build_logs, exec, files, meta,
        operations, output, processes, pty, sandboxes, snapshots, unbuilt,
    },
    state::AppState,
};

/// Routes that answer within a bounded time.
fn bounded() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(sandboxes::router())
        .merge(processes::router())
        .merge(files::router())
        .merge(snapshots::router())
        .merge(admin_builds::router())
        .merge(admin_plan::router())
        .merge(admin_templates::router())
        .merge(operations::router())
}

/// Routes that last as long as what they are about.
fn lasting() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(exec::router())
        .merge(output::router())
        .merge(files::streaming_router())
        .merge(snapshots::lasting_router())
        .merge(admin_templates::lasting_router())
        .merge(build_contexts::router())
        .merge(build_logs::router())
}

fn parts(state: Option<&AppState>) -> (Router<AppState>, utoipa::openapi::OpenApi) {
    let (bounded, mut document) = OpenApiRouter::with_openapi(ApiDoc::openapi())
        .merge(bounded())
        .split_for_parts();
    let (lasting, more) = OpenApiRouter::new().merge(lasting()).split_for_parts();
    let (open, about) = meta::router().split_for_parts();
    document.merge(more);
    document.merge(about);
    finish(&mut document);
    let Some(state) = state else {
        return (Router::new(), document);
    };
    let locked = bounded
        .merge(unbuilt::router())
        .layer(from_fn_with_state(state.clone(), watch::bound_time))
        .merge(lasting)
        .merge(pty::router())
        .layer(from_fn_with_state(state.clone(), require_key));
    (locked.merge(open), document)
}

/// The OpenAPI document of the whole interface.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    parts(None).1
}

/// The whole interface.
///
/// # Errors
/// When the OpenAPI document can't be written as JSON.
pub fn router(state: AppState) -> Result<Router, serde_json::Error> {
    let (routes, document) = parts(Some(&state));
    let document = Bytes::from(document.to_pretty_json()?);
    let body_timeout = state.limits.body_timeout;
    let json = move || std::future::ready(meta::document(document));
    Ok(routes
        .route("/openapi.json", get(json))
        .route("/docs", get(meta::docs))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        // The last one here is the first that a request meets.
        .layer(DefaultBodyLimit::max(JSON_BODY_BYTES_MAX))
        .layer(RequestBodyTimeoutLayer::new(body_timeout))
        .layer(from_fn(drain_unread))
        .layer(CatchPanicLayer::custom(watch::panicked))
        .layer(from_fn_with_state(state.clone(), watch::observe))
        .with_state(state))
}

async fn no_such_path() -> ApiError {
    ApiError::new(
        Code::NotFound,
        "there is no such path; /docs has all that there are",
    )
}

async fn no_such_method() -> ApiError {
    ApiError::method_not_allowed()
}
