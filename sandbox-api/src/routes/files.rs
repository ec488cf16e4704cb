//! Files: raw bodies both ways, listing, and what moves and removes them.

use axum::{Json, body::Body, extract::Request, http::StatusCode, response::Response};
use sandbox_core::file::WriteSpec;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::{
        extract::{JsonBody, Params},
        flag::Flag,
    },
    routes::{InSandbox, SandboxPath, download, upload},
    state::AppState,
    wire::{
        file::{FileInfo, MkdirBody, MoveBody, after, cursor, mode},
        list::List,
        raw::Raw,
    },
};

/// Routes whose bodies may be of any size and take any time.
pub(crate) fn streaming_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(read, write, remove))
}

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(stat))
        .routes(routes!(mkdir))
        .routes(routes!(rename))
}

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PathParams {
    /// Its absolute path in the sandbox.
    #[param(example = "/etc/hostname", pattern = "^/[^\\x00]*$")]
    path: String,
}

/// Read a file
///
/// Its bytes, of any number; holes come as zeros. Where it is replaced meanwhile, the connection
/// ends before the length that was announced.
#[utoipa::path(
    get,
    operation_id = "read_file",
    path = "/v1/sandboxes/{id}/files",
    tag = "files",
    params(SandboxPath, PathParams),
    responses((
        status = OK,
        body = Raw,
        content_type = "application/octet-stream",
        description = "Its content.",
    )),
)]
async fn read(
    sandbox: InSandbox,
    Params(params): Params<PathParams>,
) -> Result<Response, ApiError> {
    download::answer(sandbox.api, sandbox.id, params.path).await
}

/// Where and how to write.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WriteParams {
    /// Its absolute path in the sandbox.
    #[param(example = "/srv/data.bin", pattern = "^/[^\\x00]*$")]
    path: String,
    /// Permission bits in octal; where absent those of the file that is there, or `0644`.
    #[param(pattern = "^[0-7]{1,4}$")]
    mode: Option<String>,
    /// Makes the directories above it; true where absent.
    #[param(inline)]
    parents: Option<Flag>,
}

/// Write a file
///
/// The body is its content, of any size. It appears as a whole when all has arrived, or not at all.
#[utoipa::path(
    put,
    operation_id = "write_file",
    path = "/v1/sandboxes/{id}/files",
    tag = "files",
    params(SandboxPath, WriteParams),
    request_body(content = Raw, content_type = "application/octet-stream"),
    responses((status = OK, body = FileInfo, description = "It is there.")),
)]
async fn write(
    sandbox: InSandbox,
    Params(params): Params<WriteParams>,
    request: Request<Body>,
) -> Result<Json<FileInfo>, ApiError> {
    let spec = WriteSpec {
        path: params.path,
        mode: params.mode.as_deref().map(mode).transpose()?,
        create_parents: params.parents.is_none_or(Flag::is_set),
    };
    let stat = upload::run(sandbox.api, sandbox.id, spec, request.into_body()).await?;
    Ok(Json(stat.into()))
}

/// What to remove.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RemoveParams {
    /// Its absolute path in the sandbox.
    #[param(pattern = "^/[^\\x00]*$")]
    path: String,
    /// Removes a directory with all in it.
    #[serde(default)]
    #[param(inline, required = false)]
    recursive: Flag,
}

/// Remove a file or directory
///
/// A directory that is not empty goes with `recursive=true` alone.
#[utoipa::path(
    delete,
    operation_id = "remove_file",
    path = "/v1/sandboxes/{id}/files",
    tag = "files",
    params(SandboxPath, RemoveParams),
    responses((status = NO_CONTENT, description = "It is gone.")),
)]
async fn remove(
    sandbox: InSandbox,
    Params(params): Params<RemoveParams>,
) -> Result<StatusCode, ApiError> {
    let recursive = params.recursive.is_set();
    sandbox
        .api
        .remove(sandbox.id, &params.path, recursive)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// The directory's absolute path.
    #[param(example = "/etc", pattern = "^/[^\\x00]*$")]
    path: String,
    /// How many to give; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^([0-9a-f]{2})*$")]
    cursor: Option<String>,
}

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

/// List a directory
///
/// By name, page by page.
#[utoipa::path(
    get,
    operation_id = "list_directory",
    path = "/v1/sandboxes/{id}/files/list",
    tag = "files",
    params(SandboxPath, ListParams),
    responses((status = OK, body = List<FileInfo>, description = "A page of it.")),
)]
async fn list(
    sandbox: InSandbox,
    Params(params): Params<ListParams>,
) -> Result<Json<List<FileInfo>>, ApiError> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        let problem = format!("it is {limit}; it must be from 1 to {LIMIT_MAX}");
        return Err(ApiError::invalid_field("limit", problem));
    }
    let after = params.cursor.as_deref().map(after).transpose()?;
    let page = sandbox
        .api
        .list_dir(sandbox.id, &params.path, after.as_deref(), limit)
        .await?;
    let last = page.entries.last().filter(|_| page.more);
    let next_cursor = last.map(|entry| cursor(&entry.name));
    Ok(Json(List {
        items: page.entries.into_iter().map(FileInfo::from).collect(),
        next_cursor,
    }))
}

/// Describe a path
///
/// A symbolic link is described and not followed.
#[utoipa::path(
    get,
    operation_id = "stat_file",
    path = "/v1/sandboxes/{id}/files/stat",
    tag = "files",
    params(SandboxPath, PathParams),
    responses((status = OK, body = FileInfo, description = "What is there.")),
)]
async fn stat(
    sandbox: InSandbox,
    Params(params): Params<PathParams>,
) -> Result<Json<FileInfo>, ApiError> {
    sandbox.described(&params.path).await
}

impl InSandbox {
    async fn described(&self, path: &str) -> Result<Json<FileInfo>, ApiError> {
        Ok(Json(self.api.stat(self.id, path).await?.into()))
    }
}

/// Make a directory
#[utoipa::path(
    post,
    operation_id = "make_directory",
    path = "/v1/sandboxes/{id}/files/mkdir",
    tag = "files",
    params(SandboxPath),
    request_body = MkdirBody,
    responses((status = CREATED, body = FileInfo, description = "It is there.")),
)]
async fn mkdir(
    sandbox: InSandbox,
    JsonBody(body): JsonBody<MkdirBody>,
) -> Result<(StatusCode, Json<FileInfo>), ApiError> {
    const MODE: u32 = 0o755;
    let mode = body.mode.as_deref().map_or(Ok(MODE), mode)?;
    let parents = body.parents.unwrap_or(true);
    sandbox
        .api
        .make_dir(sandbox.id, &body.path, mode, parents)
        .await?;
    let info = sandbox.described(&body.path).await?;
    Ok((StatusCode::CREATED, info))
}

/// Move a file or directory
///
/// A file that is at the target is replaced.
#[utoipa::path(
    post,
    operation_id = "move_file",
    path = "/v1/sandboxes/{id}/files/move",
    tag = "files",
    params(SandboxPath),
    request_body = MoveBody,
    responses((status = OK, body = FileInfo, description = "It is at its new path.")),
)]
async fn rename(
    sandbox: InSandbox,
    JsonBody(body): JsonBody<MoveBody>,
) -> Result<Json<FileInfo>, ApiError> {
    sandbox.api.rename(sandbox.id, &body.from, &body.to).await?;
    sandbox.described(&body.to).await
}
