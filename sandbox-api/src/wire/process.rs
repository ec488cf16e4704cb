//! Processes on the wire, and how they end.

use sandbox_core::process::{Command, ExecOutput, Exit, ExitStatus, ProcessInfo, ProcessSpec};
use serde::Serialize;
use utoipa::ToSchema;

use crate::wire::text::{Encoding, encoded, encoding_of};

/// How a process ended: one of the two is null.
fn code_and_signal(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    match status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(signal) => (None, Some(signal)),
    }
}

/// What a command left behind.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecResult {
    /// Its exit code; null where a signal ended it.
    #[schema(required = true)]
    exit_code: Option<i32>,
    /// The number of the signal that ended it.
    #[schema(required = true)]
    signal: Option<i32>,
    /// Standard output.
    stdout: String,
    /// Standard error.
    stderr: String,
    /// How both are written: as text where both are UTF-8.
    encoding: Encoding,
    /// From start to end, measured in the sandbox, in milliseconds.
    duration_ms: u64,
    /// Whether it wrote more than is here.
    truncated: bool,
    /// Whether its time limit ended it.
    timed_out: bool,
}

impl From<ExecOutput> for ExecResult {
    fn from(output: ExecOutput) -> Self {
        let encoding = encoding_of(&[&output.stdout, &output.stderr]);
        let (exit_code, signal) = code_and_signal(output.status);
        Self {
            exit_code,
            signal,
            stdout: encoded(&output.stdout, encoding),
            stderr: encoded(&output.stderr, encoding),
            encoding,
            duration_ms: u64::try_from(output.duration.as_millis()).unwrap_or(u64::MAX),
            truncated: output.truncated(),
            timed_out: output.timed_out,
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ProcessExit {
    /// Its exit code; null where a signal ended it.
    #[schema(required = true)]
    exit_code: Option<i32>,
    /// The number of the signal that ended it.
    #[schema(required = true)]
    signal: Option<i32>,
    /// Whether its time limit ended it.
    timed_out: bool,
    /// From start to end, measured in the sandbox, in milliseconds.
    duration_ms: u64,
}

impl From<Exit> for ProcessExit {
    fn from(exit: Exit) -> Self {
        let (exit_code, signal) = code_and_signal(exit.status);
        Self {
            exit_code,
            signal,
            timed_out: exit.timed_out,
            duration_ms: exit.duration_us / 1000,
        }
    }
}

/// A process that was started through the platform.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Process {
    /// Its process ID in the sandbox.
    pid: u32,
    /// What it runs.
    cmd: String,
    /// Whether it has a terminal.
    pty: bool,
    /// Whether it runs.
    running: bool,
    /// How it ended; null while it runs.
    #[schema(required = true)]
    exit: Option<ProcessExit>,
    /// Milliseconds since it was started, or that it ran.
    age_ms: u64,
    /// The offset of the oldest output still there.
    output_start: u64,
    /// The offset behind the newest output.
    output_end: u64,
}

impl From<ProcessInfo> for Process {
    fn from(info: ProcessInfo) -> Self {
        Self {
            pid: info.pid,
            cmd: info.command,
            pty: info.pty,
            running: info.exit.is_none(),
            exit: info.exit.map(ProcessExit::from),
            age_ms: info.age_ms,
            output_start: info.output_start,
            output_end: info.output_end,
        }
    }
}

impl Process {
    /// What is known of a process at its start, but for its ID.
    pub(crate) fn just_started(spec: &ProcessSpec) -> impl FnOnce(u32) -> Self + Send + use<> {
        let cmd = match &spec.command {
            Command::Shell(line) => line.clone(),
            Command::Program { program, args } => {
                let words = std::iter::once(program).chain(args);
                words.map(String::as_str).collect::<Vec<_>>().join(" ")
            }
        };
        let pty = spec.pty.is_some();
        move |pid| Self {
            pid,
            cmd,
            pty,
            running: true,
            exit: None,
            age_ms: 0,
            output_start: 0,
            output_end: 0,
        }
    }
}
