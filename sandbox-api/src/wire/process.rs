//! Commands and processes on the wire.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use sandbox_core::process::{
    Command, ExecOutput, Exit, ExitStatus, Output, OutputChunk, OutputStream, ProcessInfo,
    ProcessSpec, PtySize, Stdin, WhenFull,
};
use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
};

use crate::{
    error::ApiError,
    wire::{
        schema::{arguments, environment},
        text::{Encoding, encoded, encoding_of, given},
        whole,
    },
};

/// A command to run to its end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecBody {
    /// A line for `/bin/sh -c`; with `args` a program, looked up in `PATH`.
    #[schema(
        example = "echo hello from $(uname -s)",
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    cmd: String,
    /// Arguments of the program.
    #[schema(schema_with = arguments)]
    args: Option<Vec<String>>,
    /// Working directory, absolute; the user's home where absent.
    #[schema(pattern = "^/[^\\x00]*$")]
    cwd: Option<String>,
    /// Environment variables over the sandbox's own.
    #[schema(schema_with = environment)]
    env: Option<BTreeMap<String, String>>,
    /// User by name or number; root where absent.
    #[schema(pattern = "^[^\\x00]+$")]
    user: Option<String>,
    /// What it reads from stdin, as text. Nothing where absent.
    stdin: Option<String>,
    /// What it reads from stdin, as base64.
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    stdin_base64: Option<String>,
    /// Seconds after which it is killed; never where absent.
    #[schema(exclusive_minimum = 0, maximum = 315_360_000_u64)]
    timeout_sec: Option<f64>,
}

impl ExecBody {
    pub(crate) fn into_spec(self) -> Result<ProcessSpec, ApiError> {
        let stdin = given("stdin", self.stdin, self.stdin_base64)?;
        Ok(ProcessSpec {
            cwd: self.cwd,
            env: self.env.unwrap_or_default(),
            user: self.user,
            stdin: stdin.map_or(Stdin::Null, Stdin::Bytes),
            timeout_ms: self.timeout_sec.map(timeout_ms).transpose()?,
            ..ProcessSpec::new(command(self.cmd, self.args))
        })
    }
}

fn command(cmd: String, args: Option<Vec<String>>) -> Command {
    match args {
        None => Command::Shell(cmd),
        Some(args) => Command::Program { program: cmd, args },
    }
}

fn timeout_ms(seconds: f64) -> Result<u64, ApiError> {
    const SECONDS_MAX: f64 = 315_360_000.0;
    if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
        return Err(ApiError::invalid_field(
            "timeout_sec",
            format!("it is {seconds}; it must be above 0 and at most {SECONDS_MAX}, or absent"),
        ));
    }
    let millis = Duration::from_secs_f64(seconds).as_millis();
    // Never 0, which would be no time at all.
    Ok(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
}

/// A terminal's size in character cells.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TerminalSize {
    /// Height in lines.
    #[schema(minimum = 1, maximum = 65_535)]
    #[serde(deserialize_with = "whole::number")]
    pub(crate) rows: u16,
    /// Width in columns.
    #[schema(minimum = 1, maximum = 65_535)]
    #[serde(deserialize_with = "whole::number")]
    pub(crate) cols: u16,
}

impl From<TerminalSize> for PtySize {
    fn from(size: TerminalSize) -> Self {
        Self {
            rows: size.rows,
            cols: size.cols,
        }
    }
}

/// What happens when nobody has read more output than the log holds.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WhenFull)]
pub(crate) enum Full {
    /// The oldest output goes; readers learn how much they missed.
    DropOldest,
    /// The process waits until a reader has asked for what follows.
    Wait,
}

/// A process to start in the background.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartBody {
    /// A line for `/bin/sh -c`; with `args` a program, looked up in `PATH`.
    #[schema(
        example = "while true; do date; sleep 1; done",
        pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$"
    )]
    cmd: String,
    /// Arguments of the program.
    #[schema(schema_with = arguments)]
    args: Option<Vec<String>>,
    /// Working directory, absolute; the user's home where absent.
    #[schema(pattern = "^/[^\\x00]*$")]
    cwd: Option<String>,
    /// Environment variables over the sandbox's own.
    #[schema(schema_with = environment)]
    env: Option<BTreeMap<String, String>>,
    /// User by name or number; root where absent.
    #[schema(pattern = "^[^\\x00]+$")]
    user: Option<String>,
    /// All of its stdin, as text. Where absent, stdin stays open for `POST .../stdin`.
    stdin: Option<String>,
    /// All of its stdin, as base64.
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    stdin_base64: Option<String>,
    /// Runs it on a terminal of this size.
    pty: Option<TerminalSize>,
    /// Seconds after which it is killed; never where absent.
    #[schema(exclusive_minimum = 0, maximum = 315_360_000_u64)]
    timeout_sec: Option<f64>,
    /// How much unread output is kept, in bytes; 4 MiB where absent.
    #[schema(minimum = 4096, maximum = 67_108_864)]
    #[serde(default, deserialize_with = "whole::optional")]
    retain_bytes: Option<u32>,
    /// What happens at that bound; `drop_oldest` where absent.
    when_full: Option<Full>,
}

