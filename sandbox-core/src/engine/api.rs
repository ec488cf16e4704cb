//! The engine as one client sees it: the only way in, and so the place where rights are asked for.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    api::{Api, Begun},
    authorize::Action,
    caller::Caller,
    engine::{
        Engine, errors, rights,
        validate::{self, WAIT_MAX},
    },
    error::Error,
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::{CallError, Guest},
    id::{OperationId, SandboxId, TemplateId},
    operation::OperationRecord,
    process::{
        CHUNK_MAX_BYTES, ExecOutput, Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize,
        Started,
    },
    reconcile::Preview,
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
    template::{
        ImportTemplate, SnapshotRequest, TemplateKind, TemplatePage, TemplatePageRequest,
        TemplateRecord, TemplateUse,
    },
};

/// The most entries in a page of a directory.
const LIST_DIR_MAX: u32 = 1000;

/// The engine, and who asks it.
#[derive(Clone)]
pub struct EngineApi {
    engine: Engine,
    caller: Caller,
}

impl EngineApi {
    pub(super) const fn new(engine: Engine, caller: Caller) -> Self {
        Self { engine, caller }
    }

    /// The engine behind it.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Who asks.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The same engine, asked by someone else.
    #[must_use]
    pub fn asked_by(&self, caller: Caller) -> Self {
        Self::new(self.engine.clone(), caller)
    }

    async fn call<T, F>(
        &self,
        id: SandboxId,
        call: impl FnOnce(Arc<dyn Guest>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        self.engine.inner.call(&self.caller, id, call).await
    }
}

impl fmt::Debug for EngineApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineApi")
            .field("engine", &self.engine)
            .field("caller", &self.caller)
            .finish()
    }
}

#[async_trait]
impl Api for EngineApi {
    async fn create(&self, request: CreateSandbox) -> Result<SandboxRecord, Error> {
        self.engine.create(&self.caller, request).await
    }

    async fn begin_create(&self, request: CreateSandbox) -> Result<Begun, Error> {
        self.engine.begin_create(&self.caller, request).await
    }

    async fn get(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        let inner = &self.engine.inner;
        inner.record_for(&self.caller, Action::Use, id).await
    }

