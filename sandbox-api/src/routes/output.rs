//! A process's output, as server-sent events or as one piece of JSON.
//!
//! The `id` of each event is the offset behind it, so that a reader that comes back with
//! `Last-Event-ID` (as browsers do by themselves) goes on with no byte lost or doubled.
//!
//! ```text
//!  read from an offset ──► events ──► all written to the connection ──► read from the next offset
//!                            └─ the connection breaks: nothing after that offset was taken
//! ```

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt, stream};
use sandbox_core::{error::Error, guest::GuestError, process::Output};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::{ApiError, Code},
    http::{
        extract::{InPath, Params, header_text},
        flag::Flag,
        unsent::Unsent,
    },
    routes::{
        ProcessPath,
        caller::Platform,
        follow::{LONG_POLL_MS, Reader},
    },
    state::AppState,
    wire::{
        output::{OutputPiece, StreamName},
        process::ProcessExit,
        text::{Encoding, encoded, encoding_of},
    },
};

/// How often a silent stream says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The longest wait that a request for JSON may ask for, in milliseconds.
const WAIT_MS_MAX: u32 = 30_000;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(output))
}

/// From where, and for how long.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OutputParams {
    /// Where to begin: 0, a `next_offset`, or the `id` of an event.
    #[serde(default)]
    #[param(required = false)]
    offset: u64,
    /// Whether to go on until the process ends; else the stream ends with what there is.
    #[serde(default)]
    #[param(inline, required = false)]
    follow: Flag,
    /// JSON alone: how long to wait where there is nothing yet, in milliseconds.
    #[serde(default)]
    #[param(required = false, maximum = 30_000)]
    wait_ms: u32,
}

/// Where to go on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `output` reads by hand")]
struct OutputHeaders {
    /// The `id` of the last event that was seen: goes before `offset`.
    #[param(rename = "Last-Event-ID", nullable = false)]
    last_event_id: Option<u64>,
}

/// The data of `stdout` and `stderr` events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputEvent {
    /// The bytes.
    data: String,
    /// How they are written. A character that was cut in two makes its pieces base64.
    encoding: Encoding,
}

/// The data of `dropped` events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DroppedEvent {
    /// Bytes that were dropped before they were read.
    dropped_bytes: u64,
}

/// One server-sent event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `event` writes")]
struct OutputStreamEvent {
    /// `stdout`, `stderr`, `dropped`, `exit` or `error`.
    event: String,
    /// The offset behind it.
    id: Option<String>,
    /// JSON: `OutputEvent`, `DroppedEvent`, `ProcessExit` or `ErrorDetail`.
    data: String,
}

