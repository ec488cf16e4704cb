//! The engine as one client sees it.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    api::{Api, Begun},
    audit::Actor,
    engine::{
        Engine,
        validate::{self, WAIT_MAX},
    },
    error::Error,
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    id::{OperationId, SandboxId},
    operation::OperationRecord,
    process::{
        CHUNK_MAX_BYTES, ExecOutput, Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize,
        Started,
    },
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
};

/// The most entries in a page of a directory.
const LIST_DIR_MAX: u32 = 1000;

/// The engine, and who asks it.
#[derive(Clone)]
pub struct EngineApi {
    engine: Engine,
    actor: Actor,
}

impl EngineApi {
    pub(super) const fn new(engine: Engine, actor: Actor) -> Self {
        Self { engine, actor }
    }

    /// The engine behind it.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl fmt::Debug for EngineApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineApi")
            .field("engine", &self.engine)
            .field("actor", &self.actor)
            .finish()
    }
}

#[async_trait]
impl Api for EngineApi {
    async fn create(&self, request: CreateSandbox) -> Result<SandboxRecord, Error> {
        self.engine.create(request, &self.actor).await
    }

    async fn begin_create(&self, request: CreateSandbox) -> Result<Begun, Error> {
        self.engine.begin_create(request, &self.actor).await
    }

    async fn get(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.engine.get(id).await
    }

    async fn list(
        &self,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, Error> {
        self.engine.list(&filter, page).await
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), Error> {
        self.engine.destroy(id, &self.actor).await
    }

    async fn ping(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.engine.ping(id).await
    }

    async fn operation(&self, id: OperationId) -> Result<OperationRecord, Error> {
        self.engine.operation(id).await
    }

    async fn exec(&self, id: SandboxId, spec: ProcessSpec) -> Result<ExecOutput, Error> {
        self.engine.exec(id, spec).await
    }

    async fn start_process(
        &self,
        id: SandboxId,
        spec: ProcessSpec,
        wait: Duration,
    ) -> Result<Started, Error> {
        validate::process(&spec)?;
        let wait = wait.min(WAIT_MAX);
        let inner = &self.engine.inner;
        inner
            .call(
                id,
                |guest| async move { guest.start_process(spec, wait).await },
            )
            .await
    }

    async fn read_output(
        &self,
        id: SandboxId,
        pid: u32,
        mut request: OutputRequest,
    ) -> Result<Output, Error> {
        let wait_ms_max = u32::try_from(WAIT_MAX.as_millis()).unwrap_or(u32::MAX);
        request.wait_ms = request.wait_ms.min(wait_ms_max);
        request.max_bytes = request.max_bytes.clamp(1, CHUNK_MAX_BYTES);
        let inner = &self.engine.inner;
        inner
            .call(
                id,
                |guest| async move { guest.read_output(pid, request).await },
            )
            .await
    }

    async fn detach_output(&self, id: SandboxId, pid: u32) -> Result<(), Error> {
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move { guest.detach_output(pid).await })
            .await
    }

    async fn write_stdin(
        &self,
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, Error> {
        validate::chunk(&data)?;
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move {
                guest.write_stdin(pid, data, close).await
            })
            .await
    }

    async fn signal(&self, id: SandboxId, pid: u32, signal: i32, group: bool) -> Result<(), Error> {
        validate::signal(signal)?;
        let inner = &self.engine.inner;
        inner
            .call(
                id,
                |guest| async move { guest.signal(pid, signal, group).await },
            )
            .await
    }

    async fn resize_pty(&self, id: SandboxId, pid: u32, size: PtySize) -> Result<(), Error> {
        validate::pty_size(size)?;
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move { guest.resize_pty(pid, size).await })
            .await
    }

    async fn processes(&self, id: SandboxId) -> Result<Vec<ProcessInfo>, Error> {
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move { guest.processes().await })
            .await
    }

    async fn stat(&self, id: SandboxId, path: &str) -> Result<FileStat, Error> {
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move { guest.stat(path).await })
            .await
    }

    async fn list_dir(
        &self,
        id: SandboxId,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, Error> {
        let limit = limit.clamp(1, LIST_DIR_MAX);
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move {
                guest.list_dir(path, after, limit).await
            })
            .await
    }

    async fn read_file(
        &self,
        id: SandboxId,
        path: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, Error> {
        let max_bytes = max_bytes.clamp(1, CHUNK_MAX_BYTES);
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move {
                guest.read_file(path, offset, max_bytes).await
            })
            .await
    }

    async fn open_write(&self, id: SandboxId, spec: WriteSpec) -> Result<WriteHandle, Error> {
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move { guest.open_write(spec).await })
            .await
    }

    async fn write_chunk(
        &self,
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Error> {
        validate::chunk(&data)?;
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move {
                guest.write_chunk(handle, offset, data).await
            })
            .await
    }

    async fn commit_write(
        &self,
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, Error> {
        let inner = &self.engine.inner;
        inner
            .call(
                id,
                |guest| async move { guest.commit_write(handle, size).await },
            )
            .await
    }

    async fn abort_write(&self, id: SandboxId, handle: WriteHandle) -> Result<(), Error> {
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move { guest.abort_write(handle).await })
            .await
    }

    async fn make_dir(
        &self,
        id: SandboxId,
        path: &str,
        mode: u32,
        parents: bool,
    ) -> Result<(), Error> {
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move {
                guest.make_dir(path, mode, parents).await
            })
            .await
    }

    async fn rename(&self, id: SandboxId, from: &str, to: &str) -> Result<(), Error> {
        let inner = &self.engine.inner;
        inner
            .call(id, |guest| async move { guest.rename(from, to).await })
            .await
    }

    async fn remove(&self, id: SandboxId, path: &str, recursive: bool) -> Result<(), Error> {
        let inner = &self.engine.inner;
        inner
            .call(
                id,
                |guest| async move { guest.remove(path, recursive).await },
            )
            .await
    }
}
