//! What a control plane asks a host: [`Host`](sandbox_core::host::Host), call by call, and
//! [`Guest`](sandbox_core::guest::Guest) with the sandbox's ID before it.

use bytes::Bytes;
use sandbox_core::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::CallError,
    host::{
        HostCreate, HostError, HostImage, HostImport, HostInfo, HostOrder, HostSnapshot,
        ImageDeletion,
    },
    id::{SandboxId, TemplateId},
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
    wire::{ClientHello, Refusal, ServerHello},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of this protocol. Sides that differ by one understand each other.
pub const PROTOCOL_VERSION: u32 = 1;

/// The most of a report in one message, in bytes.
#[cfg(feature = "rpc-server")]
pub(super) const REPORT_PIECE_BYTES: usize = 1024 * 1024;

/// A piece of a host's report. A host may hold more sandboxes than fit a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReportPiece {
    /// Which report, for [`HostRpc::list_sandboxes_more`].
    pub(super) report: Uuid,
    /// The length of the whole.
    pub(super) total_bytes: u64,
    /// The piece: part of a `HostReport` in MessagePack with field names.
    pub(super) data: Bytes,
}

#[tarpc::service]
pub(super) trait HostRpc {
    async fn hello(hello: ClientHello) -> Result<ServerHello, Refusal>;
    async fn heartbeat() -> ();

    async fn host_info() -> Result<HostInfo, HostError>;
    async fn create_sandbox(order: HostCreate) -> Result<(), HostError>;
    async fn destroy_sandbox(id: SandboxId, generation: u64) -> Result<(), HostError>;
    async fn pause_sandbox(order: HostOrder) -> Result<(), HostError>;
    async fn resume_sandbox(order: HostOrder) -> Result<(), HostError>;
    async fn create_snapshot(order: HostSnapshot) -> Result<HostImage, HostError>;
    async fn flatten_rootfs(order: HostSnapshot) -> Result<HostImage, HostError>;
    async fn import_image(order: HostImport) -> Result<HostImage, HostError>;
    async fn delete_snapshot(image: TemplateId) -> Result<ImageDeletion, HostError>;
    /// The start of a report as of now.
    async fn list_sandboxes() -> Result<ReportPiece, HostError>;
    /// A further piece of it. The host keeps only the newest reports: for one that it no longer has
    /// the answer is `Unavailable`, and a new one must be asked for.
    async fn list_sandboxes_more(report: Uuid, offset: u64) -> Result<ReportPiece, HostError>;
    async fn changed(seen: u64, wait_ms: u64) -> Result<u64, HostError>;

    async fn ping(id: SandboxId) -> Result<(), CallError>;
    async fn start_process(
        id: SandboxId,
        spec: ProcessSpec,
        wait_ms: u64,
    ) -> Result<Started, CallError>;
    async fn read_output(
        id: SandboxId,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, CallError>;
    async fn detach_output(id: SandboxId, pid: u32) -> Result<(), CallError>;
    async fn write_stdin(
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, CallError>;
    async fn signal(id: SandboxId, pid: u32, signal: i32, group: bool) -> Result<(), CallError>;
    async fn resize_pty(id: SandboxId, pid: u32, size: PtySize) -> Result<(), CallError>;
    async fn processes(id: SandboxId) -> Result<Vec<ProcessInfo>, CallError>;
    async fn stat(id: SandboxId, path: String) -> Result<FileStat, CallError>;
    /// A page may hold fewer than was asked for although more follow.
    async fn list_dir(
        id: SandboxId,
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<DirPage, CallError>;
    async fn read_file(
        id: SandboxId,
        path: String,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, CallError>;
    async fn open_write(id: SandboxId, spec: WriteSpec) -> Result<WriteHandle, CallError>;
    async fn write_chunk(
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CallError>;
    async fn commit_write(
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, CallError>;
    async fn abort_write(id: SandboxId, handle: WriteHandle) -> Result<(), CallError>;
    async fn make_dir(
        id: SandboxId,
        path: String,
        mode: u32,
        parents: bool,
    ) -> Result<(), CallError>;
    async fn rename(id: SandboxId, from: String, to: String) -> Result<(), CallError>;
    async fn remove(id: SandboxId, path: String, recursive: bool) -> Result<(), CallError>;
}
