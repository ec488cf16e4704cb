//! Looking at builds, and ending them.

use futures::StreamExt;
use sandbox_core::{
    build::{
        BuildDetails, BuildEvent, BuildFilter, BuildPageRequest, BuildRecord, BuildStatus,
        BuildStep, LogCursor, LogEntry, Step,
    },
    clock::Timestamp,
    error::Error,
    id::BuildId,
};
use serde_json::{Value, json};

use super::{
    args::Ls,
    screen::{Screen, To, seconds},
};
use crate::{
    Build, FailedBuild,
    cli::{failure::Failure, session::Session, view},
};

/// What a person wants to know first comes first.
const SHOWN: [&str; 10] = [
    "id",
    "status",
    "name",
    "base_template",
    "current_step",
    "total_steps",
    "template_id",
    "created_at",
    "started_at",
    "finished_at",
];

pub(super) async fn ls(session: &Session, args: Ls) -> Result<(), Failure> {
    let filter = BuildFilter {
        statuses: args.status.into_iter().collect(),
        name: args.name,
        team_id: None,
        newest_first: true,
    };
    let most = args.limit.unwrap_or(usize::MAX);
    let mut page = BuildPageRequest::default();
    let mut found: Vec<BuildRecord> = Vec::new();
    loop {
        let part = session.client.builds(filter.clone(), page).await?;
        found.extend(part.items);
        page.after = part.next;
        if page.after.is_none() || found.len() >= most {
            break;
        }
    }
    found.truncate(most);
    if session.json {
        return view::json(&found.iter().map(build).collect());
    }
    if args.quiet {
        return found.iter().try_for_each(|one| view::line(one.id));
    }
    let now = view::now();
    let rows: Vec<_> = found.iter().map(|one| row(one, now)).collect();
    view::table(
        ["ID", "NAME", "BASE", "STATUS", "STEP", "AGE", "TOOK"],
        &rows,
    )
}

fn row(one: &BuildRecord, now: Timestamp) -> [String; 7] {
    let took = one.started_at.map(|from| {
        let to = one.finished_at.unwrap_or(now);
        view::between(from, to)
    });
    [
        one.id.to_string(),
        one.name.to_string(),
        one.base_template.to_string(),
        one.status.as_str().to_owned(),
        format!("{}/{}", one.current_step, one.total_steps),
        view::between(one.created_at, now),
        took.unwrap_or_else(|| "-".to_owned()),
    ]
}

pub(super) async fn get(session: &Session, id: BuildId) -> Result<(), Failure> {
    let found = session.client.api.build(id).await?;
    let value = details(&found);
    if session.json {
        return view::json(&value);
    }
    view::fields(&value, &SHOWN)?;
    if let Some(failure) = &found.record.failure {
        let error = view::plain(failure.message.lines().next().unwrap_or_default());
        view::line(format_args!("{:<12}  {error}", "error"))?;
    }
    if found.steps.is_empty() {
        return Ok(());
    }
    view::line("")?;
    let rows: Vec<_> = found.steps.iter().map(|one| step_row(&one.step)).collect();
    view::table(["STEP", "PHASE", "RESULT", "TIME", "COMMAND"], &rows)
}

fn step_row(step: &BuildStep) -> [String; 5] {
    let result = match (step.ok, step.cached, step.exit_code) {
        (None, ..) => "at work".to_owned(),
        (Some(true), true, _) => "cached".to_owned(),
        (Some(true), false, _) => "done".to_owned(),
        (Some(false), _, Some(code)) => format!("exit code {code}"),
        (Some(false), _, None) => "failed".to_owned(),
    };
    [
        step.step.to_string(),
        step.phase.as_str().to_owned(),
        result,
        seconds(step.elapsed_ms),
        step.cmd.clone(),
    ]
}