/// Read a process's output
///
/// As server-sent events: `stdout` and `stderr` (`OutputEvent`), `dropped` (`DroppedEvent`), `exit`
/// (`ProcessExit`, the last one) and `error` (as in the body of every failure). The `id` of an
/// event is the offset behind it; a request with `Last-Event-ID` goes on there. With
/// `Accept: application/json` it is one piece of JSON.
#[utoipa::path(
    get,
    operation_id = "read_output",
    path = "/v1/sandboxes/{id}/processes/{pid}/output",
    tag = "processes",
    params(
        ProcessPath,
        OutputParams,
        OutputHeaders,
    ),
    responses((
        status = OK,
        description = "What it wrote.",
        content((OutputStreamEvent = "text/event-stream"), (OutputPiece = "application/json")),
    )),
)]
async fn output(
    platform: Platform,
    InPath(path): InPath<ProcessPath>,
    Params(params): Params<OutputParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if params.wait_ms > WAIT_MS_MAX {
        let problem = format!("it is {}; it must be at most {WAIT_MS_MAX}", params.wait_ms);
        return Err(ApiError::invalid_field("wait_ms", problem));
    }
    let offset = match header_text(&headers, "last-event-id")? {
        None => params.offset,
        Some(id) => id.parse().map_err(|_| {
            ApiError::invalid("the header `Last-Event-ID` must be the `id` of an event")
        })?,
    };
    let mut reader = Reader::new(platform.api.clone(), path.id, path.pid, offset);
    let follow = params.follow.is_set();
    if wants_json(&headers) {
        let wait_ms = match (params.wait_ms, follow) {
            (0, true) => LONG_POLL_MS,
            (wait_ms, _) => wait_ms,
        };
        let piece = tokio::select! {
            piece = reader.next(wait_ms) => piece,
            () = platform.stopping.cancelled() => reader.next(0).await,
        };
        let piece = piece.map_err(unreadable)?;
        return Ok(Json(OutputPiece::from(piece)).into_response());
    }
    // The first piece is read before anything is answered: what is wrong with the request becomes
    // a status.
    let first = reader.next(0).await.map_err(unreadable)?;
    let unsent = Unsent::default();
    let events = events(Following {
        reader,
        offset,
        at_hand: Some(first),
        follow,
        unsent: unsent.clone(),
        stopping: platform.stopping.clone(),
        ended: false,
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let no_cache = [(header::CACHE_CONTROL, "no-store")];
    let response = (no_cache, Sse::new(events).keep_alive(keep_alive)).into_response();
    Ok(unsent.of(response))
}

/// An offset that the output has not reached is nothing that is wrong by itself.
fn unreadable(error: Error) -> ApiError {
    match error {
        Error::Guest(GuestError::Invalid(words)) => ApiError::new(Code::InvalidState, words),
        error => error.into(),
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    accept.is_some_and(|accept| {
        let mut kinds = accept.split(',').map(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().to_ascii_lowercase()
        });
        kinds.find(|kind| kind == "application/json" || kind == "text/event-stream")
            == Some("application/json".to_owned())
    })
}

struct Following {
    reader: Reader,
    /// The offset before what is at hand.
    offset: u64,
    at_hand: Option<Output>,
    follow: bool,
    /// What of the events before is still on its way.
    unsent: Unsent,
    stopping: CancellationToken,
    ended: bool,
}

impl Following {
    /// What comes next, once what came before has been sent; nothing when the daemon stops.
    async fn next(&mut self) -> Option<Result<Output, Error>> {
        if let Some(output) = self.at_hand.take() {
            return Some(Ok(output));
        }
        let wait_ms = if self.follow { LONG_POLL_MS } else { 0 };
        let read = async {
            self.reader.while_sending(self.unsent.none()).await;
            self.reader.next(wait_ms).await
        };
        tokio::select! {
            read = read => Some(read),
            // Its reader comes back with the offset that it has.
            () = self.stopping.cancelled() => None,
        }
    }
}

fn events(start: Following) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    stream::unfold(start, |mut at| async move {
        if at.ended {
            return None;
        }
        let read = at.next().await?;
        let batch = match read {
            Ok(output) => {
                let empty = output.chunks.is_empty() && output.dropped_bytes == 0;
                at.ended = output.exit.is_some() || (empty && !at.follow);
                let batch = batch(at.offset, &output);
                at.offset = output.next_offset;
                batch
            }
            Err(error) => {
                at.ended = true;
                vec![event("error", None, ApiError::from(error).detail())]
            }
        };
        Some((stream::iter(batch), at))
    })
    .flatten()
    .map(Ok)
}

/// The events of one piece of output that was read from `offset`.
fn batch(offset: u64, output: &Output) -> Vec<Event> {
    let mut offset = offset + output.dropped_bytes;
    let mut events = Vec::with_capacity(output.chunks.len() + 2);
    if output.dropped_bytes > 0 {
        let data = DroppedEvent {
            dropped_bytes: output.dropped_bytes,
        };
        events.push(event("dropped", Some(offset), &data));
    }
    for chunk in &output.chunks {
        offset += chunk.data.len() as u64;
        let encoding = encoding_of(&[&chunk.data]);
        let data = OutputEvent {
            data: encoded(&chunk.data, encoding),
            encoding,
        };
        let name = StreamName::from(chunk.stream).as_str();
        events.push(event(name, Some(offset), &data));
    }
    if let Some(exit) = output.exit {
        let data = ProcessExit::from(exit);
        events.push(event("exit", Some(output.next_offset), &data));
    }
    events
}

fn event(name: &str, id: Option<u64>, data: &impl Serialize) -> Event {
    // These types have neither maps with odd keys nor failing parts: they always become JSON.
    let data = serde_json::to_string(data).unwrap_or_default();
    let event = Event::default().event(name).data(data);
    match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_to_those_who_ask_for_it_first() {
        for (accept, json) in [
            ("application/json", true),
            ("application/json, text/plain, */*", true),
            ("text/event-stream", false),
            ("text/event-stream, application/json;q=0.5", false),
            ("*/*", false),
        ] {
            let headers = [(header::ACCEPT, accept.parse().unwrap())];
            let headers: HeaderMap = headers.into_iter().collect();
            assert_eq!(wants_json(&headers), json, "{accept}");
        }
        assert!(!wants_json(&HeaderMap::new()));
    }
}
