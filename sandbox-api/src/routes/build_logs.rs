//! A build's log, as server-sent events.
//!
//! The `id` of an output event is its cursor. Whoever comes back with it as `Last-Event-ID` (as
//! browsers do by themselves) goes on behind it, with nothing lost or doubled. Pieces of the log are
//! bytes: characters that were cut in two between pieces are put together again, for which a reader
//! that comes back has the ends of what it has read looked up.
//!
//! ```text
//!  pieces behind the cursor ──► events ──► next pieces … ──► `end` with the final status
//! ```

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt, stream};
use sandbox_core::{
    api::Api,
    build::{BuildEvent, BuildLog, BuildRecord, Follower, LogCursor},
    error::Error,
    id::BuildId,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    http::{
        extract::{InPath, Params, header_text},
        flag::Flag,
    },
    routes::{admin_builds::BuildPath, caller::Platform},
    state::AppState,
    wire::{
        build::{Build, BuildStepInfo},
        build_log::Texts,
    },
};

/// How often a silent stream says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long one question for more waits: how late a step without output may be told of.
const WAIT: Duration = Duration::from_secs(1);
/// Cursors stay below this, so that any JSON reader keeps them.
const CURSOR_MAX: u64 = 1 << 53;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(follow))
}

/// From where, and for how long.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogParams {
    /// Where to begin: 0, or the `id` of an event.
    #[serde(default)]
    #[param(required = false, maximum = 9_007_199_254_740_991_u64)]
    offset: u64,
    /// Whether to go on until the build ends; else the stream ends with what there is.
    #[serde(default)]
    #[param(inline, required = false)]
    follow: Flag,
}

/// Where to go on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `follow` reads by hand")]
struct LogHeaders {
    /// The `id` of the last event that was seen: goes before `offset`.
    #[param(
        rename = "Last-Event-ID",
        nullable = false,
        maximum = 9_007_199_254_740_991_u64
    )]
    last_event_id: Option<u64>,
}

/// One server-sent event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `events` writes")]
struct BuildStreamEvent {
    /// `stdout`, `stderr`, `note`, `step`, `progress`, `end` or `error`.
    event: String,
    /// Of `stdout`, `stderr` and `note`: where to go on behind it.
    id: Option<String>,
    /// JSON: `BuildLogEvent`, `BuildStepInfo`, `Build` or `ErrorDetail`.
    data: String,
}

/// Follow a build's log
///
/// As server-sent events: `stdout`, `stderr` and `note` (`BuildLogEvent`; a note is the platform's
/// own remark), `step` (`BuildStepInfo`, when one begins and when it ends), `progress` (`Build`, when
/// it stands elsewhere), `end` (`Build` with its final status, the last one) and `error` (as in the
/// body of every failure). A request with `Last-Event-ID` goes on behind that event. For
/// administrators.
#[utoipa::path(
    get,
    operation_id = "follow_build",
    path = "/v1/admin/builds/{id}/logs",
    tag = "builds",
    params(BuildPath, LogParams, LogHeaders),
    responses((
        status = OK,
        body = BuildStreamEvent,
        content_type = "text/event-stream",
        description = "What happens in it.",
    )),
)]
async fn follow(
    platform: Platform,
    InPath(path): InPath<BuildPath>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let from = match header_text(&headers, "last-event-id")? {
        None => params.offset,
        Some(id) => id.parse().map_err(|_| {
            ApiError::invalid("the header `Last-Event-ID` must be the `id` of an event")
        })?,
    };
    if from >= CURSOR_MAX {
        return Err(ApiError::invalid_field(
            "offset",
            format!("it is {from}; it must be 0 or the `id` of an event"),
        ));
    }
    let from = LogCursor(from);
    let api = Arc::clone(&platform.api);
    // What is wrong with the request becomes a status: something is read before it is answered.
    let texts = caught_up(&*api, path.id, from).await?;
    let first = api.build_log(path.id, from, Duration::ZERO).await?;
    let following = Following {
        api,
        id: path.id,
        follower: Follower::new(from),
        texts,
        at_hand: Some(first),
        follow: params.follow.is_set(),
        stopping: platform.stopping.clone(),
        ended: false,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let no_cache = [(header::CACHE_CONTROL, "no-store")];
    let events = Sse::new(events(following)).keep_alive(keep_alive);
    Ok((no_cache, events).into_response())
}

/// The ends of characters that the output up to here has left open.
async fn caught_up(api: &dyn Api, id: BuildId, until: LogCursor) -> Result<Texts, Error> {
    let mut texts = Texts::default();
    let mut after = until.attempt_start();
    while after < until {
        let log = api.build_log(id, after, Duration::ZERO).await?;
        let Some(last) = log.entries.last() else {
            break;
        };
        after = last.cursor;
        let seen = log.entries.iter().take_while(|it| it.cursor <= until);
        seen.for_each(|entry| drop(texts.event(entry)));
    }
    Ok(texts)
}

struct Following {
    api: Arc<dyn Api>,
    id: BuildId,
    follower: Follower,
    texts: Texts,
    at_hand: Option<BuildLog>,
    follow: bool,
    stopping: CancellationToken,
    ended: bool,
}

impl Following {
    /// What comes next; nothing when the daemon stops: its reader comes back with the cursor that it
    /// has.
    async fn next(&mut self) -> Option<Result<BuildLog, Error>> {
        if let Some(log) = self.at_hand.take() {
            return Some(Ok(log));
        }
        let wait = if self.follow { WAIT } else { Duration::ZERO };
        tokio::select! {
            read = self.api.build_log(self.id, self.follower.after(), wait) => Some(read),
            () = self.stopping.cancelled() => None,
        }
    }

    /// The events of what was read.
    fn told(&mut self, log: BuildLog) -> Vec<Event> {
        let at_end = log.entries.is_empty() && !self.follow;
        let mut events = Vec::new();
        for told in self.follower.take(log) {
            match told {
                BuildEvent::Progress(record) => events.push(stands("progress", *record)),
                BuildEvent::StepStarted(step) | BuildEvent::StepEnded(step) => {
                    events.push(event("step", None, &BuildStepInfo::from(step)));
                }
                BuildEvent::Output(entry) => {
                    let text = self.texts.event(&entry);
                    let id = Some(entry.cursor);
                    events.push(event(entry.stream.as_str(), id, &text));
                }
                BuildEvent::Ended(record) => {
                    let rest = self.texts.rest(record.updated_at);
                    let rest = rest.iter();
                    events.extend(rest.map(|(stream, text)| event(stream.as_str(), None, text)));
                    events.push(stands("end", *record));
                }
                // Such as one that is new: it changes nothing in what was told.
                _ => {}
            }
        }
        self.ended = at_end || self.follower.ended();
        events
    }
}

fn events(start: Following) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    stream::unfold(start, |mut at| async move {
        if at.ended {
            return None;
        }
        let batch = match at.next().await? {
            Ok(log) => at.told(log),
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

fn stands(name: &str, record: BuildRecord) -> Event {
    event(name, None, &Build::from(record))
}

fn event(name: &str, id: Option<LogCursor>, data: &impl Serialize) -> Event {
    // These types have neither maps with odd keys nor failing parts: they always become JSON.
    let data = serde_json::to_string(data).unwrap_or_default();
    let event = Event::default().event(name).data(data);
    match id {
        Some(LogCursor(id)) => event.id(id.to_string()),
        None => event,
    }
}
