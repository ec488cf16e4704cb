//! The OpenAPI document: what the routes' own descriptions leave out.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder, Schema,
        path::Operation,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::{
    error::{Code, ErrorBody},
    routes::output::{DroppedEvent, OutputEvent},
    wire::{
        build::BuildStepInfo,
        build_log::BuildLogEvent,
        process::ProcessExit,
        schema::{either_or_base64, no_other_fields},
    },
};

/// OpenAPI has no words for WebSockets.
const TERMINALS: &str = "Running commands in a sandbox.\n\nA terminal is a WebSocket: `GET \
    /v1/sandboxes/{id}/pty?cmd=&rows=&cols=&cwd=&user=` runs `cmd`, or a login shell, on a \
    terminal of that size; `?pid=&offset=` takes up one that runs. Binary frames are its input and \
    output. Text frames are JSON with a `type`: from the daemon `started` (`pid`), `dropped` \
    (`dropped_bytes`), `exit` (`exit_code`, `signal`) and `error` (`code`, `message`); from the \
    client `resize` (`rows`, `cols`) and `signal` (`signal`). A close frame hangs the process up; a \
    lost connection leaves it running, to be taken up again.";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sandbox platform",
        description = "Isolated Linux machines: created in a fraction of a second, used like a \
                       child process, gone without a trace.\n\nEvery failure is answered with \
                       `{\"error\":{\"code\",\"message\"}}`. Lists are answered with \
                       `{\"items\":[...],\"next_cursor\":...}`; give `next_cursor` back as \
                       `cursor` for the next page. An `_mb` is 2^20 bytes.",
        license(name = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "sandboxes", description = "Making, finding and removing sandboxes"),
        (name = "processes", description = TERMINALS),
        (name = "files", description = "The files of a sandbox"),
        (
            name = "templates",
            description = "What sandboxes start from: images, which boot, and snapshots, which go \
                           on where a sandbox was. A team sees its own and the platform's."
        ),
        (
            name = "builds",
            description = "Making templates by recipes. For administrators."
        ),
        (name = "operations", description = "Outcomes of what was begun earlier"),
        (name = "daemon", description = "The daemon itself; no key is needed"),
    ),
    components(schemas(
        ErrorBody,
        OutputEvent,
        DroppedEvent,
        ProcessExit,
        BuildLogEvent,
        BuildStepInfo
    )),
    security(("api_key" = []), ("bearer" = [])),
    modifiers(&Keys),
)]
pub(crate) struct ApiDoc;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "api_key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))),
        );
        components.add_security_scheme(
            "bearer",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    }
}

/// Adds to every operation the failures that it shares with others.
pub(crate) fn finish(document: &mut Document) {
    // Everything about a new sandbox has a default, the body as a whole too.
    if let Some(create) = document.paths.paths.get_mut("/v1/sandboxes")
        && let Some(RefOr::T(body)) = create.post.as_mut().and_then(|it| it.request_body.as_mut())
    {
        body.required = Some(Required::False);
    }
    let schemas = document
        .components
        .iter_mut()
        .flat_map(|it| &mut it.schemas);
    for (name, schema) in schemas {
        match (name.as_str(), schema) {
            ("ExecBody" | "StartBody", RefOr::T(Schema::Object(body))) => {
                either_or_base64(body, "stdin");
            }
            ("StdinBody", RefOr::T(Schema::Object(body))) => either_or_base64(body, "data"),
            ("ImportSource", RefOr::T(Schema::OneOf(source))) => no_other_fields(source),
            _ => {}
        }
    }
    for (path, item) in &mut document.paths.paths {
        if !path.starts_with("/v1/") {
            continue;
        }
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            add_failures(path, operation);
        }
    }
}

fn add_failures(path: &str, operation: &mut Operation) {
    let one = path.contains('{');
    let guest = path.starts_with("/v1/sandboxes/{id}/");
    let body = operation.request_body.is_some();
    let codes: &[(&[Code], bool)] = &[
        (&[Code::InvalidRequest], true),
        (&[Code::Unauthorized], true),
        (&[Code::Forbidden, Code::QuotaExceeded], true),
        (&[Code::NotFound], one || body),
        (
            &[Code::Conflict, Code::InvalidState, Code::AlreadyExists],
            one || body,
        ),
        (&[Code::TooLarge], guest || body),
        (&[Code::RateLimited], true),
        (&[Code::Internal], true),
        (&[Code::HostError], one || body),
        (&[Code::Unavailable, Code::HostUnavailable], true),
    ];
    for (codes, applies) in codes {
        let Some(first) = codes.first().filter(|_| *applies) else {
            continue;
        };
        let names: Vec<String> = codes
            .iter()
            .map(|code| format!("`{}`", name(*code)))
            .collect();
        let content = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        let response = ResponseBuilder::new()
            .description(names.join(", "))
            .content("application/json", content)
            .build();
        let responses = &mut operation.responses.responses;
        responses
            .entry(first.status().as_str().to_owned())
            .or_insert_with(|| response.into());
    }
}

fn name(code: Code) -> String {
    serde_json::to_value(code)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
