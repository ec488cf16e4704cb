//! What a client can ask for, as one object-safe trait.
//!
//! The engine implements it inside the program that embeds it, an RPC client implements it for a
//! distant control plane; a client can't tell which one it has. Who asks is fixed when the object
//! is made. Each guest call is one message and one answer: streams are loops over calls, so that
//! losing a connection costs no byte.

mod builds;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    id::{OperationId, SandboxId, TemplateId},
    operation::OperationRecord,
    process::{ExecOutput, Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
    reconcile::Preview,
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
    template::{
        ImportTemplate, SnapshotRequest, TemplateKind, TemplatePage, TemplatePageRequest,
        TemplateRecord, TemplateUse,
    },
};

pub use builds::BuildsApi;

/// A sandbox whose making has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its record, `pending` unless the request found it running already.
    pub record: SandboxRecord,
    /// The operation that makes it, where it still does.
    pub operation: Option<OperationId>,
}

/// Everything that a client can ask for.
///
/// # Errors
/// All calls give [`Error::SandboxNotFound`] for an unknown sandbox, [`Error::Unavailable`] when
/// store or host do not answer, and [`Error::InvalidRequest`], naming the field, for input that
/// makes no sense. Guest calls give [`Error::InvalidState`] where the sandbox does not run,
/// [`Error::Guest`] where the guest refuses and [`Error::GuestUnavailable`] where it was not
/// reached; what was asked may then have happened or not.
#[async_trait]
pub trait Api: BuildsApi {
    /// Makes a sandbox and returns once it runs. The work goes on when the caller goes away. When
    /// it fails, nothing is left but the failed operation and the audit log.
    async fn create(&self, request: CreateSandbox) -> Result<SandboxRecord, Error>;

    /// Like [`create`](Self::create), without waiting.
    async fn begin_create(&self, request: CreateSandbox) -> Result<Begun, Error>;

    /// One sandbox.
    async fn get(&self, id: SandboxId) -> Result<SandboxRecord, Error>;