    async fn list(
        &self,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, Error> {
        validate::limit(page.limit)?;
        let filter = rights::visible(&self.caller, filter);
        let listed = self.engine.inner.store.list_sandboxes(&filter, page).await;
        listed.map_err(errors::from_store)
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), Error> {
        self.engine.inner.may_destroy(&self.caller, id).await?;
        self.engine.destroy(id, &self.caller.actor).await
    }

    async fn ping(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.engine.inner.ping(&self.caller, id).await
    }

    async fn pause(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        let (engine, caller) = (&self.engine, &self.caller);
        engine.inner.record_for(caller, Action::Change, id).await?;
        engine.pause(id, &caller.actor).await
    }

    async fn resume(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        let (engine, caller) = (&self.engine, &self.caller);
        engine.inner.record_for(caller, Action::Change, id).await?;
        engine.resume(id, &caller.actor).await
    }

    async fn snapshot(&self, request: SnapshotRequest) -> Result<TemplateRecord, Error> {
        let (engine, caller) = (&self.engine, &self.caller);
        let new = engine.inner.new_snapshot(caller, request).await?;
        engine.snapshot(new, &caller.actor).await
    }

    async fn begin_snapshot(&self, request: SnapshotRequest) -> Result<OperationId, Error> {
        let (engine, caller) = (&self.engine, &self.caller);
        let new = engine.inner.new_snapshot(caller, request).await?;
        engine.begin_snapshot(new, &caller.actor).await
    }

    async fn template(&self, name: &str) -> Result<TemplateRecord, Error> {
        let inner = &self.engine.inner;
        inner.find_template(&self.caller, "name", name).await
    }

    async fn templates(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, Error> {
        self.engine.templates(&self.caller, kind, page).await
    }

    async fn all_templates(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<(Vec<TemplateUse>, Option<TemplateId>), Error> {
        self.engine.all_templates(&self.caller, kind, page).await
    }

    async fn reconciler_plan(&self) -> Result<Preview, Error> {
        self.engine.reconciler_plan(&self.caller).await
    }

    async fn delete_template(&self, name: &str) -> Result<(), Error> {
        self.engine.delete_template(&self.caller, name).await
    }

    async fn import_template(&self, request: ImportTemplate) -> Result<TemplateRecord, Error> {
        self.engine.import_template(&self.caller, request).await
    }

    async fn begin_import(&self, request: ImportTemplate) -> Result<OperationId, Error> {
        self.engine.begin_import(&self.caller, request).await
    }

    async fn operation(&self, id: OperationId) -> Result<OperationRecord, Error> {
        self.engine.inner.operation_for(&self.caller, id).await
    }

    async fn exec(&self, id: SandboxId, spec: ProcessSpec) -> Result<ExecOutput, Error> {
        self.engine.exec(&self.caller, id, spec).await
    }

    async fn start_process(
        &self,
        id: SandboxId,
        spec: ProcessSpec,
        wait: Duration,
    ) -> Result<Started, Error> {
        validate::process(&spec)?;
        let wait = wait.min(WAIT_MAX);
        self.call(
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
        self.call(
            id,
            |guest| async move { guest.read_output(pid, request).await },
        )
        .await
    }

    async fn detach_output(&self, id: SandboxId, pid: u32) -> Result<(), Error> {
        self.call(id, |guest| async move { guest.detach_output(pid).await })
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
        self.call(id, |guest| async move {
            guest.write_stdin(pid, data, close).await
        })
        .await
    }

    async fn signal(&self, id: SandboxId, pid: u32, signal: i32, group: bool) -> Result<(), Error> {
        validate::signal(signal)?;
        self.call(
            id,
            |guest| async move { guest.signal(pid, signal, group).await },
        )
        .await
    }

    async fn resize_pty(&self, id: SandboxId, pid: u32, size: PtySize) -> Result<(), Error> {
        validate::pty_size(size)?;
        self.call(id, |guest| async move { guest.resize_pty(pid, size).await })
            .await
    }

    async fn processes(&self, id: SandboxId) -> Result<Vec<ProcessInfo>, Error> {
        self.call(id, |guest| async move { guest.processes().await })
            .await
    }

    async fn stat(&self, id: SandboxId, path: &str) -> Result<FileStat, Error> {
        self.call(id, |guest| async move { guest.stat(path).await })
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
        self.call(id, |guest| async move {
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
        self.call(id, |guest| async move {
            guest.read_file(path, offset, max_bytes).await
        })
        .await
    }

    async fn open_write(&self, id: SandboxId, spec: WriteSpec) -> Result<WriteHandle, Error> {
        self.call(id, |guest| async move { guest.open_write(spec).await })
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
        self.call(id, |guest| async move {
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
        self.call(
            id,
            |guest| async move { guest.commit_write(handle, size).await },
        )
        .await
    }

    async fn abort_write(&self, id: SandboxId, handle: WriteHandle) -> Result<(), Error> {
        self.call(id, |guest| async move { guest.abort_write(handle).await })
            .await
    }

    async fn make_dir(
        &self,
        id: SandboxId,
        path: &str,
        mode: u32,
        parents: bool,
    ) -> Result<(), Error> {
        self.call(id, |guest| async move {
            guest.make_dir(path, mode, parents).await
        })
        .await
    }

    async fn rename(&self, id: SandboxId, from: &str, to: &str) -> Result<(), Error> {
        self.call(id, |guest| async move { guest.rename(from, to).await })
            .await
    }

    async fn remove(&self, id: SandboxId, path: &str, recursive: bool) -> Result<(), Error> {
        self.call(
            id,
            |guest| async move { guest.remove(path, recursive).await },
        )
        .await
    }
}
