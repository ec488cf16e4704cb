//! What came of a command, for people and for programs.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use sandbox_core::{
    clock::{Clock, Timestamp},
    id::PLATFORM_TEAM_ID,
    process::{ExecOutput, Exit, ExitStatus, ProcessInfo},
    sandbox::SandboxRecord,
    template::{TemplateRecord, TemplateUse},
};
use sandbox_host::SystemClock;
use serde_json::{Value, json};

use super::{failure::Failure, signal};

/// Writes bytes to stdout as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(Failure::output)
}

pub(super) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

pub(super) fn json(value: &Value) -> Result<(), Failure> {
    line(format_args!("{value:#}"))
}

/// A word to the person, beside what the command gives.
#[expect(clippy::print_stderr, reason = "this is where a person reads it")]
pub(super) fn note(words: impl std::fmt::Display) {
    eprintln!("sandbox: {}", plain(&words.to_string()));
}

/// Text that a guest or client chose, without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Writes rows under a head, in columns.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    let mut widths = head.map(|word| word.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = head.map(str::to_owned);
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{:width$}", plain(cell)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    bytes(text.as_bytes())
}

/// Writes these fields of an object, one a line.
pub(super) fn fields(value: &Value, names: &[&str]) -> Result<(), Failure> {
    for name in names {
        let text = match &value[name] {
            Value::Null => "-".to_owned(),
            Value::String(text) => plain(text),
            other => other.to_string(),
        };
        line(format_args!("{name:<12}  {text}"))?;
    }
    Ok(())
}

/// Bytes as whole MiB, such as `200M`; what is there is never told as nothing.
pub(super) fn mib(bytes: u64) -> String {
    format!("{}M", bytes.div_ceil(1024 * 1024))
}

/// Now, to tell ages by.
pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

/// A span of time in one unit, such as `5m`.
pub(super) fn span(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    span((to - from).num_milliseconds())
}

/// A sandbox, in the words of the REST interface.
pub(super) fn sandbox(record: &SandboxRecord) -> Value {
    let operation = record.operation.as_ref().map(|operation| {
        json!({
            "id": operation.id,
            "kind": operation.kind,
            "started_at": operation.started_at,
        })
    });
    json!({
        "id": record.id,
        "state": record.state,
        "reason": record.reason,
        "operation": operation,
        "template": record.template,
        "vcpus": record.size.vcpus,
        "memory_mb": record.size.memory_mb,
        "disk_size_mb": record.size.disk_size_mb,
        "timeout_sec": record.timeout_sec,
        "on_timeout": record.on_timeout,
        "metadata": record.metadata,
        "team_id": record.team_id,
        "host_id": record.host_id,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "expires_at": record.expires_at,
        "updated_at": record.updated_at,
    })
}

/// A template, likewise.
pub(super) fn template(record: &TemplateRecord) -> Value {
    json!({
        "id": record.id,
        "name": record.name,
        "type": record.kind,
        "team_id": record.team_id,
        "platform": record.team_id == PLATFORM_TEAM_ID,
        "vcpus": record.size.vcpus,
        "memory_mb": record.size.memory_mb,
        "disk_size_mb": record.size.disk_size_mb,
        "size_bytes": record.size_bytes(),
        "created_at": record.created_at,
    })
}

/// A template and who lies on it, likewise.
pub(super) fn template_use(one: &TemplateUse) -> Value {
    let mut value = template(&one.template);
    value["disk_bytes"] = one.template.disk_bytes.into();
    value["memory_bytes"] = one.template.memory_bytes.into();
    value["in_use_by"] = json!(one.in_use_by);
    value
}

/// A process, likewise.
pub(super) fn process(process: &ProcessInfo) -> Value {
    json!({
        "pid": process.pid,
        "command": process.command,
        "pty": process.pty,
        "age_ms": process.age_ms,
        "output_start": process.output_start,
        "output_end": process.output_end,
        "exit": process.exit.map(|exit| {
            let (exit_code, signal) = code_and_signal(exit.status);
            json!({
                "exit_code": exit_code,
                "signal": signal,
                "timed_out": exit.timed_out,
                "duration_ms": exit.duration_us / 1000,
            })
        }),
    })
}

/// A command's output, likewise: as text where all of it is UTF-8, else as base64.
pub(super) fn exec_output(output: &ExecOutput) -> Value {
    let text = std::str::from_utf8(&output.stdout)
        .and_then(|stdout| Ok((stdout, std::str::from_utf8(&output.stderr)?)));
    let (stdout, stderr, encoding) = match text {
        Ok((stdout, stderr)) => (stdout.to_owned(), stderr.to_owned(), "utf-8"),
        Err(_) => (
            STANDARD.encode(&output.stdout),
            STANDARD.encode(&output.stderr),
            "base64",
        ),
    };
    let (exit_code, signal) = code_and_signal(output.status);
    json!({
        "exit_code": exit_code,
        "signal": signal,
        "stdout": stdout,
        "stderr": stderr,
        "encoding": encoding,
        "duration_ms": u64::try_from(output.duration.as_millis()).unwrap_or(u64::MAX),
        "truncated": output.truncated(),
        "timed_out": output.timed_out,
    })
}

const fn code_and_signal(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    match status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(signal) => (None, Some(signal)),
    }
}

/// How a process stands, for people.
pub(super) fn standing(exit: Option<Exit>) -> String {
    match exit {
        None => "running".to_owned(),
        Some(exit) if exit.timed_out => "timed out".to_owned(),
        Some(exit) => match exit.status {
            ExitStatus::Code(code) => format!("exited {code}"),
            ExitStatus::Signal(number) => signal::name(number),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_one_unit() {
        let spans = [-5, 0, 59_999, 120_000, 7_200_000, 172_800_000].map(span);
        assert_eq!(spans, ["0s", "0s", "59s", "2m", "2h", "2d"]);
    }

    #[test]
    fn trap_33_what_a_guest_wrote_commands_no_terminal() {
        assert_eq!(
            plain("a\u{1b}[2Jb\nc\td\u{9b}"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}"
        );
    }
}
