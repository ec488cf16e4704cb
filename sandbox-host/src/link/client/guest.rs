//! Each call of core's [`Guest`] as one message, with the time that it may take.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::{CallError, Guest},
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
};

use super::{CALL_LIMIT, GuestClient, SLOW_CALL_LIMIT, WAIT_MAX};

#[async_trait]
impl Guest for GuestClient {
    async fn ping(&self) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.ping(context).await.map(Ok)
        })
        .await
    }

    async fn start_process(&self, spec: ProcessSpec, wait: Duration) -> Result<Started, CallError> {
        let wait = wait.min(WAIT_MAX);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.call(wait + CALL_LIMIT, async |client, context| {
            client.start_process(context, spec, wait_ms).await
        })
        .await
    }

    async fn read_output(&self, pid: u32, request: OutputRequest) -> Result<Output, CallError> {
        let wait = Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
        self.call(wait + CALL_LIMIT, async |client, context| {
            client.read_output(context, pid, request).await
        })
        .await
    }

    async fn detach_output(&self, pid: u32) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.detach_output(context, pid).await
        })
        .await
    }

    async fn write_stdin(&self, pid: u32, data: Bytes, close: bool) -> Result<u64, CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.write_stdin(context, pid, data, close).await
        })
        .await
    }

    async fn signal(&self, pid: u32, signal: i32, group: bool) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.signal(context, pid, signal, group).await
        })
        .await
    }

    async fn resize_pty(&self, pid: u32, size: PtySize) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.resize_pty(context, pid, size).await
        })
        .await
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>, CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.processes(context).await
        })
        .await
    }

    async fn stat(&self, path: &str) -> Result<FileStat, CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.stat(context, path.to_owned()).await
        })
        .await
    }

    async fn list_dir(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client
                .list_dir(context, path.to_owned(), after.map(str::to_owned), limit)
                .await
        })
        .await
    }

    async fn read_file(
        &self,
        path: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client
                .read_file(context, path.to_owned(), offset, max_bytes)
                .await
        })
        .await
    }

    async fn open_write(&self, spec: WriteSpec) -> Result<WriteHandle, CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.open_write(context, spec).await
        })
        .await
    }

    async fn write_chunk(
        &self,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.write_chunk(context, handle, offset, data).await
        })
        .await
    }

    async fn commit_write(&self, handle: WriteHandle, size: u64) -> Result<FileStat, CallError> {
        self.call(SLOW_CALL_LIMIT, async |client, context| {
            client.commit_write(context, handle, size).await
        })
        .await
    }

    async fn abort_write(&self, handle: WriteHandle) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.abort_write(context, handle).await
        })
        .await
    }

    async fn make_dir(&self, path: &str, mode: u32, parents: bool) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client
                .make_dir(context, path.to_owned(), mode, parents)
                .await
        })
        .await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), CallError> {
        self.call(CALL_LIMIT, async |client, context| {
            client.rename(context, from.to_owned(), to.to_owned()).await
        })
        .await
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<(), CallError> {
        self.call(SLOW_CALL_LIMIT, async |client, context| {
            client.remove(context, path.to_owned(), recursive).await
        })
        .await
    }
}
