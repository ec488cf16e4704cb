//! The calls of one connection, each handed to the host.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use sandbox_core::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::{CallError, Guest},
    host::{
        Host, HostCreate, HostError, HostImage, HostImport, HostInfo, HostOrder, HostSnapshot,
        ImageDeletion,
    },
    id::{SandboxId, TemplateId},
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
    wire::{ClientHello, Refusal, ServerHello, entry_bytes, how_many_fit},
};
use tarpc::{ServerError, context::Context, server::Serve};
use tracing::Instrument;
use uuid::Uuid;

use super::Core;
use crate::rpc::{
    cause::{Cause, Caused},
    protocol::{HostRpc, HostRpcRequest, HostRpcResponse, PROTOCOL_VERSION, ReportPiece},
    serve::{Answer, Session},
};

const FIRST_WORDS: &str = "a connection begins with `hello` and the right secret";

/// Serves the calls of one connection.
#[derive(Clone)]
pub(super) struct Service {
    core: Arc<Core>,
    session: Arc<Session<()>>,
}

impl Service {
    pub(super) const fn new(core: Arc<Core>, session: Arc<Session<()>>) -> Self {
        Self { core, session }
    }

    /// The host, for those who showed who they are.
    fn host(&self) -> Result<&Arc<dyn Host>, HostError> {
        if self.session.door().is_some() {
            return Ok(&self.core.host);
        }
        Err(HostError::Unavailable(FIRST_WORDS.to_owned()))
    }

    /// A sandbox's inside, for those who showed who they are.
    fn guest(&self, id: SandboxId) -> Result<Arc<dyn Guest>, CallError> {
        if self.session.door().is_some() {
            return Ok(self.core.host.guest(id));
        }
        Err(CallError::NotRunning(FIRST_WORDS.to_owned()))
    }

    /// Carries an order out on a task of its own: it goes on when whoever gave it has gone.
    async fn order<T, F>(&self, work: impl FnOnce(Arc<dyn Host>) -> F) -> Result<T, HostError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HostError>> + Send + 'static,
    {
        let order = work(Arc::clone(self.host()?)).in_current_span();
        // Nobody cancels it: a task without a result has panicked, or its runtime is going down.
        tokio::spawn(order).await.unwrap_or_else(|error| {
            Err(HostError::Internal(format!(
                "the order's task ended: {error}"
            )))
        })
    }
}

impl Answer for Service {
    type Req = Caused<HostRpcRequest>;
    type Resp = HostRpcResponse;

    fn cause(request: &Self::Req) -> Option<&Cause> {
        Some(&request.cause)
    }

    fn answer(
        self,
        context: Context,
        request: Self::Req,
    ) -> impl Future<Output = Result<HostRpcResponse, ServerError>> + Send {
        HostRpc::serve(self).serve(context, request.call)
    }
}

impl HostRpc for Service {
    async fn hello(self, _: Context, hello: ClientHello) -> Result<ServerHello, Refusal> {
        let ours = ServerHello::new(PROTOCOL_VERSION, self.core.instance);
        self.session.greet(ours, &hello, |shown, private| {
            let secret = self.core.secret.as_ref();
            let fits = secret.is_some_and(|secret| secret.fits(shown));
            (private || fits).then_some(())
        })
    }

    async fn heartbeat(self, _: Context) {}

    async fn host_info(self, _: Context) -> Result<HostInfo, HostError> {
        self.host()?.hello().await
    }

    async fn create_sandbox(self, _: Context, order: HostCreate) -> Result<(), HostError> {
        self.order(|host| async move { host.create_sandbox(order).await })
            .await
    }

    async fn destroy_sandbox(
        self,
        _: Context,
        id: SandboxId,
        generation: u64,
    ) -> Result<(), HostError> {
        self.order(|host| async move { host.destroy_sandbox(id, generation).await })
            .await
    }

    async fn pause_sandbox(self, _: Context, order: HostOrder) -> Result<(), HostError> {
        self.order(|host| async move { host.pause_sandbox(order).await })
            .await
    }

    async fn resume_sandbox(self, _: Context, order: HostOrder) -> Result<(), HostError> {
        self.order(|host| async move { host.resume_sandbox(order).await })
            .await
    }

    async fn create_snapshot(
        self,
        _: Context,
        order: HostSnapshot,
    ) -> Result<HostImage, HostError> {
        self.order(|host| async move { host.create_snapshot(order).await })
            .await
    }

