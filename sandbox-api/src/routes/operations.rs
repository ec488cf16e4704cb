//! The outcome of what was begun earlier.

use axum::Json;
use sandbox_core::id::OperationId;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError, http::extract::InPath, routes::caller::Platform, state::AppState,
    wire::operation::Operation,
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get))
}

/// Which operation.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct OperationPath {
    /// The operation's ID.
    #[param(
        value_type = String,
        example = "op-0190163d-8694-739b-aea5-966c26f8ad91",
        pattern = "^op-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    id: OperationId,
}

/// Get an operation
///
/// Also after it ended, for some days, and when its sandbox is gone.
#[utoipa::path(
    get,
    operation_id = "get_operation",
    path = "/v1/operations/{id}",
    tag = "operations",
    params(OperationPath),
    responses((status = OK, body = Operation, description = "How it stands.")),
)]
async fn get(
    platform: Platform,
    InPath(path): InPath<OperationPath>,
) -> Result<Json<Operation>, ApiError> {
    Ok(Json(platform.api.operation(path.id).await?.into()))
}
