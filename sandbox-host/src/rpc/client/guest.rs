//! Each call of core's [`Guest`] as a message, with the time that it may take.
//!
//! The host has limits of its own that end earlier; those here are for the case that it forgets.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::{CallError, Guest, GuestError},
    id::SandboxId,
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
};
use tarpc::{client::RpcError, context::Context};

use super::{
    Shared,
    line::{Again, Connection, Failure},
};

/// For what is answered at once, or as soon as a guest does.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// For what may have much to do.
const SLOW_CALL_LIMIT: Duration = Duration::from_secs(360);
/// No wait that a caller names is taken to be longer.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The inside of a sandbox on a host elsewhere.
pub(super) struct RemoteGuest {
    shared: Arc<Shared>,
    id: SandboxId,
}

impl RemoteGuest {
    pub(super) const fn new(shared: Arc<Shared>, id: SandboxId) -> Self {
        Self { shared, id }
    }

    /// Sent once, unless it changes nothing, or the same however often.
    async fn call<T, F>(
        &self,
        again: Again,
        limit: Duration,
        send: impl Fn(Arc<Connection>, Context) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Result<T, CallError>, RpcError>>,
    {
        let Ok(_place) = self.shared.room.acquire().await else {
            // Nobody closes it.
            return Err(CallError::ConnectionLost);
        };
        let patience = self.shared.patience;
        match self.shared.line.call(again, patience, limit, send).await {
            Ok(answer) => answer,
            Err(failure) => Err(told(failure, patience)),
        }
    }
}

/// What a call that gave no answer means to whoever made it. Where a host is, and why it was not
/// reached, is for the log.
fn told(failure: Failure, patience: Duration) -> CallError {
    match failure {
        Failure::NotSent(_) | Failure::Busy => CallError::NoAnswer(patience),
        Failure::NoAnswer(limit) => CallError::NoAnswer(limit),
        Failure::Lost(_) => CallError::ConnectionLost,
        Failure::TooLarge(words) | Failure::Unanswerable(words) => {
            CallError::Guest(GuestError::Invalid(words))
        }
    }
}

#[async_trait]
impl Guest for RemoteGuest {
    async fn ping(&self) -> Result<(), CallError> {
        let id = self.id;
        self.call(
            Again::Always,
            CALL_LIMIT,
            |connection, context| async move { connection.client.ping(context, id).await },
        )
        .await
    }

    async fn start_process(&self, spec: ProcessSpec, wait: Duration) -> Result<Started, CallError> {
        let (id, wait) = (self.id, wait.min(WAIT_MAX));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.call(Again::Never, wait + CALL_LIMIT, |connection, context| {
            let spec = spec.clone();
            async move {
                let client = &connection.client;
                client.start_process(context, id, spec, wait_ms).await
            }
        })
        .await
    }

    async fn read_output(&self, pid: u32, request: OutputRequest) -> Result<Output, CallError> {
        let id = self.id;
        let wait = Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
        self.call(
            Again::Always,
            wait + CALL_LIMIT,
            |connection, context| async move {
                connection
                    .client
                    .read_output(context, id, pid, request)
                    .await
            },
        )
        .await
    }

    async fn detach_output(&self, pid: u32) -> Result<(), CallError> {
        let id = self.id;
        self.call(Again::Always, CALL_LIMIT, |connection, context| async move {
            connection.client.detach_output(context, id, pid).await
        })
        .await
    }

    async fn write_stdin(&self, pid: u32, data: Bytes, close: bool) -> Result<u64, CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| {
            let data = data.clone();
            async move {
                let client = &connection.client;
                client.write_stdin(context, id, pid, data, close).await
            }
        })
        .await
    }

    async fn signal(&self, pid: u32, signal: i32, group: bool) -> Result<(), CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| async move {
            connection
                .client
                .signal(context, id, pid, signal, group)
                .await
        })
        .await
    }

    async fn resize_pty(&self, pid: u32, size: PtySize) -> Result<(), CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| async move {
            connection.client.resize_pty(context, id, pid, size).await
        })
        .await
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>, CallError> {
        let id = self.id;
        self.call(
            Again::Always,
            CALL_LIMIT,
            |connection, context| async move { connection.client.processes(context, id).await },
        )
        .await
    }

    async fn stat(&self, path: &str) -> Result<FileStat, CallError> {
        let id = self.id;
        self.call(
            Again::Always,
            CALL_LIMIT,
            |connection, context| async move {
                connection.client.stat(context, id, path.to_owned()).await
            },
        )
        .await
    }

    async fn list_dir(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, CallError> {
        let id = self.id;
        self.call(
            Again::Always,
            CALL_LIMIT,
            |connection, context| async move {
                let (path, after) = (path.to_owned(), after.map(str::to_owned));
                let client = &connection.client;
                client.list_dir(context, id, path, after, limit).await
            },
        )
        .await
    }

    async fn read_file(
        &self,
        path: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, CallError> {
        let id = self.id;
        self.call(
            Again::Always,
            CALL_LIMIT,
            |connection, context| async move {
                let client = &connection.client;
                let path = path.to_owned();
                client.read_file(context, id, path, offset, max_bytes).await
            },
        )
        .await
    }

    async fn open_write(&self, spec: WriteSpec) -> Result<WriteHandle, CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| {
            let spec = spec.clone();
            async move { connection.client.open_write(context, id, spec).await }
        })
        .await
    }

    async fn write_chunk(
        &self,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| {
            let data = data.clone();
            async move {
                let client = &connection.client;
                client.write_chunk(context, id, handle, offset, data).await
            }
        })
        .await
    }

    async fn commit_write(&self, handle: WriteHandle, size: u64) -> Result<FileStat, CallError> {
        let id = self.id;
        self.call(
            Again::Never,
            SLOW_CALL_LIMIT,
            |connection, context| async move {
                connection
                    .client
                    .commit_write(context, id, handle, size)
                    .await
            },
        )
        .await
    }

    async fn abort_write(&self, handle: WriteHandle) -> Result<(), CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| async move {
            connection.client.abort_write(context, id, handle).await
        })
        .await
    }

    async fn make_dir(&self, path: &str, mode: u32, parents: bool) -> Result<(), CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| async move {
            let (client, path) = (&connection.client, path.to_owned());
            client.make_dir(context, id, path, mode, parents).await
        })
        .await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), CallError> {
        let id = self.id;
        self.call(Again::Never, CALL_LIMIT, |connection, context| async move {
            let (from, to) = (from.to_owned(), to.to_owned());
            connection.client.rename(context, id, from, to).await
        })
        .await
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<(), CallError> {
        let id = self.id;
        self.call(
            Again::Never,
            SLOW_CALL_LIMIT,
            |connection, context| async move {
                let (client, path) = (&connection.client, path.to_owned());
                client.remove(context, id, path, recursive).await
            },
        )
        .await
    }
}
