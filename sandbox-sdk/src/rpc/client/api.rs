//! Each call of core's [`Api`] as a message, with the time that it may take.
//!
//! The other side has limits of its own that end earlier; those here are for the case that it
//! forgets.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    api::{Api, Begun},
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
use uuid::Uuid;

use super::{Again, Remote, templates::Turn};
use crate::rpc::protocol::{PLAN, SNAPSHOTS};

/// For what is answered at once, or as soon as a guest does.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(60);
/// For what may have much to do.
pub(super) const SLOW_CALL_LIMIT: Duration = Duration::from_secs(360);
/// No wait that a caller names is taken to be longer.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// A key of our own for a request that has none: a create whose answer is lost must be found again.
fn idempotency_key(request: &mut CreateSandbox) -> String {
    let given = request.idempotency_key.take();
    given.unwrap_or_else(|| format!("auto-{}", Uuid::now_v7()))
}

#[async_trait]
impl Api for Remote {
    async fn create(&self, mut request: CreateSandbox) -> Result<SandboxRecord, Error> {
        let key = idempotency_key(&mut request);
        self.call(Again::Always, SLOW_CALL_LIMIT, |client, context| {
            let (request, key) = (request.clone(), key.clone());
            async move { client.create(context, request, key).await }
        })
        .await
    }

    async fn begin_create(&self, mut request: CreateSandbox) -> Result<Begun, Error> {
        let key = idempotency_key(&mut request);
        self.call(Again::Always, CALL_LIMIT, |client, context| {
            let (request, key) = (request.clone(), key.clone());
            async move { client.begin_create(context, request, key).await }
        })
        .await
    }

