//! What host and guest agent say to each other. Messages are encoded with field names, so that a
//! side that is one version ahead may add optional fields.

use std::collections::BTreeMap;

use bytes::Bytes;
use sandbox_core::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::GuestError,
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
};
use serde::{Deserialize, Serialize};

/// Raised when a message changes so that an older peer can't read it.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest agents that this host serves: a snapshot brings the one along that it was made with.
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// Name of the virtio-serial port on which the agent serves.
pub const PORT_NAME: &str = "org.sandbox.agent.0";

/// Fewest bytes of entropy in an [`Identity`].
pub const ENTROPY_MIN_BYTES: usize = 32;

/// What the agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHello {
    /// The agent's [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// The version of this crate that the agent was built from.
    pub agent_version: String,
    /// The guest kernel's boot ID. Clones of one memory image share it.
    pub boot_id: String,
    /// Optional abilities, by name.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// What makes one clone of a VM differ from the next. Given before anything runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The guest's host name.
    pub hostname: String,
    /// Content of `/etc/machine-id`.
    pub machine_id: [u8; 16],
    /// Mixed into the kernel's random pool; at least [`ENTROPY_MIN_BYTES`].
    pub entropy: Bytes,
    /// The time, in microseconds since 1970.
    pub unix_time_us: i64,
    /// Environment variables of every process in this sandbox, under those of its own spec.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// What a machine needs that goes on as the one it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waking {
    /// Mixed into the kernel's random pool.
    pub entropy: Bytes,
    /// The time, in microseconds since 1970.
    pub unix_time_us: i64,
}

/// The agent's calls. All but the first three and the last three mirror
/// [`Guest`](sandbox_core::guest::Guest), which describes them.
#[tarpc::service]
pub trait GuestAgent {
    /// Version and abilities.
    async fn hello() -> AgentHello;
    /// Makes this clone an individual: random pool, host name, machine ID, clock. Answers when all
    /// of that is done. No process starts before it; those that the memory of another machine has
    /// brought along go on behind it.
    async fn identify(identity: Identity) -> Result<(), GuestError>;
    /// Goes through what an identity and a first command need, with a placeholder, so that a clone
    /// that waits has it all in its caches. Leaves no process in the list, and the refusal to start
    /// any before [`identify`](GuestAgent::identify) stands.
    async fn warm_up(placeholder: Identity) -> Result<(), GuestError>;
    /// See [`Guest::ping`](sandbox_core::guest::Guest::ping).
    async fn ping() -> ();
    /// See [`Guest::start_process`](sandbox_core::guest::Guest::start_process).
    async fn start_process(spec: ProcessSpec, wait_ms: u64) -> Result<Started, GuestError>;
    /// See [`Guest::read_output`](sandbox_core::guest::Guest::read_output).
    async fn read_output(pid: u32, request: OutputRequest) -> Result<Output, GuestError>;
    /// See [`Guest::detach_output`](sandbox_core::guest::Guest::detach_output).
    async fn detach_output(pid: u32) -> Result<(), GuestError>;
    /// See [`Guest::write_stdin`](sandbox_core::guest::Guest::write_stdin).
    async fn write_stdin(pid: u32, data: Bytes, close: bool) -> Result<u64, GuestError>;
    /// See [`Guest::signal`](sandbox_core::guest::Guest::signal).
    async fn signal(pid: u32, signal: i32, group: bool) -> Result<(), GuestError>;
    /// See [`Guest::resize_pty`](sandbox_core::guest::Guest::resize_pty).
    async fn resize_pty(pid: u32, size: PtySize) -> Result<(), GuestError>;
    /// See [`Guest::processes`](sandbox_core::guest::Guest::processes).
    async fn processes() -> Result<Vec<ProcessInfo>, GuestError>;
    /// See [`Guest::stat`](sandbox_core::guest::Guest::stat).
    async fn stat(path: String) -> Result<FileStat, GuestError>;
    /// See [`Guest::list_dir`](sandbox_core::guest::Guest::list_dir).
    async fn list_dir(
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<DirPage, GuestError>;
    /// See [`Guest::read_file`](sandbox_core::guest::Guest::read_file).
    async fn read_file(path: String, offset: u64, max_bytes: u32) -> Result<FileChunk, GuestError>;
    /// See [`Guest::open_write`](sandbox_core::guest::Guest::open_write).
    async fn open_write(spec: WriteSpec) -> Result<WriteHandle, GuestError>;
    /// See [`Guest::write_chunk`](sandbox_core::guest::Guest::write_chunk).
    async fn write_chunk(handle: WriteHandle, offset: u64, data: Bytes) -> Result<(), GuestError>;
    /// See [`Guest::commit_write`](sandbox_core::guest::Guest::commit_write).
    async fn commit_write(handle: WriteHandle, size: u64) -> Result<FileStat, GuestError>;
    /// See [`Guest::abort_write`](sandbox_core::guest::Guest::abort_write).
    async fn abort_write(handle: WriteHandle) -> Result<(), GuestError>;
    /// See [`Guest::make_dir`](sandbox_core::guest::Guest::make_dir).
    async fn make_dir(path: String, mode: u32, parents: bool) -> Result<(), GuestError>;
    /// See [`Guest::rename`](sandbox_core::guest::Guest::rename).
    async fn rename(from: String, to: String) -> Result<(), GuestError>;
    /// See [`Guest::remove`](sandbox_core::guest::Guest::remove).
    async fn remove(path: String, recursive: bool) -> Result<(), GuestError>;
    /// Brings everything written so far to the disk.
    async fn prepare_snapshot() -> Result<(), GuestError>;
    /// Brings the machine to rest: the user's processes stop, all that was written is on the disk
    /// (with `trim`, what is free is given back to it), and nothing more is written. Files that are
    /// being written over this connection are given up.
    async fn quiesce(trim: bool) -> Result<(), GuestError>;
    /// Has the machine go on, with the right time. No harm is done to one that is not at rest.
    async fn wake(waking: Waking) -> Result<(), GuestError>;
}
