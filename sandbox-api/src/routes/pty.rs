//! A terminal over a WebSocket.
//!
//! ```text
//!  client                                   daemon
//!    │  GET .../pty?cmd=&rows=&cols=          │  the process is started (or found, with pid=)
//!    │ ◄───────────────── {"type":"started"}  │
//!    │ ◄───────────────── binary: output      │
//!    │  binary: input ──────────────────────► │
//!    │  {"type":"resize","rows":,"cols":} ──► │
//!    │  {"type":"signal","signal":} ────────► │
//!    │ ◄──────────── {"type":"exit",...}      │  the process ended; the socket is closed
//!    │  close ──────────────────────────────► │  the process is hung up (SIGHUP)
//! ```
//!
//! A client that vanishes without a close frame leaves the process running: it comes back with
//! `pid` and `offset`. So it does when the daemon was killed; a process that has much to say waits
//! for that only so long, and then drops its oldest output.

use std::time::Duration;

use axum::{
    Router,
    body::Bytes,
    extract::{
        State,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    response::Response,
    routing::get,
};
use futures::{
    Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use sandbox_core::{
    id::SandboxId,
    process::{Command, OutputRequest, ProcessSpec, PtySize, Stdin, WhenFull},
};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Instrument, Span};

use crate::{
    error::{ApiError, ErrorDetail},
    http::extract::{InPath, Params},
    limits::WEBSOCKET_MESSAGE_BYTES_MAX,
    routes::{
        SandboxPath,
        caller::Platform,
        follow::{LONG_POLL_MS, Reader},
        processes::write_all,
    },
    state::AppState,
    wire::{input::SignalName, process::ProcessExit},
};

const SIGHUP: i32 = 1;
/// How often the daemon looks whether the client is there.
const PING_EVERY: Duration = Duration::from_secs(20);

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/v1/sandboxes/{id}/pty", get(pty))
}

/// What to run on which terminal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PtyParams {
    /// A line for the shell; a login shell where absent.
    cmd: Option<String>,
    /// Height in lines; 24 where absent.
    rows: Option<u16>,
    /// Width in columns; 80 where absent.
    cols: Option<u16>,
    /// Working directory, absolute.
    cwd: Option<String>,
    /// User by name or number; root where absent.
    user: Option<String>,
    /// Takes up the terminal of a process that runs, instead of starting one.
    pid: Option<u32>,
    /// With `pid`: the offset of the output to begin at.
    offset: Option<u64>,
}

impl PtyParams {
    fn size(&self) -> Option<PtySize> {
        const ROWS: u16 = 24;
        const COLS: u16 = 80;
        let named = self.rows.is_some() || self.cols.is_some();
        (named || self.pid.is_none()).then(|| PtySize {
            rows: self.rows.unwrap_or(ROWS),
            cols: self.cols.unwrap_or(COLS),
        })
    }

    fn into_spec(self, patience: Duration) -> ProcessSpec {
        let size = self.size();
        let command = match self.cmd {
            Some(line) => Command::Shell(line),
            None => Command::Program {
                program: "/bin/sh".to_owned(),
                args: vec!["-l".to_owned()],
            },
        };
        ProcessSpec {
            cwd: self.cwd,
            user: self.user,
            env: [("TERM".to_owned(), "xterm-256color".to_owned())].into(),
            stdin: Stdin::Piped,
            pty: size,
            // A reader that is slower than the process slows it down, and misses nothing.
            when_full: WhenFull::Wait,
            // Nobody says so where the daemon is killed and no reader comes back.
            reader_patience_ms: Some(u32::try_from(patience.as_millis()).unwrap_or(u32::MAX)),
            ..ProcessSpec::new(command)
        }
    }
}

/// What the daemon says in text frames.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said<'e> {
    Started { pid: u32 },
    Dropped { dropped_bytes: u64 },
    Exit(ProcessExit),
    Error(&'e ErrorDetail),
}

/// What clients say in text frames.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Asked {
    Resize { rows: u16, cols: u16 },
    Signal { signal: SignalName },
}

/// Opens a terminal. OpenAPI has no words for WebSockets; `openapi` says in prose what this takes.
async fn pty(
    platform: Platform,
    State(state): State<AppState>,
    InPath(path): InPath<SandboxPath>,
    Params(params): Params<PtyParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| {
        ApiError::invalid(format!(
            "this path is a WebSocket: {}",
            rejection.body_text()
        ))
    })?;
    let patience = state.limits.terminal_patience;
    let terminal = open(platform, path.id, params, patience).await?;
    let span = Span::current();
    Ok(upgrade
        .max_message_size(WEBSOCKET_MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| terminal.serve(socket).instrument(span)))
}

