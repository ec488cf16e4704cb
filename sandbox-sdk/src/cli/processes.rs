//! The processes of a sandbox.

use futures::TryStreamExt;
use sandbox_core::{
    id::SandboxId,
    process::{CHUNK_MAX_BYTES, OutputRequest},
};

use super::{
    args::{Kill, Logs},
    exec::{Sink, exit_code},
    failure::Failure,
    session::Session,
    view,
};
use crate::ProcessEvent;

pub(super) async fn ps(session: &Session, id: SandboxId) -> Result<(), Failure> {
    let processes = session.sandbox(id).processes().await?;
    if session.json {
        return view::json(&processes.iter().map(view::process).collect());
    }
    let rows: Vec<_> = processes
        .iter()
        .map(|process| {
            let age = i64::try_from(process.age_ms).unwrap_or(i64::MAX);
            [
                process.pid.to_string(),
                view::standing(process.exit),
                view::span(age),
                if process.pty { "yes" } else { "no" }.to_owned(),
                process.output_end.to_string(),
                process.command.clone(),
            ]
        })
        .collect();
    view::table(["PID", "STATUS", "TIME", "TTY", "OUTPUT", "COMMAND"], &rows)
}

pub(super) async fn kill(session: &Session, args: &Kill) -> Result<(), Failure> {
    let process = session.sandbox(args.id).process(args.pid);
    process.signal(args.signal).await?;
    if session.json {
        view::json(&serde_json::json!({}))?;
    }
    Ok(())
}

pub(super) async fn logs(session: &Session, args: &Logs) -> Result<u8, Failure> {
    let mut sink = Sink::new();
    if args.follow {
        let process = session.sandbox(args.id).process(args.pid);
        let mut events = std::pin::pin!(process.events_from(args.offset));
        while let Some(event) = events.try_next().await? {
            if let ProcessEvent::Exit(exit) = event {
                return Ok(exit_code(exit));
            }
            sink.write(event).await?;
        }
        return Ok(0);
    }
    let mut request = OutputRequest {
        offset: args.offset,
        max_bytes: CHUNK_MAX_BYTES,
        wait_ms: 0,
    };
    loop {
        let api = &session.client.api;
        let output = api.read_output(args.id, args.pid, request).await?;
        let at_end = output.next_offset == request.offset || output.exit.is_some();
        request.offset = output.next_offset;
        for event in crate::process::events_of(output) {
            sink.write(event).await?;
        }
        if at_end {
            return Ok(0);
        }
    }
}
