//! What can be asked of the machine inside a sandbox.
//!
//! One implementation speaks to the guest agent of a real VM, one is simulated. Each call is one
//! message and one answer; long things are loops over calls, so that none outlives a connection.
//! Nothing is retried here: a call that was cut off may or may not have happened.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
};

/// Why the guest could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestError {
    /// No such file or directory.
    #[error("no such file or directory: {path}")]
    NotFound {
        /// The path that was asked for.
        path: String,
    },
    /// Something is there already.
    #[error("already exists: {path}")]
    AlreadyExists {
        /// The path that was asked for.
        path: String,
    },
    /// A directory was needed, or must not be one, or must be empty.
    #[error("{path}: {problem}")]
    WrongKind {
        /// The path that was asked for.
        path: String,
        /// Such as "is a directory" or "directory not empty".
        problem: String,
    },
    /// The path is not absolute, empty, too long or holds a NUL byte.
    #[error("bad path {path:?}: {problem}")]
    BadPath {
        /// The start of the path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file was replaced while it was read piece by piece: what was read is part of the old one.
    #[error("{path} was replaced while it was read; read it again")]
    Changed {
        /// The path that was read.
        path: String,
    },
    /// The guest's disk is full.
    #[error("the sandbox's disk is full: {path}")]
    DiskFull {
        /// The path that was written.
        path: String,
    },
    /// Any other refusal by the guest's file system.
    #[error("{path}: {problem}")]
    Io {
        /// The path that was asked for.
        path: String,
        /// The system's own words.
        problem: String,
    },
    /// No such write is open: it was committed, aborted, or its connection was lost.
    #[error("no write is open under this handle; start the write again")]
    NoSuchWrite,
    /// The command could not be started.
    #[error("cannot run `{command}`: {problem}")]
    Spawn {
        /// The program.
        command: String,
        /// The system's own words, such as "No such file or directory (os error 2)".
        problem: String,
    },
    /// The guest's `/etc/passwd` has no such user.
    #[error("no user `{user}` in the sandbox")]
    NoSuchUser {
        /// The name or number that was asked for.
        user: String,
    },
    /// No process with this ID was started through the platform, or it ended long ago.
    #[error("no process {pid} in the sandbox")]
    NoSuchProcess {
        /// The process ID.
        pid: u32,
    },
    /// The process has no open stdin, or no terminal.
    #[error("process {pid} {problem}")]
    NotAttached {
        /// The process ID.
        pid: u32,
        /// Such as "has no open stdin".
        problem: String,
    },
    /// A bound of the agent was reached.
    #[error("the sandbox has reached its limit of {limit} {what}")]
    Limit {
        /// What there are too many of.
        what: String,
        /// How many there may be.
        limit: u64,
    },
    /// The request makes no sense as given.
    #[error("{0}")]
    Invalid(String),
}

/// Why a call to a guest gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallError {
    /// The guest answered with an error.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The sandbox is not running on its host, for this reason.
    #[error("the sandbox is not running: {0}")]
    NotRunning(String),
    /// The connection was lost before the answer came. What was asked may have happened.
    #[error("the connection to the sandbox was lost before it answered")]
    ConnectionLost,
    /// The guest did not answer in time. What was asked may still happen.
    #[error("the sandbox did not answer within {0:?}")]
    NoAnswer(Duration),
}

/// The machine inside one sandbox.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Answers when the guest does.
    async fn ping(&self) -> Result<(), CallError>;

    /// Starts a process, then waits up to `wait` for it to end, gathering its first output (at most
    /// [`CHUNK_MAX_BYTES`](crate::process::CHUNK_MAX_BYTES)).
    async fn start_process(&self, spec: ProcessSpec, wait: Duration) -> Result<Started, CallError>;

    /// Reads output. With [`WhenFull::Wait`](crate::process::WhenFull::Wait) the offset also says
    /// that everything before it has been taken.
    async fn read_output(&self, pid: u32, request: OutputRequest) -> Result<Output, CallError>;

    /// From now on the process never waits for readers: its oldest output is dropped instead.
    async fn detach_output(&self, pid: u32) -> Result<(), CallError>;

    /// Writes to a piped stdin or a terminal and returns how many bytes were taken: fewer than
    /// given when the process does not read. Closes when all of `data` was taken; empty `data` with
    /// `close` just closes.
    async fn write_stdin(&self, pid: u32, data: Bytes, close: bool) -> Result<u64, CallError>;

    /// Sends a signal to the process, with `group` to its whole process group, which may live on
    /// when the process has ended.
    async fn signal(&self, pid: u32, signal: i32, group: bool) -> Result<(), CallError>;

    /// Sets the size of a process's terminal.
    async fn resize_pty(&self, pid: u32, size: PtySize) -> Result<(), CallError>;

    /// Processes that were started through the platform, the oldest first.
    async fn processes(&self) -> Result<Vec<ProcessInfo>, CallError>;

    /// What a path names.
    async fn stat(&self, path: &str) -> Result<FileStat, CallError>;

    /// Entries of a directory with names behind `after`, at most `limit` of them.
    async fn list_dir(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, CallError>;

    /// A piece of a file at `offset`, at most `max_bytes` long unless it is a hole. Pieces of one
    /// file have one [`version`](FileChunk::version).
    async fn read_file(
        &self,
        path: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, CallError>;

    /// Begins to write a file beside its final place.
    async fn open_write(&self, spec: WriteSpec) -> Result<WriteHandle, CallError>;

    /// Writes a piece. What no piece covers is a hole; blocks of zeros become holes too.
    async fn write_chunk(
        &self,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CallError>;

    /// Gives the file its length in bytes, brings it to disk and puts it in its place at once.
    async fn commit_write(&self, handle: WriteHandle, size: u64) -> Result<FileStat, CallError>;

    /// Gives a write up and removes what it left.
    async fn abort_write(&self, handle: WriteHandle) -> Result<(), CallError>;

    /// Creates a directory; with `parents` those above it too, and an existing one is no error.
    async fn make_dir(&self, path: &str, mode: u32, parents: bool) -> Result<(), CallError>;

    /// Renames a file or directory, replacing a file that is at the target.
    async fn rename(&self, from: &str, to: &str) -> Result<(), CallError>;

    /// Removes a file or an empty directory, with `recursive` a directory and all in it.
    async fn remove(&self, path: &str, recursive: bool) -> Result<(), CallError>;
}