/// Prints the log; with `follow` to the build's end, which decides on the exit code.
pub(super) async fn logs(session: &Session, id: BuildId, follow: bool) -> Result<u8, Failure> {
    let one = Build::new(session.client.api.clone(), id);
    let from = LogCursor::default();
    let mut screen = Screen::plain(To::Stdout);
    let mut events = match follow {
        true => one.follow(from).boxed(),
        false => one.log(from).boxed(),
    };
    let mut ended = None;
    while let Some(event) = events.next().await {
        let event = event?;
        if let BuildEvent::Ended(record) = &event {
            ended = Some(record.status);
        }
        match &event {
            BuildEvent::Output(entry) if session.json => view::bytes(&json_line(entry))?,
            _ if session.json => {}
            event => screen.show(event)?,
        }
    }
    match ended {
        Some(BuildStatus::Failed | BuildStatus::Cancelled) if follow => match one.wait().await {
            Ok(_) => Ok(0),
            Err(error) => Err(error.into()),
        },
        _ => Ok(0),
    }
}

fn json_line(entry: &LogEntry) -> Vec<u8> {
    let line = json!({
        "id": entry.cursor.0,
        "step": entry.step,
        "stream": entry.stream.as_str(),
        "data": String::from_utf8_lossy(&entry.data),
        "at": entry.at,
    });
    format!("{line}\n").into_bytes()
}

/// Ends all that it can and tells of the first that it could not.
pub(super) async fn cancel(session: &Session, ids: Vec<BuildId>) -> Result<(), Failure> {
    let mut first: Result<(), Error> = Ok(());
    let mut ended = Vec::new();
    for id in ids {
        match session.client.api.cancel_build(id).await {
            Ok(record) if session.json => ended.push(build(&record)),
            Ok(_) => view::line(id)?,
            Err(error) if first.is_ok() => first = Err(error),
            Err(error) => view::note(error),
        }
    }
    first?;
    if session.json {
        return view::json(&ended.into());
    }
    Ok(())
}

/// The end of what the step printed at which a build failed, for a person.
pub(super) fn tail(failed: &FailedBuild) {
    let Some(step) = &failed.step else {
        return;
    };
    view::note(format_args!("step {} was: {}", step.step, step.cmd));
    for line in step.stdout.lines().chain(step.stderr.lines()) {
        view::note(format_args!("  {}", line.replace('\t', "    ")));
    }
}

/// A build, in the words of the REST interface.
pub(super) fn build(record: &BuildRecord) -> Value {
    let error = record.failure.as_ref().map(|failure| {
        json!({
            "message": failure.message,
            "step": failure.step,
            "error_id": failure.error_id,
        })
    });
    json!({
        "id": record.id,
        "status": record.status,
        "name": record.name,
        "base_template": record.base_template,
        "team_id": record.team_id,
        "current_step": record.current_step,
        "total_steps": record.total_steps,
        "attempt": record.attempt,
        "template_id": record.template_id,
        "error": error,
        "context": record.context,
        "healthcheck": record.healthcheck,
        "vcpus": record.size.vcpus,
        "memory_mb": record.size.memory_mb,
        "disk_size_mb": record.size.disk_size_mb,
        "no_cache": record.no_cache,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "updated_at": record.updated_at,
    })
}

/// A build with its recipe and steps, likewise.
pub(super) fn details(details: &BuildDetails) -> Value {
    let mut value = build(&details.record);
    let recipe = details.record.recipe.steps.iter().map(Step::text);
    value["recipe"] = recipe.collect();
    let logs = details.steps.iter().map(|log| {
        json!({
            "step": log.step.step,
            "phase": log.step.phase,
            "cmd": log.step.cmd,
            "stdout": String::from_utf8_lossy(&log.stdout),
            "stderr": String::from_utf8_lossy(&log.stderr),
            "exit_code": log.step.exit_code,
            "ok": log.step.ok,
            "elapsed_ms": log.step.elapsed_ms,
            "cached": log.step.cached,
            "dropped_bytes": log.step.dropped_bytes,
        })
    });
    value["logs"] = logs.collect();
    value
}