    async fn flatten_rootfs(self, _: Context, order: HostSnapshot) -> Result<HostImage, HostError> {
        self.order(|host| async move { host.flatten_rootfs(order).await })
            .await
    }

    async fn import_image(self, _: Context, order: HostImport) -> Result<HostImage, HostError> {
        self.order(|host| async move { host.import_image(order).await })
            .await
    }

    async fn delete_snapshot(
        self,
        _: Context,
        image: TemplateId,
    ) -> Result<ImageDeletion, HostError> {
        self.order(|host| async move { host.delete_snapshot(image).await })
            .await
    }

    async fn list_sandboxes(self, _: Context) -> Result<ReportPiece, HostError> {
        let report = self.host()?.list_sandboxes().await?;
        self.core.reports.begin(&report)
    }

    async fn list_sandboxes_more(
        self,
        _: Context,
        report: Uuid,
        offset: u64,
    ) -> Result<ReportPiece, HostError> {
        self.host()?;
        self.core.reports.more(report, offset)
    }

    async fn changed(self, _: Context, seen: u64, wait_ms: u64) -> Result<u64, HostError> {
        let wait = Duration::from_millis(wait_ms);
        self.host()?.changed(seen, wait).await
    }

    async fn ping(self, _: Context, id: SandboxId) -> Result<(), CallError> {
        self.guest(id)?.ping().await
    }

    async fn start_process(
        self,
        _: Context,
        id: SandboxId,
        spec: ProcessSpec,
        wait_ms: u64,
    ) -> Result<Started, CallError> {
        let wait = Duration::from_millis(wait_ms);
        self.guest(id)?.start_process(spec, wait).await
    }

    async fn read_output(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, CallError> {
        self.guest(id)?.read_output(pid, request).await
    }

    async fn detach_output(self, _: Context, id: SandboxId, pid: u32) -> Result<(), CallError> {
        self.guest(id)?.detach_output(pid).await
    }

    async fn write_stdin(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, CallError> {
        self.guest(id)?.write_stdin(pid, data, close).await
    }

    async fn signal(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        signal: i32,
        group: bool,
    ) -> Result<(), CallError> {
        self.guest(id)?.signal(pid, signal, group).await
    }

    async fn resize_pty(
        self,
        _: Context,
        id: SandboxId,
        pid: u32,
        size: PtySize,
    ) -> Result<(), CallError> {
        self.guest(id)?.resize_pty(pid, size).await
    }

    async fn processes(self, _: Context, id: SandboxId) -> Result<Vec<ProcessInfo>, CallError> {
        self.guest(id)?.processes().await
    }

    async fn stat(self, _: Context, id: SandboxId, path: String) -> Result<FileStat, CallError> {
        self.guest(id)?.stat(&path).await
    }

    async fn list_dir(
        self,
        _: Context,
        id: SandboxId,
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<DirPage, CallError> {
        let guest = self.guest(id)?;
        let mut page = guest.list_dir(&path, after.as_deref(), limit).await?;
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
    ) -> Result<FileChunk, CallError> {
        self.guest(id)?.read_file(&path, offset, max_bytes).await
    }

    async fn open_write(
        self,
        _: Context,
        id: SandboxId,
        spec: WriteSpec,
    ) -> Result<WriteHandle, CallError> {
        self.guest(id)?.open_write(spec).await
    }

    async fn write_chunk(
        self,
        _: Context,
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CallError> {
        self.guest(id)?.write_chunk(handle, offset, data).await
    }

    async fn commit_write(
        self,
        _: Context,
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, CallError> {
        self.guest(id)?.commit_write(handle, size).await
    }

    async fn abort_write(
        self,
        _: Context,
        id: SandboxId,
        handle: WriteHandle,
    ) -> Result<(), CallError> {
        self.guest(id)?.abort_write(handle).await
    }

    async fn make_dir(
        self,
        _: Context,
        id: SandboxId,
        path: String,
        mode: u32,
        parents: bool,
    ) -> Result<(), CallError> {
        self.guest(id)?.make_dir(&path, mode, parents).await
    }

    async fn rename(
        self,
        _: Context,
        id: SandboxId,
        from: String,
        to: String,
    ) -> Result<(), CallError> {
        self.guest(id)?.rename(&from, &to).await
    }

    async fn remove(
        self,
        _: Context,
        id: SandboxId,
        path: String,
        recursive: bool,
    ) -> Result<(), CallError> {
        self.guest(id)?.remove(&path, recursive).await
    }
}
