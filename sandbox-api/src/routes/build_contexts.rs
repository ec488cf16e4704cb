//! Uploading the files that a build's `COPY` takes.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::Request,
};
use bytes::BytesMut;
use futures::StreamExt;
use sandbox_core::build::CONTEXT_MAX_BYTES;
use tokio::sync::Semaphore;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::{ApiError, Code},
    routes::caller::Platform,
    state::AppState,
    wire::{build::ContextName, raw::Raw},
};

/// Uploads that are in memory at a time. Others wait.
static ROOM: Semaphore = Semaphore::const_new(4);

/// Routes that last as long as the upload.
pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(put_context, post_context))
}

/// Upload files for a build
///
/// A tar archive, plain or compressed with gzip, of at most 64 MiB. Its name goes into the `context`
/// of a build; the same archive gets the same name. What no build asks for is kept for a day. For
/// administrators.
#[utoipa::path(
    put,
    operation_id = "put_build_context",
    path = "/v1/admin/builds/contexts",
    tag = "builds",
    request_body(content = Raw, content_type = "application/octet-stream"),
    responses((status = OK, body = ContextName, description = "It is kept.")),
)]
async fn put_context(
    platform: Platform,
    request: Request<Body>,
) -> Result<Json<ContextName>, ApiError> {
    upload(platform, request).await
}

/// Upload files for a build
///
/// The same as `PUT`.
#[utoipa::path(
    post,
    operation_id = "post_build_context",
    path = "/v1/admin/builds/contexts",
    tag = "builds",
    request_body(content = Raw, content_type = "application/octet-stream"),
    responses((status = OK, body = ContextName, description = "It is kept.")),
)]
async fn post_context(
    platform: Platform,
    request: Request<Body>,
) -> Result<Json<ContextName>, ApiError> {
    upload(platform, request).await
}

async fn upload(platform: Platform, request: Request<Body>) -> Result<Json<ContextName>, ApiError> {
    // Nothing is held for those who may not build.
    platform.may_build().await?;
    let announced = http_body::Body::size_hint(request.body()).lower();
    if announced > CONTEXT_MAX_BYTES as u64 {
        return Err(ApiError::too_large(CONTEXT_MAX_BYTES));
    }
    let room = ROOM.acquire().await;
    let _room = room.map_err(|error| ApiError::logged(Code::Internal, "internal error", &error))?;
    let archive = whole(request.into_body()).await?;
    let context = platform.api.upload_context(archive).await?;
    Ok(Json(ContextName { context }))
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    let mut frames = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| ApiError::invalid("the body did not arrive whole"))?;
        if whole.len() + frame.len() > CONTEXT_MAX_BYTES {
            return Err(ApiError::too_large(CONTEXT_MAX_BYTES));
        }
        whole.extend_from_slice(&frame);
    }
    Ok(whole.freeze())
}
