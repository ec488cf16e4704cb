//! What administrators do with template builds: ask for them, look at them, end them.

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sandbox_core::{
    build::{BuildFilter, BuildPageRequest},
    id::BuildId,
    name::TemplateName,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::extract::{InPath, JsonBody, Params, header_text},
    routes::caller::Platform,
    state::AppState,
    wire::{
        build::{Build, BuildBody, BuildInfo, Status},
        list::List,
    },
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(submit, list))
        .routes(routes!(get))
        .routes(routes!(cancel))
}

/// Which build.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct BuildPath {
    /// The build's ID.
    #[param(
        value_type = String,
        example = "bld-0190163d-8694-739b-aea5-966c26f8ad91",
        pattern = "^bld-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    pub(crate) id: BuildId,
}

/// How to ask for it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `submit` reads by hand")]
struct SubmitHeaders {
    /// Makes retries safe: requests with one key make one build.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        nullable = false
    )]
    idempotency_key: Option<String>,
}

/// Build a template
///
/// From a recipe, in a sandbox of its own. It is queued when this answers, and goes on when the
/// client goes away; `GET /v1/admin/builds/{id}` says how it stands, and its `logs` can be followed.
/// Where there is a template of this name, what sandboxes start from changes once the build
/// succeeds. For administrators.
#[utoipa::path(
    post,
    operation_id = "build_template",
    path = "/v1/admin/builds",
    tag = "builds",
    params(SubmitHeaders),
    request_body = BuildBody,
    responses((status = ACCEPTED, body = Build, description = "It is queued.")),
)]
async fn submit(
    platform: Platform,
    headers: HeaderMap,
    JsonBody(body): JsonBody<BuildBody>,
) -> Result<Response, ApiError> {
    let key = header_text(&headers, "idempotency-key")?.map(str::to_owned);
    let request = match body.into_request(key) {
        Ok(request) => request,
        Err(error) => {
            platform.may_build().await?;
            return Err(error);
        }
    };
    let record = platform.api.submit_build(request).await?;
    let location = [(header::LOCATION, format!("/v1/admin/builds/{}", record.id))];
    let body = Json(Build::from(record));
    Ok((StatusCode::ACCEPTED, location, body).into_response())
}

impl Platform {
    /// Fails for those who may not build, before anything else of their request is looked at.
    pub(crate) async fn may_build(&self) -> Result<(), ApiError> {
        let one = BuildPageRequest {
            limit: 1,
            ..BuildPageRequest::default()
        };
        self.api.builds(BuildFilter::default(), one).await?;
        Ok(())
    }
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Only those that stand so.
    #[param(inline)]
    status: Option<Status>,
    /// Only of a template of this name.
    #[param(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    name: Option<TemplateName>,
    /// In which order; `newest` where absent.
    #[serde(default)]
    #[param(inline, required = false)]
    order: Order,
    /// How many to give; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(
        value_type = Option<String>,
        pattern = "^bld-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    cursor: Option<BuildId>,
}

/// List builds
///
/// The newest first, page by page, without recipes and logs. For administrators.
#[utoipa::path(
    get,
    operation_id = "list_builds",
    path = "/v1/admin/builds",
    tag = "builds",
    params(ListParams),
    responses((status = OK, body = List<Build>, description = "A page of them.")),
)]
async fn list(
    platform: Platform,
    Params(params): Params<ListParams>,
) -> Result<Json<List<Build>>, ApiError> {
    let filter = BuildFilter {
        statuses: params.status.into_iter().map(Into::into).collect(),
        name: params.name,
        team_id: None,
        newest_first: params.order == Order::Newest,
    };
    let mut page = BuildPageRequest {
        after: params.cursor,
        ..BuildPageRequest::default()
    };
    if let Some(limit) = params.limit {
        page.limit = limit;
    }
    let page = platform.api.builds(filter, page).await?;
    Ok(Json(List {
        items: page.items.into_iter().map(Build::from).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    }))
}

/// Get a build
///
/// With its recipe, and the steps of its last attempt with what they printed, as it comes. It is
/// kept for some weeks after its end. For administrators.
#[utoipa::path(
    get,
    operation_id = "get_build",
    path = "/v1/admin/builds/{id}",
    tag = "builds",
    params(BuildPath),
    responses((status = OK, body = BuildInfo, description = "How it stands.")),
)]
async fn get(
    platform: Platform,
    InPath(path): InPath<BuildPath>,
) -> Result<Json<BuildInfo>, ApiError> {
    Ok(Json(platform.api.build(path.id).await?.into()))
}

/// Cancel a build
///
/// Whether it waits or runs; twice is as good as once. One that has succeeded or failed is left as
/// it is. For administrators.
#[utoipa::path(
    post,
    operation_id = "cancel_build",
    path = "/v1/admin/builds/{id}/cancel",
    tag = "builds",
    params(BuildPath),
    responses((status = OK, body = Build, description = "It is cancelled.")),
)]
async fn cancel(
    platform: Platform,
    InPath(path): InPath<BuildPath>,
) -> Result<Json<Build>, ApiError> {
    Ok(Json(platform.api.cancel_build(path.id).await?.into()))
}
