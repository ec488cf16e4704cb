//! Processes inside a sandbox: what to run, what came of it, and how its output is read.
//!
//! Output of one process is one log of bytes in the order in which they came, each run of them
//! marked as stdout or stderr. A reader keeps an *offset* into that log and asks for what follows;
//! losing the connection costs it nothing, since the next request names the same offset. The log is
//! bounded: what no longer fits is dropped from its start, and the reader is told how much.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Output that a process may have waiting before the oldest is dropped or the writer waits, in
/// bytes, where the request names no other bound.
pub const DEFAULT_RETAIN_BYTES: u32 = 4 * 1024 * 1024;

/// The largest piece of data in one message to or from a guest, in bytes. RPC frames carry at most
/// 8 MiB; one larger frame would end the connection for every caller.
pub const CHUNK_MAX_BYTES: u32 = 512 * 1024;

/// `PATH` of a process that is given none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program, looked up in `PATH` where it holds no slash, and its arguments.
    Program {
        /// The program's name or path.
        program: String,
        /// Its arguments, without the program itself.
        args: Vec<String>,
    },
}

/// What the process reads from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// Nothing: reading gives end of file.
    #[default]
    Null,
    /// Exactly these bytes, then end of file.
    Bytes(Bytes),
    /// What later calls write, until one closes it.
    Piped,
}

/// What happens when a process has written more than its log retains and nobody has read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The oldest output goes; readers learn how many bytes they missed.
    #[default]
    DropOldest,
    /// The process waits in its write until a reader has asked for an offset beyond the oldest. See
    /// [`ProcessSpec::reader_patience_ms`] for readers that may never come back.
    Wait,
}

/// A terminal's size, in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtySize {
    /// Height in lines.
    pub rows: u16,
    /// Width in columns.
    pub cols: u16,
}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// What to run.
    pub command: Command,
    /// Working directory, absolute; the user's home directory where absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment variables over the sandbox's own. `PATH`, `HOME`, `USER` and `LANG` have
    /// defaults.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User by name or number, from the guest's `/etc/passwd`; root where absent.
    #[serde(default)]
    pub user: Option<String>,
    /// What it reads from.
    #[serde(default)]
    pub stdin: Stdin,
    /// Runs it on a terminal of this size. There stdout and stderr are one stream (stdout).
    #[serde(default)]
    pub pty: Option<PtySize>,
    /// Killed with all of its process group after this long, in milliseconds; never where absent.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Bound of its output log, in bytes.
    #[serde(default = "default_retain_bytes")]
    pub retain_bytes: u32,
    /// What happens at that bound.
    #[serde(default)]
    pub when_full: WhenFull,
    /// How long [`WhenFull::Wait`] waits for a reader that stays away, in milliseconds; for ever
    /// where absent. While no reader has asked for that long, the oldest output goes, as with
    /// [`WhenFull::DropOldest`]; once one asks again, the process waits again.
    ///
    /// An optional field and no variant, so that a guest agent that does not know it reads the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_patience_ms: Option<u32>,
}

const fn default_retain_bytes() -> u32 {
    DEFAULT_RETAIN_BYTES
}

impl ProcessSpec {
    /// A spec with every default.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self {
            command,
            cwd: None,
            env: BTreeMap::new(),
            user: None,
            stdin: Stdin::Null,
            pty: None,
            timeout_ms: None,
            retain_bytes: DEFAULT_RETAIN_BYTES,
            when_full: WhenFull::DropOldest,
            reader_patience_ms: None,
        }
    }

    /// A line for `/bin/sh -c`, with every default.
    #[must_use]
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(Command::Shell(line.into()))
    }
}

/// Which of a process's two outputs bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output, and everything where the process has a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes from one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputChunk {
    /// Where they came from.
    pub stream: OutputStream,
    /// The bytes, as the process wrote them.
    pub data: Bytes,
}

/// A request for output from an offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRequest {
    /// Where to begin: 0, or the `next_offset` of the answer before.
    pub offset: u64,
    /// At most this many bytes; capped at [`CHUNK_MAX_BYTES`].
    pub max_bytes: u32,
    /// How long to wait for something to come, in milliseconds. The answer is empty when nothing
    /// did.
    pub wait_ms: u32,
}

/// A piece of a process's output log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Output {
    /// Bytes that stood between the asked-for offset and the first chunk and are gone.
    pub dropped_bytes: u64,
    /// What there is, in order.
    pub chunks: Vec<OutputChunk>,
    /// The offset to ask for next.
    pub next_offset: u64,
    /// How the process ended. Present once it has ended *and* this answer reaches the end of all it
    /// wrote itself.
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Code or signal.
    pub status: ExitStatus,
    /// Whether its own time limit ended it.
    pub timed_out: bool,
    /// From fork to the end, measured in the guest, in microseconds.
    pub duration_us: u64,
}

/// Exit code or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It called `exit` with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// Exit code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

/// A process that was started through the platform, as lists show it. The last
/// ended ones stay listed so that their output can still be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its process ID in the guest.
    pub pid: u32,
    /// What it runs, for people: the shell line, or program and arguments.
    pub command: String,
    /// Whether it has a terminal.
    pub pty: bool,
    /// Milliseconds since it was started, or that it ran.
    pub age_ms: u64,
    /// The offset of the oldest output still there.
    pub output_start: u64,
    /// The offset behind the newest output.
    pub output_end: u64,
    /// How it ended; absent while it runs.
    pub exit: Option<Exit>,
}

/// A started process with what came of it within the wait that the caller asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its process ID in the guest.
    pub pid: u32,
    /// Its first output.
    pub output: Output,
}

/// Everything that a finished command left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutput {
    /// Code or signal.
    pub status: ExitStatus,
    /// Whether its time limit ended it.
    pub timed_out: bool,
    /// Standard output, byte for byte.
    pub stdout: Bytes,
    /// Standard error, byte for byte.
    pub stderr: Bytes,
    /// Bytes that it wrote beyond the bound on collected output, and that are not here.
    pub dropped_bytes: u64,
    /// From fork to the end, measured in the guest.
    pub duration: Duration,
}

impl ExecOutput {
    /// Whether output is missing at its end.
    #[must_use]
    pub const fn truncated(&self) -> bool {
        self.dropped_bytes > 0
    }
}
