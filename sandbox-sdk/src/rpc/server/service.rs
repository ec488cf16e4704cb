//! The calls of one connection, each handed to the platform.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use sandbox_core::{
    api::{Api, Begun},
    build::{
        BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildRecord, LogCursor, SubmitBuild,
    },
    error::Error,
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    id::{BuildId, OperationId, SandboxId, TemplateId},
    operation::OperationRecord,
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
    reconcile::Preview,
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
    template::{
        ImportTemplate, SnapshotRequest, TemplateKind, TemplatePage, TemplatePageRequest,
        TemplateRecord, TemplateUse,
    },
    wire::{ClientHello, Refusal, ServerHello, entry_bytes, how_many_fit},
};
use sandbox_host::rpc::{Answer, Session};
use tarpc::{ServerError, context::Context, server::Serve};
use uuid::Uuid;

use super::{
    Core,
    door::Door,
    pieces::{self, progress, record_bytes, use_bytes, written},
    requests::{self, Outcome},
    told::Tell,
    uploads::Uploads,
    waiting,
};
use crate::rpc::protocol::{
    BUILDS, ControlPlane, ControlPlaneRequest, ControlPlaneResponse, ExecProgress, PLAN,
    PROTOCOL_VERSION, SNAPSHOTS, ToldBuild,
};

/// Serves the calls of one connection.
#[derive(Clone)]
pub(super) struct Service {
    core: Arc<Core>,
    session: Arc<Session<Arc<Door>>>,
    uploads: Arc<Uploads>,
}

impl Service {
    pub(super) fn new(core: Arc<Core>, session: Arc<Session<Arc<Door>>>) -> Self {
        let uploads = Arc::new(Uploads::new(core.uploads.clone()));
        Self {
            core,
            session,
            uploads,
        }
    }

    /// What is behind the key, for those who showed one.
    fn door(&self) -> Result<Arc<Door>, Error> {
        self.session.door().ok_or_else(|| {
            let words = "a connection begins with `hello` and the right key";
            Error::Unauthorized(words.to_owned())
        })
    }

    /// Asks for what may be asked for again.
    async fn ask<T: Tell, F>(&self, ask: impl FnOnce(Arc<dyn Api>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let door = self.door()?;
        ask(Arc::clone(&door.api)).await.told()
    }

    /// Does a request once, on a task of its own.
    fn begin<T, F>(
        &self,
        request: Uuid,
        bytes: fn(&T) -> usize,
        work: impl FnOnce(Arc<dyn Api>) -> F,
    ) -> Result<Outcome<T>, Error>
    where
        T: Tell + Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let door = self.door()?;
        let work = |api| {
            let work = work(api);
            async move { work.await.told() }
        };
        let api = Arc::clone(&door.api);
        door.requests.once(request, bytes, || work(api))
    }

    async fn once<T, F>(
        &self,
        request: Uuid,
        bytes: fn(&T) -> usize,
        work: impl FnOnce(Arc<dyn Api>) -> F,
    ) -> Result<T, Error>
    where
        T: Tell + Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut outcome = self.begin(request, bytes, work)?;
        requests::wait(&mut outcome).await
    }
}

fn small<T>(_: &T) -> usize {
    0
}

impl Answer for Service {
    type Req = ControlPlaneRequest;
    type Resp = ControlPlaneResponse;

    fn answer(
        self,
        context: Context,
        request: ControlPlaneRequest,
    ) -> impl Future<Output = Result<ControlPlaneResponse, ServerError>> + Send {
        ControlPlane::serve(self).serve(context, request)
    }
}

impl ControlPlane for Service {
    async fn hello(self, _: Context, hello: ClientHello) -> Result<ServerHello, Refusal> {
        let mut ours = ServerHello::new(PROTOCOL_VERSION, self.core.instance);
        ours.capabilities = [SNAPSHOTS, PLAN, BUILDS].map(str::to_owned).to_vec();
        let open = |shown: &str, private| self.core.door_for(shown, private);
        self.session.greet(ours, &hello, open)
    }

    async fn heartbeat(self, _: Context) {}

    async fn create(
        self,
        _: Context,
        mut request: CreateSandbox,
        idempotency_key: String,
    ) -> Result<SandboxRecord, Error> {
        request.idempotency_key = Some(idempotency_key);
        self.ask(|api| async move { api.create(request).await })
            .await
    }

    async fn begin_create(
        self,
        _: Context,
        mut request: CreateSandbox,
        idempotency_key: String,
    ) -> Result<Begun, Error> {
        request.idempotency_key = Some(idempotency_key);
        self.ask(|api| async move { api.begin_create(request).await })
            .await
    }

    async fn get(self, _: Context, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.ask(|api| async move { api.get(id).await }).await
    }

