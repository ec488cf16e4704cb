//! Processes in the background: starting, listing, stdin, signals, terminal size.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::StatusCode,
};
use sandbox_core::{id::SandboxId, process::CHUNK_MAX_BYTES};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::{
        extract::{InPath, JsonBody, Params, buffered, is_json, parse},
        flag::Flag,
    },
    routes::{ProcessPath, SandboxPath, caller::Platform},
    state::AppState,
    wire::{
        command::{StartBody, TerminalSize},
        input::{SignalBody, StdinBody, StdinResult},
        list::List,
        process::Process,
        raw::Raw,
    },
};

/// For how long a process may refuse to read before the client is told how far it came.
const STDIN_PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two attempts to write to a process that does not read.
const STDIN_RETRY: Duration = Duration::from_millis(20);

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start, list))
        .routes(routes!(stdin))
        .routes(routes!(signal))
        .routes(routes!(resize))
}

/// Start a process in the background
///
/// Its stdin stays open unless `stdin` is given; its output is read with `GET .../output`.
#[utoipa::path(
    post,
    operation_id = "start_process",
    path = "/v1/sandboxes/{id}/processes",
    tag = "processes",
    params(SandboxPath),
    request_body = StartBody,
    responses((status = CREATED, body = Process, description = "It was started.")),
)]
async fn start(
    platform: Platform,
    InPath(path): InPath<SandboxPath>,
    JsonBody(body): JsonBody<StartBody>,
) -> Result<(StatusCode, Json<Process>), ApiError> {
    let spec = body.into_spec()?;
    let started = Process::just_started(&spec);
    let pid = platform
        .api
        .start_process(path.id, spec, Duration::ZERO)
        .await?
        .pid;
    Ok((StatusCode::CREATED, Json(started(pid))))
}

/// List processes
///
/// Those that were started through the platform, the oldest first; the last ended ones among them.
#[utoipa::path(
    get,
    operation_id = "list_processes",
    path = "/v1/sandboxes/{id}/processes",
    tag = "processes",
    params(SandboxPath),
    responses((status = OK, body = List<Process>, description = "All of them.")),
)]
async fn list(
    platform: Platform,
    InPath(path): InPath<SandboxPath>,
) -> Result<Json<List<Process>>, ApiError> {
    let processes = platform.api.processes(path.id).await?;
    Ok(Json(List {
        items: processes.into_iter().map(Process::from).collect(),
        next_cursor: None,
    }))
}

/// How to write.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StdinParams {
    /// Closes stdin behind a raw body.
    #[serde(default)]
    #[param(inline, required = false)]
    close: Flag,
}

/// Write to a process's stdin or terminal
///
/// As JSON, or as a raw body with `Content-Type: application/octet-stream`.
#[utoipa::path(
    post,
    operation_id = "write_stdin",
    path = "/v1/sandboxes/{id}/processes/{pid}/stdin",
    tag = "processes",
    params(ProcessPath, StdinParams),
    request_body(content((StdinBody = "application/json"), (Raw = "application/octet-stream"))),
    responses((status = OK, body = StdinResult, description = "How much was taken.")),
)]
async fn stdin(
    platform: Platform,
    InPath(path): InPath<ProcessPath>,
    Params(params): Params<StdinParams>,
    request: Request<Body>,
) -> Result<Json<StdinResult>, ApiError> {
    let json = is_json(request.headers());
    let body = buffered(Bytes::from_request(request, &()).await)?;
    let (data, close) = if json {
        parse::<StdinBody>(&body)?.into_parts()?
    } else {
        (body, params.close.is_set())
    };
    let close = close || params.close.is_set();
    let length = data.len() as u64;
    let written_bytes = write_all(&platform, path.id, path.pid, data, close).await?;
    Ok(Json(StdinResult {
        written_bytes,
        closed: close && written_bytes == length,
    }))
}

/// Writes all of it, unless the process stops reading.
pub(crate) async fn write_all(
    platform: &Platform,
    id: SandboxId,
    pid: u32,
    mut rest: Bytes,
    close: bool,
) -> Result<u64, ApiError> {
    let mut written = 0;
    let mut moved_at = Instant::now();
    loop {
        let piece = rest.slice(..rest.len().min(CHUNK_MAX_BYTES as usize));
        let last = piece.len() == rest.len();
        let taken = platform
            .api
            .write_stdin(id, pid, piece, close && last)
            .await?;
        written += taken;
        // Never more than was given.
        let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(rest.len());
        rest = rest.slice(taken..);
        if rest.is_empty() {
            return Ok(written);
        }
        if taken > 0 {
            moved_at = Instant::now();
        } else if moved_at.elapsed() >= STDIN_PATIENCE {
            return Ok(written);
        } else {
            sleep(STDIN_RETRY).await;
        }
    }
}

/// Send a signal to a process
#[utoipa::path(
    post,
    operation_id = "signal_process",
    path = "/v1/sandboxes/{id}/processes/{pid}/signal",
    tag = "processes",
    params(ProcessPath),
    request_body = SignalBody,
    responses((status = NO_CONTENT, description = "It was sent.")),
)]
async fn signal(
    platform: Platform,
    InPath(path): InPath<ProcessPath>,
    JsonBody(body): JsonBody<SignalBody>,
) -> Result<StatusCode, ApiError> {
    let group = body.group.unwrap_or(true);
    let number = body.signal.number()?;
    platform
        .api
        .signal(path.id, path.pid, number, group)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set the size of a process's terminal
#[utoipa::path(
    post,
    operation_id = "resize_terminal",
    path = "/v1/sandboxes/{id}/processes/{pid}/resize",
    tag = "processes",
    params(ProcessPath),
    request_body = TerminalSize,
    responses((status = NO_CONTENT, description = "It has that size.")),
)]
async fn resize(
    platform: Platform,
    InPath(path): InPath<ProcessPath>,
    JsonBody(size): JsonBody<TerminalSize>,
) -> Result<StatusCode, ApiError> {
    platform
        .api
        .resize_pty(path.id, path.pid, size.into())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
