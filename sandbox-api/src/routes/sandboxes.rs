//! Making, finding and removing sandboxes.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sandbox_core::{
    id::SandboxId,
    sandbox::{PageRequest, SandboxFilter},
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::{
        extract::{JsonBody, Params, header_text},
        later::prefers_async,
    },
    routes::{InSandbox, SandboxPath, caller::Platform},
    state::AppState,
    wire::{
        list::List,
        sandbox::{CreateBody, Sandbox, State as SandboxState},
    },
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, destroy))
        .routes(routes!(ping))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// How to make it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `create` reads by hand")]
struct CreateHeaders {
    /// Makes retries safe: requests with one key make one sandbox.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        nullable = false
    )]
    idempotency_key: Option<String>,
    /// `respond-async` for an answer at once.
    #[param(rename = "Prefer", nullable = false)]
    prefer: Option<String>,
}

/// Make a sandbox
///
/// Answers once it runs; the work goes on when the client goes away. With `Prefer: respond-async`
/// it answers at once, and `operation` in the body says where the outcome will be found.
#[utoipa::path(
    post,
    operation_id = "create_sandbox",
    path = "/v1/sandboxes",
    tag = "sandboxes",
    params(CreateHeaders),
    request_body(content = CreateBody),
    responses(
        (status = CREATED, body = Sandbox, description = "It runs."),
        (status = ACCEPTED, body = Sandbox, description = "It is being made."),
    ),
)]
async fn create(
    platform: Platform,
    headers: HeaderMap,
    JsonBody(body): JsonBody<CreateBody>,
) -> Result<Response, ApiError> {
    let key = header_text(&headers, "idempotency-key")?.map(str::to_owned);
    let later = prefers_async(&headers)?;
    let request = body.into_request(key);
    let (status, record) = if later {
        let begun = platform.api.begin_create(request).await?;
        if let Some(operation) = begun.operation {
            tracing::Span::current().record("operation_id", tracing::field::display(operation));
        }
        (StatusCode::ACCEPTED, begun.record)
    } else {
        (StatusCode::CREATED, platform.api.create(request).await?)
    };
    let location = [(header::LOCATION, format!("/v1/sandboxes/{}", record.id))];
    Ok((status, location, Json(Sandbox::from(record))).into_response())
}

/// What to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `list` reads by hand")]
struct ListParams {
    /// Only in this state.
    #[param(inline)]
    state: Option<SandboxState>,
    /// Only from this template.
    #[param(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    template: Option<String>,
    /// Only with this label, as `key:value`; more than once for more labels. `metadata.KEY=VALUE`
    /// says the same.
    #[param(pattern = "^[^:]+:")]
    metadata: Option<Vec<String>>,
    /// How many to give; 100 where absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^sb-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    cursor: Option<String>,
}

fn filter_and_page(pairs: Vec<(String, String)>) -> Result<(SandboxFilter, PageRequest), ApiError> {
    let mut filter = SandboxFilter::default();
    let mut page = PageRequest::default();
    let mut seen = BTreeMap::new();
    for (name, value) in pairs {
        if let Some(label) = name.strip_prefix("metadata.") {
            filter.metadata.insert(label.to_owned(), value);
            continue;
        }
        if name == "metadata" {
            let Some((label, value)) = value.split_once(':') else {
                return Err(ApiError::invalid_field(&name, "it must be `key:value`"));
            };
            filter.metadata.insert(label.to_owned(), value.to_owned());
            continue;
        }
        let bad = |problem: &dyn std::fmt::Display| ApiError::invalid_field(&name, problem);
        match name.as_str() {
            "state" => {
                let state = serde_json::from_value::<SandboxState>(value.into());
                filter.state = Some(state.map_err(|error| bad(&error))?.into());
            }
            "template" => {
                filter.template = Some(value.parse().map_err(|error| bad(&error))?);
            }
            "limit" => page.limit = value.parse().map_err(|error| bad(&error))?,
            "cursor" => {
                let after: SandboxId = value.parse().map_err(|error| bad(&error))?;
                page.after = Some(after);
            }
            _ => {
                return Err(ApiError::invalid(format!(
                    "query: unknown parameter `{name}`; there are `state`, `template`, \
                     `metadata.KEY`, `limit` and `cursor`"
                )));
            }
        }
        if seen.insert(name.clone(), ()).is_some() {
            return Err(ApiError::invalid_field(&name, "it is there twice"));
        }
    }
    Ok((filter, page))
}