async fn open(
    platform: Platform,
    id: SandboxId,
    params: PtyParams,
    patience: Duration,
) -> Result<Terminal, ApiError> {
    let (pid, offset) = match params.pid {
        Some(pid) => {
            let offset = params.offset.unwrap_or(0);
            if params.cmd.is_some() || params.cwd.is_some() || params.user.is_some() {
                return Err(ApiError::invalid(
                    "`pid` takes up a process that runs: `cmd`, `cwd` and `user` make no sense",
                ));
            }
            if let Some(size) = params.size() {
                platform.api.resize_pty(id, pid, size).await?;
            }
            // Shows whether it is there at all, while that can still be a status.
            let look = OutputRequest {
                offset,
                max_bytes: 1,
                wait_ms: 0,
            };
            platform.api.read_output(id, pid, look).await?;
            (pid, offset)
        }
        None if params.offset.is_some() => {
            return Err(ApiError::invalid_field("offset", "it goes with `pid`"));
        }
        None => {
            let started = platform
                .api
                .start_process(id, params.into_spec(patience), Duration::ZERO)
                .await?;
            (started.pid, 0)
        }
    };
    let reader = Reader::new(platform.api.clone(), id, pid, offset).within(patience);
    Ok(Terminal { platform, reader })
}

struct Terminal {
    platform: Platform,
    reader: Reader,
}

/// How a terminal came to its end.
enum End {
    /// The process ended, or can no longer be read.
    Process,
    /// The client closed it.
    Closed,
    /// The client is gone, or the daemon stops.
    Lost,
}

impl Terminal {
    async fn serve(self, socket: WebSocket) {
        let Self {
            platform,
            mut reader,
        } = self;
        let (id, pid) = (reader.id, reader.pid);
        let (mut sink, mut stream) = socket.split();
        let end = {
            let output = send_output(&mut reader, &mut sink);
            let input = take_input(&platform, id, pid, &mut stream);
            tokio::select! {
                end = output => end,
                end = input => end,
                () = platform.stopping.cancelled() => End::Lost,
            }
        };
        let code = match end {
            End::Process => close_code::NORMAL,
            End::Closed => {
                // It may have ended by itself.
                let _ = platform.api.signal(id, pid, SIGHUP, true).await;
                close_code::NORMAL
            }
            End::Lost => close_code::AWAY,
        };
        if !matches!(end, End::Process) {
            // Nobody reads now: it must not wait.
            let _ = platform.api.detach_output(id, pid).await;
        }
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from_static(""),
        };
        // The client may be gone.
        let _ = sink.send(Message::Close(Some(frame))).await;
        let _ = sink.close().await;
    }
}

async fn say(
    sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin),
    said: &Said<'_>,
) -> Result<(), axum::Error> {
    let text = serde_json::to_string(said).map_err(axum::Error::new)?;
    sink.send(Message::Text(text.into())).await
}

async fn send_output(reader: &mut Reader, sink: &mut SplitSink<WebSocket, Message>) -> End {
    match try_send_output(reader, sink).await {
        Ok(()) => End::Process,
        Err(_gone) => End::Lost,
    }
}

async fn try_send_output(
    reader: &mut Reader,
    sink: &mut SplitSink<WebSocket, Message>,
) -> Result<(), axum::Error> {
    say(sink, &Said::Started { pid: reader.pid }).await?;
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // A read that is dropped has taken nothing: the next one names the same offset.
        let read = tokio::select! {
            read = reader.next(LONG_POLL_MS) => read,
            _ = pings.tick() => {
                reader.while_sending(sink.send(Message::Ping(Bytes::new()))).await?;
                continue;
            }
        };
        let output = match read {
            Ok(output) => output,
            Err(error) => return say(sink, &Said::Error(ApiError::from(error).detail())).await,
        };
        if output.dropped_bytes > 0 {
            let dropped_bytes = output.dropped_bytes;
            let said = Said::Dropped { dropped_bytes };
            reader.while_sending(say(sink, &said)).await?;
        }
        for chunk in output.chunks {
            let sending = sink.send(Message::Binary(chunk.data));
            reader.while_sending(sending).await?;
        }
        if let Some(exit) = output.exit {
            return say(sink, &Said::Exit(exit.into())).await;
        }
    }
}

async fn take_input(
    platform: &Platform,
    id: SandboxId,
    pid: u32,
    stream: &mut SplitStream<WebSocket>,
) -> End {
    loop {
        let done = match next(stream).await {
            Some(Message::Binary(data)) => {
                let written = write_all(platform, id, pid, data, false).await;
                written.map(drop)
            }
            Some(Message::Text(text)) => obey(platform, id, pid, &text).await,
            Some(Message::Close(_)) => return End::Closed,
            Some(Message::Ping(_) | Message::Pong(_)) => Ok(()),
            None => return End::Lost,
        };
        if let Err(error) = done {
            // The process's end shows in its output; anything else is the client's to find.
            tracing::debug!(
                error = error.detail().message,
                "a terminal's input was refused"
            );
        }
    }
}

async fn next(
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
) -> Option<Message> {
    stream.next().await?.ok()
}

async fn obey(platform: &Platform, id: SandboxId, pid: u32, text: &str) -> Result<(), ApiError> {
    let asked: Asked =
        serde_json::from_str(text).map_err(|error| ApiError::invalid(error.to_string()))?;
    match asked {
        Asked::Resize { rows, cols } => {
            let size = PtySize { rows, cols };
            platform.api.resize_pty(id, pid, size).await?;
        }
        Asked::Signal { signal } => {
            let number = signal.number()?;
            platform.api.signal(id, pid, number, true).await?;
        }
    }
    Ok(())
}
