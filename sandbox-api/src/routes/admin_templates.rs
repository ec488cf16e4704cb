//! What administrators do with templates: see all teams', and import.

use axum::{Json, http::HeaderMap, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::{
        extract::{JsonBody, Params},
        later::waits,
    },
    routes::{
        caller::Platform,
        snapshots::{ListParams, WaitHeaders, WaitParams, begun, made},
    },
    state::AppState,
    wire::{
        list::List,
        operation::Operation,
        template::{AdminTemplate, ImportBody, Template},
    },
};

/// Routes that answer within a bounded time.
pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Routes that last as long as the work.
pub(crate) fn lasting_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(import))
}

/// List all teams' templates
///
/// With what each takes and who was started from it. For administrators.
#[utoipa::path(
    get,
    operation_id = "list_all_templates",
    path = "/v1/admin/templates",
    tag = "templates",
    params(ListParams),
    responses((status = OK, body = List<AdminTemplate>, description = "A page of them.")),
)]
async fn list(
    platform: Platform,
    Params(params): Params<ListParams>,
) -> Result<Json<List<AdminTemplate>>, ApiError> {
    let kind = params.kind.map(Into::into);
    let (items, next) = platform.api.all_templates(kind, params.page()?).await?;
    Ok(Json(List {
        items: items.into_iter().map(AdminTemplate::from).collect(),
        next_cursor: next.map(|id| id.to_string()),
    }))
}

/// Import a template
///
/// From a folder, an archive, an OCI image or a Debian release, as the host finds them. It is the
/// platform's. Answers at once with the operation, whose outcome `GET /v1/operations/{id}` has; with
/// `wait=true` once it is made. For administrators.
#[utoipa::path(
    post,
    operation_id = "import_template",
    path = "/v1/admin/templates",
    tag = "templates",
    params(WaitParams, WaitHeaders),
    request_body = ImportBody,
    responses(
        (status = ACCEPTED, body = Operation, description = "It is being made."),
        (status = CREATED, body = Template, description = "It is made."),
    ),
)]
async fn import(
    platform: Platform,
    Params(params): Params<WaitParams>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ImportBody>,
) -> Result<Response, ApiError> {
    let request = body.into();
    if waits(&headers, params.wait, false)? {
        return Ok(made(platform.api.import_template(request).await?));
    }
    let id = platform.api.begin_import(request).await?;
    begun(&platform, id).await
}
