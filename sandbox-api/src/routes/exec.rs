//! Running a command to its end.

use axum::Json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::extract::JsonBody,
    routes::{InSandbox, SandboxPath},
    state::AppState,
    wire::{command::ExecBody, process::ExecResult},
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(exec))
}

/// Run a command to its end
///
/// `cmd` alone is a line for the shell; with `args` it is a program. A command that fails is an
/// answer like any other: look at `exit_code` and `signal`. It goes on when the client goes away.
#[utoipa::path(
    post,
    operation_id = "exec",
    path = "/v1/sandboxes/{id}/exec",
    tag = "processes",
    params(SandboxPath),
    request_body = ExecBody,
    responses((status = OK, body = ExecResult, description = "It ended.")),
)]
async fn exec(
    sandbox: InSandbox,
    JsonBody(body): JsonBody<ExecBody>,
) -> Result<Json<ExecResult>, ApiError> {
    let output = sandbox.api.exec(sandbox.id, body.into_spec()?).await?;
    Ok(Json(output.into()))
}