    async fn get(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.get(context, id).await
        })
        .await
    }

    async fn list(
        &self,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| {
            let filter = filter.clone();
            async move { client.list(context, filter, page).await }
        })
        .await
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), Error> {
        self.call(
            Again::Always,
            SLOW_CALL_LIMIT,
            |client, context| async move { client.destroy(context, id).await },
        )
        .await
    }

    async fn ping(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.ping(context, id).await
        })
        .await
    }

    async fn operation(&self, id: OperationId) -> Result<OperationRecord, Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.operation(context, id).await
        })
        .await
    }

    async fn pause(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.turn(Turn::Pause, id).await
    }

    async fn resume(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.turn(Turn::Resume, id).await
    }

    async fn snapshot(&self, request: SnapshotRequest) -> Result<TemplateRecord, Error> {
        let operation = self.begin_snapshot(request).await?;
        self.made_by(operation).await
    }

    async fn begin_snapshot(&self, request: SnapshotRequest) -> Result<OperationId, Error> {
        self.begin_to_snapshot(request).await
    }

    async fn template(&self, name: &str) -> Result<TemplateRecord, Error> {
        self.need(SNAPSHOTS).await?;
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.template(context, name.to_owned()).await
        })
        .await
    }

    async fn templates(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, Error> {
        self.need(SNAPSHOTS).await?;
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.templates(context, kind, page).await
        })
        .await
    }

    async fn all_templates(
        &self,
        kind: Option<TemplateKind>,
        page: TemplatePageRequest,
    ) -> Result<(Vec<TemplateUse>, Option<TemplateId>), Error> {
        self.need(SNAPSHOTS).await?;
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.all_templates(context, kind, page).await
        })
        .await
    }

    async fn reconciler_plan(&self) -> Result<Preview, Error> {
        self.need(PLAN).await?;
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.reconciler_plan(context).await
        })
        .await
    }

    async fn delete_template(&self, name: &str) -> Result<(), Error> {
        self.need(SNAPSHOTS).await?;
        let request = Uuid::now_v7();
        self.call(
            Again::SameInstance,
            CALL_LIMIT,
            |client, context| async move {
                client
                    .delete_template(context, request, name.to_owned())
                    .await
            },
        )
        .await
    }

    async fn import_template(&self, request: ImportTemplate) -> Result<TemplateRecord, Error> {
        let operation = self.begin_import(request).await?;
        self.made_by(operation).await
    }

    async fn begin_import(&self, request: ImportTemplate) -> Result<OperationId, Error> {
        self.begin_to_import(request).await
    }

    async fn exec(&self, id: SandboxId, spec: ProcessSpec) -> Result<ExecOutput, Error> {
        self.exec_to_its_end(id, spec).await
    }

    async fn start_process(
        &self,
        id: SandboxId,
        spec: ProcessSpec,
        wait: Duration,
    ) -> Result<Started, Error> {
        let request = Uuid::now_v7();
        let wait = wait.min(WAIT_MAX);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.call(Again::SameInstance, wait + CALL_LIMIT, |client, context| {
            let spec = spec.clone();
            async move {
                client
                    .start_process(context, request, id, spec, wait_ms)
                    .await
            }
        })
        .await
    }

    async fn read_output(
        &self,
        id: SandboxId,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, Error> {
        let wait = Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
        self.call(
            Again::Always,
            wait + CALL_LIMIT,
            |client, context| async move { client.read_output(context, id, pid, request).await },
        )
        .await
    }

    async fn detach_output(&self, id: SandboxId, pid: u32) -> Result<(), Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.detach_output(context, id, pid).await
        })
        .await
    }

    async fn write_stdin(
        &self,
        id: SandboxId,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, Error> {
        let request = Uuid::now_v7();
        self.call(Again::SameInstance, CALL_LIMIT, |client, context| {
            let data = data.clone();
            async move {
                client
                    .write_stdin(context, request, id, pid, data, close)
                    .await
            }
        })
        .await
    }

    async fn signal(&self, id: SandboxId, pid: u32, signal: i32, group: bool) -> Result<(), Error> {
        let request = Uuid::now_v7();
        self.call(
            Again::SameInstance,
            CALL_LIMIT,
            |client, context| async move {
                client
                    .signal(context, request, id, pid, signal, group)
                    .await
            },
        )
        .await
    }

    async fn resize_pty(&self, id: SandboxId, pid: u32, size: PtySize) -> Result<(), Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.resize_pty(context, id, pid, size).await
        })
        .await
    }

    async fn processes(&self, id: SandboxId) -> Result<Vec<ProcessInfo>, Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.processes(context, id).await
        })
        .await
    }

    async fn stat(&self, id: SandboxId, path: &str) -> Result<FileStat, Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.stat(context, id, path.to_owned()).await
        })
        .await
    }

    async fn list_dir(
        &self,
        id: SandboxId,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            let (path, after) = (path.to_owned(), after.map(str::to_owned));
            client.list_dir(context, id, path, after, limit).await
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
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client
                .read_file(context, id, path.to_owned(), offset, max_bytes)
                .await
        })
        .await
    }

    async fn open_write(&self, id: SandboxId, spec: WriteSpec) -> Result<WriteHandle, Error> {
        let request = Uuid::now_v7();
        self.call(Again::SameInstance, CALL_LIMIT, |client, context| {
            let spec = spec.clone();
            async move { client.open_write(context, request, id, spec).await }
        })
        .await
    }

    async fn write_chunk(
        &self,
        id: SandboxId,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Error> {
        self.call(Again::Always, CALL_LIMIT, |client, context| {
            let data = data.clone();
            async move { client.write_chunk(context, id, handle, offset, data).await }
        })
        .await
    }

    async fn commit_write(
        &self,
        id: SandboxId,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, Error> {
        let request = Uuid::now_v7();
        self.call(
            Again::SameInstance,
            SLOW_CALL_LIMIT,
            |client, context| async move {
                client
                    .commit_write(context, request, id, handle, size)
                    .await
            },
        )
        .await
    }

    async fn abort_write(&self, id: SandboxId, handle: WriteHandle) -> Result<(), Error> {
        let request = Uuid::now_v7();
        self.call(
            Again::SameInstance,
            CALL_LIMIT,
            |client, context| async move { client.abort_write(context, request, id, handle).await },
        )
        .await
    }

    async fn make_dir(
        &self,
        id: SandboxId,
        path: &str,
        mode: u32,
        parents: bool,
    ) -> Result<(), Error> {
        let request = Uuid::now_v7();
        self.call(
            Again::SameInstance,
            CALL_LIMIT,
            |client, context| async move {
                client
                    .make_dir(context, request, id, path.to_owned(), mode, parents)
                    .await
            },
        )
        .await
    }

    async fn rename(&self, id: SandboxId, from: &str, to: &str) -> Result<(), Error> {
        let request = Uuid::now_v7();
        self.call(
            Again::SameInstance,
            CALL_LIMIT,
            |client, context| async move {
                client
                    .rename(context, request, id, from.to_owned(), to.to_owned())
                    .await
            },
        )
        .await
    }

    async fn remove(&self, id: SandboxId, path: &str, recursive: bool) -> Result<(), Error> {
        let request = Uuid::now_v7();
        self.call(
            Again::SameInstance,
            SLOW_CALL_LIMIT,
            |client, context| async move {
                client
                    .remove(context, request, id, path.to_owned(), recursive)
                    .await
            },
        )
        .await
    }
}