    /// A page of sandboxes, the oldest first.
    async fn list(
        &self,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, Error>;

    /// Removes a sandbox and all it holds, whatever its state. Done twice it succeeds twice. It
    /// goes on when the caller goes away, and also after an error that came from the host.
    async fn destroy(&self, id: SandboxId) -> Result<(), Error>;

    /// Asks the guest for a sign of life and pushes the sandbox's deadline.
    async fn ping(&self, id: SandboxId) -> Result<SandboxRecord, Error>;

    /// Saves a sandbox's memory and disk and ends its process; it is paused when this returns. The
    /// work goes on when the caller goes away. A paused one is done already.
    async fn pause(&self, id: SandboxId) -> Result<SandboxRecord, Error>;

    /// Has a paused sandbox go on where it was, with the same processes, files and open state. A
    /// running one is done already.
    async fn resume(&self, id: SandboxId) -> Result<SandboxRecord, Error>;

    /// Makes a template of a running or paused sandbox. The sandbox is paused afterwards, or runs
    /// where it ran and the request says `resume`. The work goes on when the caller goes away.
    ///
    /// # Errors
    /// [`Error::TemplateExists`]; [`Error::Forbidden`] for a name of the platform's.
    async fn snapshot(&self, request: SnapshotRequest) -> Result<TemplateRecord, Error>;

    /// Like [`snapshot`](Self::snapshot), without waiting.
    async fn begin_snapshot(&self, request: SnapshotRequest) -> Result<OperationId, Error>;

    /// A template that the caller can see, by its name or written ID. Of one name, the platform's
    /// comes before the caller's own.
    ///
    /// # Errors
    /// [`Error::TemplateNotFound`], also for another team's.
    async fn template(&self, name: &str) -> Result<TemplateRecord, Error>;

    /// A page of the templates that the caller can see: its team's and the platform's.
    async fn templates(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, Error>;

    /// All templates of all teams, with who lies on them.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone but an administrator.
    async fn all_templates(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<(Vec<TemplateUse>, Option<TemplateId>), Error>;

    /// What the reconciler would do now. Nothing is done by asking.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone but an administrator; [`Error::Unavailable`] while the host
    /// does not answer and is not yet taken for silent.
    async fn reconciler_plan(&self) -> Result<Preview, Error>;

    /// Hides a template at once; its files go with the last sandbox that lies on them.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for the platform's, where the caller is no administrator, and for
    /// `minimal` in any case, before anything is touched; [`Error::TemplateNotFound`].
    async fn delete_template(&self, name: &str) -> Result<(), Error>;

    /// Makes a template from elsewhere. The work goes on when the caller goes away.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for anyone but an administrator, [`Error::TemplateExists`].
    async fn import_template(&self, request: ImportTemplate) -> Result<TemplateRecord, Error>;

    /// Like [`import_template`](Self::import_template), without waiting.
    async fn begin_import(&self, request: ImportTemplate) -> Result<OperationId, Error>;

    /// One operation and its outcome, also after it ended.
    async fn operation(&self, id: OperationId) -> Result<OperationRecord, Error>;

    /// Runs a command to its end and gives all it wrote, up to a bound.
    async fn exec(&self, id: SandboxId, spec: ProcessSpec) -> Result<ExecOutput, Error>;

    /// Starts a process; see [`Guest::start_process`](crate::guest::Guest::start_process).
    async fn start_process(
        &self,
        id: SandboxId,
        spec: ProcessSpec,
        wait: Duration,
    ) -> Result<Started, Error>;

    /// Reads a process's output; see [`Guest::read_output`](crate::guest::Guest::read_output).
    async fn read_output(
        &self,
        id: SandboxId,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, Error>;

    /// From now on the process never waits for readers.
    async fn detach_output(&self, id: SandboxId, pid: u32) -> Result<(), Error>;

    /// Writes to a process's stdin and returns how many bytes were taken.
    async fn write_stdin(
        &self,
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, Error>;

    /// Sends a signal to a process, with `group` to its whole process group.
    async fn signal(&self, id: SandboxId, pid: u32, signal: i32, group: bool) -> Result<(), Error>;

    /// Sets the size of a process's terminal.
    async fn resize_pty(&self, id: SandboxId, pid: u32, size: PtySize) -> Result<(), Error>;

    /// Processes that were started through the platform, the oldest first.
    async fn processes(&self, id: SandboxId) -> Result<Vec<ProcessInfo>, Error>;

    /// What a path names.
    async fn stat(&self, id: SandboxId, path: &str) -> Result<FileStat, Error>;

    /// Entries of a directory with names behind `after`, at most `limit` of them.
    async fn list_dir(
        &self,
        id: SandboxId,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, Error>;

    /// A piece of a file at `offset`, at most `max_bytes` long unless it is a hole.
    async fn read_file(
        &self,
        id: SandboxId,
        path: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, Error>;

    /// Begins to write a file beside its final place.
    async fn open_write(&self, id: SandboxId, spec: WriteSpec) -> Result<WriteHandle, Error>;

    /// Writes a piece of at most [`CHUNK_MAX_BYTES`](crate::process::CHUNK_MAX_BYTES).
    async fn write_chunk(
        &self,
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Error>;

    /// Gives the file its length in bytes and puts it in its place at once.
    async fn commit_write(
        &self,
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, Error>;

    /// Gives a write up and removes what it left.
    async fn abort_write(&self, id: SandboxId, handle: WriteHandle) -> Result<(), Error>;

    /// Creates a directory; with `parents` those above it too, and an existing one is no error.
    async fn make_dir(
        &self,
        id: SandboxId,
        path: &str,
        mode: u32,
        parents: bool,
    ) -> Result<(), Error>;

    /// Renames a file or directory, replacing a file that is at the target.
    async fn rename(&self, id: SandboxId, from: &str, to: &str) -> Result<(), Error>;

    /// Removes a file or an empty directory, with `recursive` a directory and all in it.
    async fn remove(&self, id: SandboxId, path: &str, recursive: bool) -> Result<(), Error>;
}