/// List sandboxes
///
/// The oldest first, page by page.
#[utoipa::path(
    get,
    operation_id = "list_sandboxes",
    path = "/v1/sandboxes",
    tag = "sandboxes",
    params(ListParams),
    responses((status = OK, body = List<Sandbox>, description = "A page of them.")),
)]
async fn list(
    platform: Platform,
    Params(pairs): Params<Vec<(String, String)>>,
) -> Result<Json<List<Sandbox>>, ApiError> {
    let (filter, page) = filter_and_page(pairs)?;
    let page = platform.api.list(filter, page).await?;
    Ok(Json(List {
        items: page.items.into_iter().map(Sandbox::from).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
    }))
}

/// Get a sandbox
#[utoipa::path(
    get,
    operation_id = "get_sandbox",
    path = "/v1/sandboxes/{id}",
    tag = "sandboxes",
    params(SandboxPath),
    responses((status = OK, body = Sandbox, description = "How it stands.")),
)]
async fn get(sandbox: InSandbox) -> Result<Json<Sandbox>, ApiError> {
    Ok(Json(sandbox.api.get(sandbox.id).await?.into()))
}

/// Remove a sandbox
///
/// With its memory and disk, whatever its state; twice is as good as once.
#[utoipa::path(
    delete,
    operation_id = "destroy_sandbox",
    path = "/v1/sandboxes/{id}",
    tag = "sandboxes",
    params(SandboxPath),
    responses((status = NO_CONTENT, description = "It is gone.")),
)]
async fn destroy(sandbox: InSandbox) -> Result<StatusCode, ApiError> {
    sandbox.api.destroy(sandbox.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ask for a sign of life
///
/// Pushes the sandbox's timeout.
#[utoipa::path(
    post,
    operation_id = "ping_sandbox",
    path = "/v1/sandboxes/{id}/ping",
    tag = "sandboxes",
    params(SandboxPath),
    responses((status = OK, body = Sandbox, description = "It answered.")),
)]
async fn ping(sandbox: InSandbox) -> Result<Json<Sandbox>, ApiError> {
    Ok(Json(sandbox.api.ping(sandbox.id).await?.into()))
}

/// Pause a sandbox
///
/// Saves its memory and disk and ends its process: what is paused costs disk and nothing else. A
/// paused one is done already. The work goes on when the client goes away.
#[utoipa::path(
    post,
    operation_id = "pause_sandbox",
    path = "/v1/sandboxes/{id}/pause",
    tag = "sandboxes",
    params(SandboxPath),
    responses((status = OK, body = Sandbox, description = "It is paused.")),
)]
async fn pause(sandbox: InSandbox) -> Result<Json<Sandbox>, ApiError> {
    Ok(Json(sandbox.api.pause(sandbox.id).await?.into()))
}

/// Resume a paused sandbox
///
/// It goes on where it was, with the same processes, files and open state. A running one is done
/// already. The work goes on when the client goes away.
#[utoipa::path(
    post,
    operation_id = "resume_sandbox",
    path = "/v1/sandboxes/{id}/resume",
    tag = "sandboxes",
    params(SandboxPath),
    responses((status = OK, body = Sandbox, description = "It runs.")),
)]
async fn resume(sandbox: InSandbox) -> Result<Json<Sandbox>, ApiError> {
    Ok(Json(sandbox.api.resume(sandbox.id).await?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<(SandboxFilter, PageRequest), ApiError> {
        let pairs = pairs.iter();
        filter_and_page(
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn labels_can_be_asked_for_in_two_ways() {
        let (filter, _) = read(&[("metadata.a", "1"), ("metadata", "b:2:3")]).unwrap();
        assert_eq!(filter.metadata["a"], "1");
        assert_eq!(filter.metadata["b"], "2:3");
    }

    #[test]
    fn r42_a_parameter_that_is_not_understood_is_named() {
        for pair in [
            ("state", "asleep"),
            ("limit", "many"),
            ("cursor", "x"),
            ("template", "../x"),
            ("metadata", "no-colon"),
            ("colour", "red"),
        ] {
            let message = read(&[pair]).unwrap_err().detail().message.clone();
            assert!(message.contains(&format!("`{}`", pair.0)), "{message}");
        }
    }
}
