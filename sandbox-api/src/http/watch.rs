//! Request IDs, spans, the log line and the count of every request, and the bound on its time.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::{
    error::{ApiError, Code},
    http::spanned,
    state::AppState,
};

pub(crate) const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Gives each request an ID, its own or a new one, and says what came of it.
pub(crate) async fn observe(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(&request).unwrap_or_else(|| new_id(&state));
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let method = request.method().clone();
    let span = tracing::info_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        %method,
        route = route.unwrap_or("none"),
        operation_id = tracing::field::Empty,
    );
    let response = next.run(request).instrument(span.clone()).await;
    let took = started.elapsed();
    let status = response.status().as_u16();
    state.metrics.answered(&method, route, status, took);
    span.in_scope(|| {
        tracing::debug!(status, took_us = took.as_micros(), "answered");
    });
    let mut response = spanned::within(span, response);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID_HEADER, id);
    // What guests wrote is never to be taken for a page.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// The client's own, where it is one that a log line can hold without harm.
fn request_id(request: &Request) -> Option<HeaderValue> {
    let value = request.headers().get(REQUEST_ID_HEADER)?;
    let bytes = value.as_bytes();
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    let plain = (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(sane);
    plain.then(|| value.clone())
}

fn new_id(state: &AppState) -> HeaderValue {
    let id = format!("req-{}", state.clock.new_uuid());
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("req"))
}

/// Bounds the time of a request that waits for nothing that may last.
pub(crate) async fn bound_time(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let limit = state.limits.request_timeout;
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            Code::Unavailable,
            format!(
                "no answer within {} s; what was begun goes on",
                limit.as_secs()
            ),
        )
        .into_response(),
    }
}

/// What a panic in a handler is answered with.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that the layer takes"
)]
pub(crate) fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    ApiError::logged(Code::Internal, "internal error", &words).into_response()
}
