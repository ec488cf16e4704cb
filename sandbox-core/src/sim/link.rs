//! The way from a simulated host to its guests: where connections are cut.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    guest::SimGuest,
    host::{Call, Shared, When},
};
use crate::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::{CallError, Guest},
    id::SandboxId,
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
};

pub(super) struct SimLink {
    shared: Arc<Shared>,
    id: SandboxId,
}

impl SimLink {
    pub(super) const fn new(shared: Arc<Shared>, id: SandboxId) -> Self {
        Self { shared, id }
    }

    /// One call: refused where nothing runs, cut where a fault is due or the machine ends in it.
    async fn call<T, F>(&self, call: impl FnOnce(Arc<SimGuest>) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let cut = |_| CallError::ConnectionLost;
        self.shared.enter(Call::Guest).map_err(cut)?;
        let (turn, guest) = self
            .shared
            .running(self.id)
            .map_err(CallError::NotRunning)?;
        self.shared.linger(Call::Guest).await;
        let done = tokio::select! {
            biased;
            () = self.shared.until_ended(self.id, turn) => Err(CallError::ConnectionLost),
            done = call(guest) => done,
        };
        self.shared.fault(Call::Guest, When::After).map_err(cut)?;
        done
    }
}

#[async_trait]
impl Guest for SimLink {
    async fn ping(&self) -> Result<(), CallError> {
        self.call(|guest| async move { guest.ping().await }).await
    }

    async fn start_process(&self, spec: ProcessSpec, wait: Duration) -> Result<Started, CallError> {
        self.call(|guest| async move { guest.start_process(spec, wait).await })
            .await
    }

    async fn read_output(&self, pid: u32, request: OutputRequest) -> Result<Output, CallError> {
        self.call(|guest| async move { guest.read_output(pid, request).await })
            .await
    }

    async fn detach_output(&self, pid: u32) -> Result<(), CallError> {
        self.call(|guest| async move { guest.detach_output(pid).await })
            .await
    }

    async fn write_stdin(&self, pid: u32, data: Bytes, close: bool) -> Result<u64, CallError> {
        self.call(|guest| async move { guest.write_stdin(pid, data, close).await })
            .await
    }

    async fn signal(&self, pid: u32, signal: i32, group: bool) -> Result<(), CallError> {
        self.call(|guest| async move { guest.signal(pid, signal, group).await })
            .await
    }

    async fn resize_pty(&self, pid: u32, size: PtySize) -> Result<(), CallError> {
        self.call(|guest| async move { guest.resize_pty(pid, size).await })
            .await
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>, CallError> {
        self.call(|guest| async move { guest.processes().await })
            .await
    }

    async fn stat(&self, path: &str) -> Result<FileStat, CallError> {
        self.call(|guest| async move { guest.stat(path).await })
            .await
    }

    async fn list_dir(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, CallError> {
        self.call(|guest| async move { guest.list_dir(path, after, limit).await })
            .await
    }

    async fn read_file(
        &self,
        path: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, CallError> {
        self.call(|guest| async move { guest.read_file(path, offset, max_bytes).await })
            .await
    }

    async fn open_write(&self, spec: WriteSpec) -> Result<WriteHandle, CallError> {
        self.call(|guest| async move { guest.open_write(spec).await })
            .await
    }

    async fn write_chunk(
        &self,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CallError> {
        self.call(|guest| async move { guest.write_chunk(handle, offset, data).await })
            .await
    }

    async fn commit_write(&self, handle: WriteHandle, size: u64) -> Result<FileStat, CallError> {
        self.call(|guest| async move { guest.commit_write(handle, size).await })
            .await
    }

    async fn abort_write(&self, handle: WriteHandle) -> Result<(), CallError> {
        self.call(|guest| async move { guest.abort_write(handle).await })
            .await
    }

    async fn make_dir(&self, path: &str, mode: u32, parents: bool) -> Result<(), CallError> {
        self.call(|guest| async move { guest.make_dir(path, mode, parents).await })
            .await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), CallError> {
        self.call(|guest| async move { guest.rename(from, to).await })
            .await
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<(), CallError> {
        self.call(|guest| async move { guest.remove(path, recursive).await })
            .await
    }
}
