//! What a client asks a control plane: [`Api`](sandbox_core::api::Api), call by call.
//!
//! Calls that may be asked twice without harm are sent again after a lost connection. The others
//! carry a request ID, and the control plane does each ID once: whoever asks again gets the first
//! one's outcome.

use bytes::Bytes;
use sandbox_core::{
    api::Begun,
    build::{
        BuildDetails, BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildRecord, LogCursor,
        SubmitBuild,
    },
    error::Error,
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    id::{BuildId, OperationId, SandboxId, TemplateId},
    operation::OperationRecord,
    process::{ExitStatus, Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
    reconcile::Preview,
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
    template::{
        ImportTemplate, SnapshotRequest, TemplateKind, TemplatePage, TemplatePageRequest,
        TemplateRecord, TemplateUse,
    },
    wire::{ClientHello, Refusal, ServerHello},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of this protocol. Sides that differ by one understand each other.
pub const PROTOCOL_VERSION: u32 = 1;

/// Pausing, snapshots and templates: the calls below that speak of them.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// The reconciler's plan.
pub(crate) const PLAN: &str = "reconciler-plan";

/// Template builds.
pub(crate) const BUILDS: &str = "template-builds";

/// A build with its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldBuild {
    pub(crate) build: BuildDetails,
    /// Whether what the steps printed is left out: it would not fit in a message. The log has it.
    pub(crate) without_output: bool,
}

/// How a command stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExecProgress {
    /// It runs. Ask again.
    Running,
    /// It has ended.
    Ended {
        status: ExitStatus,
        timed_out: bool,
        duration_us: u64,
        dropped_bytes: u64,
        stdout_bytes: u64,
        stderr_bytes: u64,
        /// A piece of stdout and stderr, one behind the other, from the offset asked for.
        piece: Bytes,
    },
}

#[tarpc::service]
pub(crate) trait ControlPlane {
    async fn hello(hello: ClientHello) -> Result<ServerHello, Refusal>;
    async fn heartbeat() -> ();

    /// The key comes apart: the request leaves it out on every wire.
    async fn create(
        request: CreateSandbox,
        idempotency_key: String,
    ) -> Result<SandboxRecord, Error>;
    async fn begin_create(request: CreateSandbox, idempotency_key: String) -> Result<Begun, Error>;
    async fn get(id: SandboxId) -> Result<SandboxRecord, Error>;
    /// A page may hold fewer than was asked for although more follow.
    async fn list(filter: SandboxFilter, page: PageRequest) -> Result<Page<SandboxRecord>, Error>;
    async fn destroy(id: SandboxId) -> Result<(), Error>;
    async fn ping(id: SandboxId) -> Result<SandboxRecord, Error>;
    async fn operation(id: OperationId) -> Result<OperationRecord, Error>;

    /// Waits a while for the end; nothing where it is still at work. Ask again under the same ID.
    async fn pause(request: Uuid, id: SandboxId) -> Result<Option<SandboxRecord>, Error>;
    /// Likewise.
    async fn resume(request: Uuid, id: SandboxId) -> Result<Option<SandboxRecord>, Error>;
    /// The work goes on under the operation's ID, which outlives this process.
    async fn begin_snapshot(request: Uuid, snapshot: SnapshotRequest)
    -> Result<OperationId, Error>;
    /// Likewise.
    async fn begin_import(request: Uuid, import: ImportTemplate) -> Result<OperationId, Error>;
    /// Waits a while for its end.
    async fn wait_operation(id: OperationId) -> Result<OperationRecord, Error>;
    async fn template(name: String) -> Result<TemplateRecord, Error>;
    async fn templates(
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, Error>;
    /// A page may hold fewer than was asked for although more follow.
    async fn all_templates(
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<(Vec<TemplateUse>, Option<TemplateId>), Error>;
    async fn reconciler_plan() -> Result<Preview, Error>;
    async fn delete_template(request: Uuid, name: String) -> Result<(), Error>;

    /// The key comes apart, so that none is forgotten: however often this is sent, there is one build.
    async fn submit_build(
        build: SubmitBuild,
        idempotency_key: String,
    ) -> Result<BuildRecord, Error>;
    async fn build(id: BuildId) -> Result<ToldBuild, Error>;
    /// A page may hold fewer than was asked for although more follow.
    async fn builds(filter: BuildFilter, page: BuildPageRequest) -> Result<BuildPage, Error>;
    async fn cancel_build(id: BuildId) -> Result<BuildRecord, Error>;
    /// Waits a while for something to come. An answer may have less than there is.
    async fn build_log(id: BuildId, after: LogCursor, wait_ms: u64) -> Result<BuildLog, Error>;
    /// A piece of a build context, under an ID of the client's choice. Gives how much of it is there
    /// now, which is where to go on: a lost connection takes what came over it away.
    async fn context_piece(upload: Uuid, offset: u64, piece: Bytes) -> Result<u64, Error>;
    /// Keeps a context of this size; gives nothing where not all of it is there.
    async fn keep_context(upload: Uuid, size: u64) -> Result<Option<String>, Error>;

    /// Starts a command, or joins the one of this ID, and waits a while for its end.
    async fn exec(request: Uuid, id: SandboxId, spec: ProcessSpec) -> Result<ExecProgress, Error>;
    /// Waits on, or fetches the next piece of what it wrote.
    async fn exec_result(request: Uuid, offset: u64) -> Result<ExecProgress, Error>;
    /// All was fetched.
    async fn exec_forget(request: Uuid) -> ();

    async fn start_process(
        request: Uuid,
        id: SandboxId,
        spec: ProcessSpec,
        wait_ms: u64,
    ) -> Result<Started, Error>;
    async fn read_output(id: SandboxId, pid: u32, request: OutputRequest) -> Result<Output, Error>;
    async fn detach_output(id: SandboxId, pid: u32) -> Result<(), Error>;
    async fn write_stdin(
        request: Uuid,
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, Error>;
    async fn signal(
        request: Uuid,
        id: SandboxId,
        pid: u32,
        signal: i32,
        group: bool,
    ) -> Result<(), Error>;
    async fn resize_pty(id: SandboxId, pid: u32, size: PtySize) -> Result<(), Error>;
    async fn processes(id: SandboxId) -> Result<Vec<ProcessInfo>, Error>;

    async fn stat(id: SandboxId, path: String) -> Result<FileStat, Error>;
    /// A page may hold fewer than was asked for although more follow.
    async fn list_dir(
        id: SandboxId,
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<DirPage, Error>;
    async fn read_file(
        id: SandboxId,
        path: String,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, Error>;
    async fn open_write(
        request: Uuid,
        id: SandboxId,
        spec: WriteSpec,
    ) -> Result<WriteHandle, Error>;
    async fn write_chunk(
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Error>;
    async fn commit_write(
        request: Uuid,
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, Error>;
    async fn abort_write(request: Uuid, id: SandboxId, handle: WriteHandle) -> Result<(), Error>;
    async fn make_dir(
        request: Uuid,
        id: SandboxId,
        path: String,
        mode: u32,
        parents: bool,
    ) -> Result<(), Error>;
    async fn rename(request: Uuid, id: SandboxId, from: String, to: String) -> Result<(), Error>;
    async fn remove(
        request: Uuid,
        id: SandboxId,
        path: String,
        recursive: bool,
    ) -> Result<(), Error>;
}