    async fn list(
        self,
        _: Context,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, Error> {
        let mut page = self
            .ask(|api| async move { api.list(filter, page).await })
            .await?;
        let fitting = how_many_fit(&page.items, record_bytes);
        if fitting < page.items.len() {
            page.items.truncate(fitting);
            page.next = page.items.last().map(|record| record.id);
        }
        Ok(page)
    }

    async fn destroy(self, _: Context, id: SandboxId) -> Result<(), Error> {
        self.ask(|api| async move { api.destroy(id).await }).await
    }

    async fn ping(self, _: Context, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.ask(|api| async move { api.ping(id).await }).await
    }

    async fn operation(self, _: Context, id: OperationId) -> Result<OperationRecord, Error> {
        self.ask(|api| async move { api.operation(id).await }).await
    }

    async fn pause(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
    ) -> Result<Option<SandboxRecord>, Error> {
        let paused = self.begin(request, small, |api| async move { api.pause(id).await })?;
        waiting::for_an_outcome(paused).await
    }

    async fn resume(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
    ) -> Result<Option<SandboxRecord>, Error> {
        let resumed = self.begin(request, small, |api| async move { api.resume(id).await })?;
        waiting::for_an_outcome(resumed).await
    }

    async fn begin_snapshot(
        self,
        _: Context,
        request: Uuid,
        snapshot: SnapshotRequest,
    ) -> Result<OperationId, Error> {
        self.once(request, small, |api| async move {
            api.begin_snapshot(snapshot).await
        })
        .await
    }

    async fn begin_import(
        self,
        _: Context,
        request: Uuid,
        import: ImportTemplate,
    ) -> Result<OperationId, Error> {
        self.once(request, small, |api| async move {
            api.begin_import(import).await
        })
        .await
    }

    async fn wait_operation(self, _: Context, id: OperationId) -> Result<OperationRecord, Error> {
        self.ask(|api| async move { waiting::for_an_operation(&*api, id).await })
            .await
    }

    async fn template(self, _: Context, name: String) -> Result<TemplateRecord, Error> {
        self.ask(|api| async move { api.template(&name).await })
            .await
    }

    async fn templates(
        self,
        _: Context,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, Error> {
        self.ask(|api| async move { api.templates(kind, page).await })
            .await
    }

    async fn all_templates(
        self,
        _: Context,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<(Vec<TemplateUse>, Option<TemplateId>), Error> {
        let (mut items, mut next) = self
            .ask(|api| async move { api.all_templates(kind, page).await })
            .await?;
        let fitting = how_many_fit(&items, use_bytes);
        if fitting < items.len() {
            items.truncate(fitting);
            next = items.last().map(|item| item.template.id);
        }
        Ok((items, next))
    }

    async fn reconciler_plan(self, _: Context) -> Result<Preview, Error> {
        self.ask(|api| async move { api.reconciler_plan().await })
            .await
    }

    async fn delete_template(self, _: Context, request: Uuid, name: String) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.delete_template(&name).await
        })
        .await
    }

    async fn submit_build(
        self,
        _: Context,
        mut build: SubmitBuild,
        idempotency_key: String,
    ) -> Result<BuildRecord, Error> {
        build.idempotency_key = Some(idempotency_key);
        self.ask(|api| async move { api.submit_build(build).await })
            .await
    }

    async fn build(self, _: Context, id: BuildId) -> Result<ToldBuild, Error> {
        self.ask(|api| async move { api.build(id).await.map(pieces::build) })
            .await
    }

