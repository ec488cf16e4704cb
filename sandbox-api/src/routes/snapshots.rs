//! Making templates of sandboxes, finding and removing them.

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sandbox_core::{
    id::OperationId,
    template::{TemplatePageRequest, TemplateRecord},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::{
        extract::{InPath, JsonBody, Params},
        flag::Flag,
        later::waits,
    },
    routes::caller::Platform,
    state::AppState,
    wire::{
        list::List,
        operation::Operation,
        template::{SnapshotBody, Template, Type},
    },
};

/// Routes that answer within a bounded time.
pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(delete))
        .routes(routes!(list_templates))
        .routes(routes!(get))
}

/// Routes that last as long as the work.
pub(crate) fn lasting_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(snapshot))
}

/// Which template.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct TemplatePath {
    /// The template's name, or its ID.
    #[param(example = "warm", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    name: String,
}

/// Whether to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// Whether to answer once it is done, instead of at once with the operation.
    #[param(inline)]
    pub(crate) wait: Option<Flag>,
}

/// How to answer.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(crate) struct WaitHeaders {
    /// `respond-async` says the same as `wait=false`.
    #[param(rename = "Prefer", nullable = false)]
    prefer: Option<String>,
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only of this type.
    #[serde(rename = "type")]
    #[param(inline)]
    pub(crate) kind: Option<Type>,
    /// How many to give; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^tpl-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    cursor: Option<String>,
}

impl ListParams {
    pub(crate) fn page(&self) -> Result<TemplatePageRequest, ApiError> {
        let mut page = TemplatePageRequest::default();
        if let Some(limit) = self.limit {
            page.limit = limit;
        }
        if let Some(cursor) = &self.cursor {
            let after = cursor.parse();
            page.after = Some(after.map_err(|error| ApiError::invalid_field("cursor", error))?);
        }
        Ok(page)
    }
}

/// A template that was made.
pub(crate) fn made(record: TemplateRecord) -> Response {
    let location = [(header::LOCATION, format!("/v1/templates/{}", record.id))];
    (StatusCode::CREATED, location, Json(Template::from(record))).into_response()
}

/// Work that goes on.
pub(crate) async fn begun(platform: &Platform, id: OperationId) -> Result<Response, ApiError> {
    tracing::Span::current().record("operation_id", tracing::field::display(id));
    let operation = platform.api.operation(id).await?;
    let location = [(header::LOCATION, format!("/v1/operations/{id}"))];
    let body = Json(Operation::from(operation));
    Ok((StatusCode::ACCEPTED, location, body).into_response())
}

/// Make a template of a sandbox
///
/// With its memory, so that what is started from it goes on where the sandbox was; or of its disk
/// alone, which boots. The sandbox is paused afterwards, unless it ran and `resume` is true. The work
/// goes on when the client goes away: with `wait=false` it learns the operation's ID at once, and
/// `GET /v1/operations/{id}` has the outcome.
#[utoipa::path(
    post,
    operation_id = "create_snapshot",
    path = "/v1/snapshots",
    tag = "templates",
    params(WaitParams, WaitHeaders),
    request_body = SnapshotBody,
    responses(
        (status = CREATED, body = Template, description = "It is made."),
        (status = ACCEPTED, body = Operation, description = "It is being made."),
    ),
)]
async fn snapshot(
    platform: Platform,
    Params(params): Params<WaitParams>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SnapshotBody>,
) -> Result<Response, ApiError> {
    let request = body.into();
    if waits(&headers, params.wait, true)? {
        return Ok(made(platform.api.snapshot(request).await?));
    }
    let id = platform.api.begin_snapshot(request).await?;
    begun(&platform, id).await
}

/// List templates
///
/// The team's own and the platform's, both images and snapshots, page by page.
#[utoipa::path(
    get,
    operation_id = "list_snapshots",
    path = "/v1/snapshots",
    tag = "templates",
    params(ListParams),
    responses((status = OK, body = List<Template>, description = "A page of them.")),
)]
async fn list(
    platform: Platform,
    Params(params): Params<ListParams>,
) -> Result<Json<List<Template>>, ApiError> {
    page_of(&platform, &params).await
}

/// List templates
///
/// The same list as `GET /v1/snapshots`.
#[utoipa::path(
    get,
    operation_id = "list_templates",
    path = "/v1/templates",
    tag = "templates",
    params(ListParams),
    responses((status = OK, body = List<Template>, description = "A page of them.")),
)]
async fn list_templates(
    platform: Platform,
    Params(params): Params<ListParams>,
) -> Result<Json<List<Template>>, ApiError> {
    page_of(&platform, &params).await
}

async fn page_of(
    platform: &Platform,
    params: &ListParams,
) -> Result<Json<List<Template>>, ApiError> {
    let kind = params.kind.map(Into::into);
    let page = platform.api.templates(kind, params.page()?).await?;
    Ok(Json(List {
        items: page.items.into_iter().map(Template::from).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    }))
}

/// Get a template
///
/// By its name or its ID. Of one name, the platform's comes before the team's own.
#[utoipa::path(
    get,
    operation_id = "get_template",
    path = "/v1/templates/{name}",
    tag = "templates",
    params(TemplatePath),
    responses((status = OK, body = Template, description = "What it is.")),
)]
async fn get(
    platform: Platform,
    InPath(path): InPath<TemplatePath>,
) -> Result<Json<Template>, ApiError> {
    Ok(Json(platform.api.template(&path.name).await?.into()))
}

/// Remove a template
///
/// It is gone from every list at once; its files go with the last sandbox that was started from it.
/// Only administrators may remove one of the platform's.
#[utoipa::path(
    delete,
    operation_id = "delete_snapshot",
    path = "/v1/snapshots/{name}",
    tag = "templates",
    params(TemplatePath),
    responses((status = NO_CONTENT, description = "It is gone.")),
)]
async fn delete(
    platform: Platform,
    InPath(path): InPath<TemplatePath>,
) -> Result<StatusCode, ApiError> {
    platform.api.delete_template(&path.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
