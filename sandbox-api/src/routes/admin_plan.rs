//! What the reconciler would do, for administrators.

use axum::Json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{error::ApiError, routes::caller::Platform, state::AppState, wire::plan::Plan};

/// All routes of this kind.
pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(plan))
}

/// Show the reconciler's plan
///
/// What it would do now about records and machines that disagree, and whether any of that breaks a
/// rule that holds of all plans. Nothing is done by asking. For administrators.
#[utoipa::path(
    get,
    operation_id = "reconciler_plan",
    path = "/v1/admin/plan",
    tag = "platform",
    responses((status = OK, body = Plan, description = "The plan.")),
)]
async fn plan(platform: Platform) -> Result<Json<Plan>, ApiError> {
    Ok(Json(platform.api.reconciler_plan().await?.into()))
}