impl StartBody {
    pub(crate) fn into_spec(self) -> Result<ProcessSpec, ApiError> {
        let stdin = given("stdin", self.stdin, self.stdin_base64)?;
        let mut spec = ProcessSpec {
            cwd: self.cwd,
            env: self.env.unwrap_or_default(),
            user: self.user,
            stdin: stdin.map_or(Stdin::Piped, Stdin::Bytes),
            pty: self.pty.map(PtySize::from),
            timeout_ms: self.timeout_sec.map(timeout_ms).transpose()?,
            ..ProcessSpec::new(command(self.cmd, self.args))
        };
        if let Some(bytes) = self.retain_bytes {
            spec.retain_bytes = bytes;
        }
        if let Some(Full::Wait) = self.when_full {
            spec.when_full = WhenFull::Wait;
        }
        Ok(spec)
    }
}

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

/// Which of a process's two outputs bytes came from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StreamName {
    /// Standard output, and everything where the process has a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl From<OutputStream> for StreamName {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

/// Bytes that a process wrote.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Chunk {
    /// Where they came from.
    pub(crate) stream: StreamName,
    /// The bytes.
    pub(crate) data: String,
    /// How they are written. A character that was cut in two makes its pieces base64.
    pub(crate) encoding: Encoding,
}

impl From<&OutputChunk> for Chunk {
    fn from(chunk: &OutputChunk) -> Self {
        let encoding = encoding_of(&[&chunk.data]);
        Self {
            stream: chunk.stream.into(),
            data: encoded(&chunk.data, encoding),
            encoding,
        }
    }
}

/// A piece of a process's output.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputPiece {
    /// Bytes between the offset that was asked for and the first chunk that are gone.
    dropped_bytes: u64,
    /// What there is, in order.
    chunks: Vec<Chunk>,
    /// The offset to ask for next.
    next_offset: u64,
    /// How the process ended, once this reaches the end of its output.
    #[schema(required = true)]
    exit: Option<ProcessExit>,
}

impl From<Output> for OutputPiece {
    fn from(output: Output) -> Self {
        Self {
            dropped_bytes: output.dropped_bytes,
            chunks: output.chunks.iter().map(Chunk::from).collect(),
            next_offset: output.next_offset,
            exit: output.exit.map(ProcessExit::from),
        }
    }
}

/// What to write to a process's stdin or terminal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StdinBody {
    /// Text to write.
    data: Option<String>,
    /// Bytes to write, as base64.
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    data_base64: Option<String>,
    /// Closes stdin behind it: the process reads end of file.
    close: Option<bool>,
}

impl StdinBody {
    /// What to write, and whether to close then.
    pub(crate) fn into_parts(self) -> Result<(Bytes, bool), ApiError> {
        let data = given("data", self.data, self.data_base64)?;
        Ok((data.unwrap_or_default(), self.close.unwrap_or(false)))
    }
}

/// How much was written to stdin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StdinResult {
    /// Bytes that were taken: fewer than given where the process does not read.
    pub(crate) written_bytes: u64,
    /// Whether stdin is closed now.
    pub(crate) closed: bool,
}

/// A signal, by number or by name.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number such as 15 or a name such as \"SIGTERM\""
)]
pub(crate) enum SignalName {
    /// Its Linux number. JSON knows no difference between 15 and 15.0.
    Number(f64),
    /// Its name, with or without `SIG`.
    Name(String),
}

fn signal_schema() -> Schema {
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(64));
    let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(
        "^(SIG)?(HUP|INT|QUIT|KILL|USR1|USR2|TERM|CONT|STOP|TSTP|WINCH)$",
    ));
    let either = OneOfBuilder::new().item(number).item(name);
    either
        .description(Some("Which: its Linux number or its name."))
        .examples(["SIGTERM"])
        .into()
}

impl SignalName {
    pub(crate) fn number(&self) -> Result<i32, ApiError> {
        let name = match self {
            Self::Number(number) => return whole(*number),
            Self::Name(name) => name,
        };
        let short = name.strip_prefix("SIG").unwrap_or(name);
        Ok(match short {
            "HUP" => 1,
            "INT" => 2,
            "QUIT" => 3,
            "KILL" => 9,
            "USR1" => 10,
            "USR2" => 12,
            "TERM" => 15,
            "CONT" => 18,
            "STOP" => 19,
            "TSTP" => 20,
            "WINCH" => 28,
            _ => {
                return Err(ApiError::invalid_field(
                    "signal",
                    "this name is not known; give the number, or a name such as SIGTERM, SIGKILL, \
                     SIGINT or SIGHUP",
                ));
            }
        })
    }
}

fn whole(number: f64) -> Result<i32, ApiError> {
    const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
    let mut signals = SIGNALS;
    signals
        .find(|signal| f64::from(*signal) == number)
        .ok_or_else(|| {
            ApiError::invalid_field("signal", format!("it is {number}; there are 1 to 64"))
        })
}

/// A signal to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalBody {
    /// Which.
    #[schema(schema_with = signal_schema)]
    pub(crate) signal: SignalName,
    /// Whether its children get it too; true where absent.
    pub(crate) group: Option<bool>,
}