    async fn builds(
        self,
        _: Context,
        filter: BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, Error> {
        let mut page = self
            .ask(|api| async move { api.builds(filter, page).await })
            .await?;
        let fitting = how_many_fit(&page.items, pieces::build_bytes);
        if fitting < page.items.len() {
            page.items.truncate(fitting);
            page.next = page.items.last().map(|record| record.id);
        }
        Ok(page)
    }

    async fn cancel_build(self, _: Context, id: BuildId) -> Result<BuildRecord, Error> {
        self.ask(|api| async move { api.cancel_build(id).await })
            .await
    }

    async fn build_log(
        self,
        _: Context,
        id: BuildId,
        after: LogCursor,
        wait_ms: u64,
    ) -> Result<BuildLog, Error> {
        let wait = Duration::from_millis(wait_ms);
        let mut log = self
            .ask(|api| async move { api.build_log(id, after, wait).await })
            .await?;
        // What is cut off comes with the next answer: there is one, since this one has something.
        let fitting = how_many_fit(&log.entries, pieces::entry_bytes);
        log.entries.truncate(fitting);
        Ok(log)
    }

    async fn context_piece(
        self,
        _: Context,
        upload: Uuid,
        offset: u64,
        piece: Bytes,
    ) -> Result<u64, Error> {
        if offset == 0 {
            // Nothing is held for those who may not build.
            let one = BuildPageRequest {
                limit: 1,
                ..BuildPageRequest::default()
            };
            self.ask(|api| async move { api.builds(BuildFilter::default(), one).await })
                .await?;
        }
        self.door()?;
        self.uploads.piece(upload, offset, &piece)
    }

    async fn keep_context(
        self,
        _: Context,
        upload: Uuid,
        size: u64,
    ) -> Result<Option<String>, Error> {
        let door = self.door()?;
        let Some(whole) = self.uploads.finish(upload, size) else {
            return Ok(None);
        };
        let kept = door.api.upload_context(whole.data.clone()).await;
        kept.map(Some).told()
    }

    async fn exec(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        spec: ProcessSpec,
    ) -> Result<ExecProgress, Error> {
        let outcome = self.begin(request, written, |api| async move {
            api.exec(id, spec).await.map(Arc::new)
        })?;
        progress(outcome, 0).await
    }

    async fn exec_result(
        self,
        _: Context,
        request: Uuid,
        offset: u64,
    ) -> Result<ExecProgress, Error> {
        progress(self.door()?.requests.find(request)?, offset).await
    }

    async fn exec_forget(self, _: Context, request: Uuid) {
        if let Ok(door) = self.door() {
            door.requests.forget(request);
        }
    }

    async fn start_process(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        spec: ProcessSpec,
        wait_ms: u64,
    ) -> Result<Started, Error> {
        let wait = Duration::from_millis(wait_ms);
        let bytes = |started: &Started| {
            let chunks = started.output.chunks.iter();
            chunks.map(|chunk| chunk.data.len()).sum()
        };
        self.once(request, bytes, |api| async move {
            api.start_process(id, spec, wait).await
        })
        .await
    }

    async fn read_output(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, Error> {
        self.ask(|api| async move { api.read_output(id, pid, request).await })
            .await
    }

    async fn detach_output(self, _: Context, id: SandboxId, pid: u32) -> Result<(), Error> {
        self.ask(|api| async move { api.detach_output(id, pid).await })
            .await
    }

    async fn write_stdin(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, Error> {
        self.once(request, small, |api| async move {
            api.write_stdin(id, pid, data, close).await
        })
        .await
    }

    async fn signal(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        pid: u32,
        signal: i32,
        group: bool,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.signal(id, pid, signal, group).await
        })
        .await
    }

    async fn resize_pty(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        size: PtySize,
    ) -> Result<(), Error> {
        self.ask(|api| async move { api.resize_pty(id, pid, size).await })
            .await
    }

    async fn processes(self, _: Context, id: SandboxId) -> Result<Vec<ProcessInfo>, Error> {
        self.ask(|api| async move { api.processes(id).await }).await
    }

    async fn stat(self, _: Context, id: SandboxId, path: String) -> Result<FileStat, Error> {
        self.ask(|api| async move { api.stat(id, &path).await })
            .await
    }

    async fn list_dir(
        self,
        _: Context,
        id: SandboxId,
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<DirPage, Error> {
        let mut page = self
            .ask(|api| async move { api.list_dir(id, &path, after.as_deref(), limit).await })
            .await?;
        let fitting = how_many_fit(&page.entries, entry_bytes);
        if fitting < page.entries.len() {
            page.entries.truncate(fitting);
            page.more = true;
        }
        Ok(page)
    }

    async fn read_file(
        self,
        _: Context,
        id: SandboxId,
        path: String,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, Error> {
        self.ask(|api| async move { api.read_file(id, &path, offset, max_bytes).await })
            .await
    }

    async fn open_write(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        spec: WriteSpec,
    ) -> Result<WriteHandle, Error> {
        self.once(request, small, |api| async move {
            api.open_write(id, spec).await
        })
        .await
    }

    async fn write_chunk(
        self,
        _: Context,
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Error> {
        self.ask(|api| async move { api.write_chunk(id, handle, offset, data).await })
            .await
    }

    async fn commit_write(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, Error> {
        self.once(request, small, |api| async move {
            api.commit_write(id, handle, size).await
        })
        .await
    }

    async fn abort_write(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        handle: WriteHandle,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.abort_write(id, handle).await
        })
        .await
    }

    async fn make_dir(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        path: String,
        mode: u32,
        parents: bool,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.make_dir(id, &path, mode, parents).await
        })
        .await
    }

    async fn rename(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        from: String,
        to: String,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.rename(id, &from, &to).await
        })
        .await
    }

    async fn remove(
        self,
        _: Context,
        request: Uuid,
        id: SandboxId,
        path: String,
        recursive: bool,
    ) -> Result<(), Error> {
        self.once(request, small, |api| async move {
            api.remove(id, &path, recursive).await
        })
        .await
    }
}
