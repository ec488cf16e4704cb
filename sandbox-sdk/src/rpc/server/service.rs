//! The calls of one connection, each handed to the platform.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use sandbox_core::{
    api::{Api, Begun},
    error::Error,
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    id::{OperationId, SandboxId},
    operation::OperationRecord,
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
    sandbox::{CreateSandbox, Page, PageRequest, SandboxFilter, SandboxRecord},
};
use tarpc::context::Context;
use uuid::Uuid;

use super::{
    Core,
    pieces::{entry_bytes, how_many_fit, progress, record_bytes, written},
    requests::{self, Outcome},
    session::{Session, Standing},
};
use crate::rpc::protocol::{
    ClientHello, ControlPlane, ExecProgress, PROTOCOL_VERSION, Refusal, ServerHello, understands,
};

/// Serves the calls of one connection.
#[derive(Clone)]
pub(super) struct Service {
    core: Arc<Core>,
    session: Arc<Session>,
}

impl Service {
    pub(super) const fn new(core: Arc<Core>, session: Arc<Session>) -> Self {
        Self { core, session }
    }

    /// The platform, for those who showed who they are.
    fn api(&self) -> Result<&Arc<dyn Api>, Error> {
        if self.session.is_known() {
            return Ok(&self.core.api);
        }
        Err(Error::Unauthorized(
            "a connection begins with `hello` and the right key".to_owned(),
        ))
    }

    /// Does a request once, on a task of its own.
    fn begin<T, F>(
        &self,
        request: Uuid,
        bytes: fn(&T) -> usize,
        work: impl FnOnce(Arc<dyn Api>) -> F,
    ) -> Result<Outcome<T>, Error>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let api = Arc::clone(self.api()?);
        self.core.requests.once(request, bytes, || work(api))
    }

    async fn once<T, F>(
        &self,
        request: Uuid,
        bytes: fn(&T) -> usize,
        work: impl FnOnce(Arc<dyn Api>) -> F,
    ) -> Result<T, Error>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut outcome = self.begin(request, bytes, work)?;
        requests::wait(&mut outcome).await
    }
}

fn small<T>(_: &T) -> usize {
    0
}

impl ControlPlane for Service {
    async fn hello(self, _: Context, hello: ClientHello) -> Result<ServerHello, Refusal> {
        let session = &self.session;
        if session.standing() == Standing::Refused {
            return Err(Refusal::Unauthorized);
        }
        if !understands(PROTOCOL_VERSION, hello.protocol_version) {
            session.refuse();
            return Err(Refusal::Protocol {
                server_protocol_version: PROTOCOL_VERSION,
                server_version: env!("CARGO_PKG_VERSION").to_owned(),
            });
        }
        let shown = hello.key.as_deref().unwrap_or_default();
        let fits = self.core.key.as_ref().is_some_and(|key| key.fits(shown));
        if !(session.is_private() || fits) {
            session.refuse();
            return Err(Refusal::Unauthorized);
        }
        session.welcome();
        Ok(ServerHello {
            protocol_version: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.core.instance,
            capabilities: Vec::new(),
        })
    }

    async fn heartbeat(self, _: Context) {}

    async fn create(
        self,
        _: Context,
        mut request: CreateSandbox,
        idempotency_key: String,
    ) -> Result<SandboxRecord, Error> {
        request.idempotency_key = Some(idempotency_key);
        self.api()?.create(request).await
    }

    async fn begin_create(
        self,
        _: Context,
        mut request: CreateSandbox,
        idempotency_key: String,
    ) -> Result<Begun, Error> {
        request.idempotency_key = Some(idempotency_key);
        self.api()?.begin_create(request).await
    }

    async fn get(self, _: Context, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.api()?.get(id).await
    }

    async fn list(
        self,
        _: Context,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, Error> {
        let mut page = self.api()?.list(filter, page).await?;
        let fitting = how_many_fit(&page.items, record_bytes);
        if fitting < page.items.len() {
            page.items.truncate(fitting);
            page.next = page.items.last().map(|record| record.id);
        }
        Ok(page)
    }

    async fn destroy(self, _: Context, id: SandboxId) -> Result<(), Error> {
        self.api()?.destroy(id).await
    }

    async fn ping(self, _: Context, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.api()?.ping(id).await
    }

    async fn operation(self, _: Context, id: OperationId) -> Result<OperationRecord, Error> {
        self.api()?.operation(id).await
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
        self.api()?;
        progress(self.core.requests.find(request)?, offset).await
    }

    async fn exec_forget(self, _: Context, request: Uuid) {
        if self.session.is_known() {
            self.core.requests.forget(request);
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
        self.api()?.read_output(id, pid, request).await
    }

    async fn detach_output(self, _: Context, id: SandboxId, pid: u32) -> Result<(), Error> {
        self.api()?.detach_output(id, pid).await
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
        self.api()?.resize_pty(id, pid, size).await
    }

    async fn processes(self, _: Context, id: SandboxId) -> Result<Vec<ProcessInfo>, Error> {
        self.api()?.processes(id).await
    }

    async fn stat(self, _: Context, id: SandboxId, path: String) -> Result<FileStat, Error> {
        self.api()?.stat(id, &path).await
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
            .api()?
            .list_dir(id, &path, after.as_deref(), limit)
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
        self.api()?.read_file(id, &path, offset, max_bytes).await
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
        self.api()?.write_chunk(id, handle, offset, data).await
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
