//! The agent's calls, each handed to the room that does it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sandbox_core::{
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::GuestError,
    process::{Output, OutputRequest, ProcessInfo, ProcessSpec, PtySize, Started},
};
use tarpc::context::Context;

use super::{
    file::{self, OpenWrites},
    identity,
    process::Processes,
    standstill::Standstill,
};
use crate::link::protocol::{AgentHello, GuestAgent, Identity, PROTOCOL_VERSION, Waking};

/// What lives as long as the agent.
pub(crate) struct Agent {
    pub(crate) processes: Processes,
    /// The sandbox's environment, once it is known who it is.
    env: Mutex<Option<Arc<BTreeMap<String, String>>>>,
    standstill: Standstill,
}

impl Agent {
    pub(crate) fn new(processes: Processes, standstill: Standstill) -> Self {
        Self {
            processes,
            env: Mutex::new(None),
            standstill,
        }
    }

    fn env(&self) -> std::sync::MutexGuard<'_, Option<Arc<BTreeMap<String, String>>>> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lives as long as one connection.
#[derive(Clone)]
pub(crate) struct Service {
    agent: Arc<Agent>,
    writes: Arc<OpenWrites>,
}

impl Service {
    pub(crate) fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            writes: Arc::default(),
        }
    }
}

impl GuestAgent for Service {
    async fn hello(self, _: Context) -> AgentHello {
        AgentHello {
            protocol_version: PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .unwrap_or_default()
                .trim_end()
                .into(),
            capabilities: Vec::new(),
        }
    }

    async fn identify(self, _: Context, identity: Identity) -> Result<(), GuestError> {
        identity::check(&identity)?;
        let owns_machine = self.agent.standstill.owns_machine();
        let agent = Arc::clone(&self.agent);
        let adopt = move || {
            if owns_machine {
                identity::adopt(&identity)?;
            }
            *agent.env() = Some(Arc::new(identity.env));
            Ok(())
        };
        self.agent.standstill.end(adopt).await
    }

    async fn warm_up(self, _: Context, placeholder: Identity) -> Result<(), GuestError> {
        identity::check(&placeholder)?;
        if self.agent.standstill.owns_machine() {
            identity::adopt(&placeholder)?;
        }
        self.agent.processes.rehearse(&placeholder.env).await
    }

    async fn ping(self, _: Context) {}

    async fn start_process(
        self,
        _: Context,
        spec: ProcessSpec,
        wait_ms: u64,
    ) -> Result<Started, GuestError> {
        self.agent.standstill.over().await;
        let env = self.agent.env().clone();
        let env = env.ok_or_else(|| {
            GuestError::Invalid("the sandbox has no identity yet: call `identify` first".into())
        })?;
        let wait = Duration::from_millis(wait_ms);
        self.agent.processes.start(spec, &env, wait).await
    }

    async fn read_output(
        self,
        _: Context,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, GuestError> {
        self.agent.processes.read_output(pid, request).await
    }

    async fn detach_output(self, _: Context, pid: u32) -> Result<(), GuestError> {
        self.agent.processes.detach_output(pid)
    }

    async fn write_stdin(
        self,
        _: Context,
        pid: u32,
        data: Bytes,
        close: bool,
    ) -> Result<u64, GuestError> {
        self.agent.processes.write_stdin(pid, &data, close).await
    }

    async fn signal(
        self,
        _: Context,
        pid: u32,
        signal: i32,
        group: bool,
    ) -> Result<(), GuestError> {
        self.agent.processes.signal(pid, signal, group)
    }

    async fn resize_pty(self, _: Context, pid: u32, size: PtySize) -> Result<(), GuestError> {
        self.agent.processes.resize_pty(pid, size)
    }

    async fn processes(self, _: Context) -> Result<Vec<ProcessInfo>, GuestError> {
        Ok(self.agent.processes.list())
    }

    async fn stat(self, _: Context, path: String) -> Result<FileStat, GuestError> {
        file::stat(&path)
    }

    async fn list_dir(
        self,
        _: Context,
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<DirPage, GuestError> {
        file::list_dir(&path, after.as_deref(), limit)
    }

    async fn read_file(
        self,
        _: Context,
        path: String,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, GuestError> {
        file::read_file(&path, offset, max_bytes)
    }

    async fn open_write(self, _: Context, spec: WriteSpec) -> Result<WriteHandle, GuestError> {
        self.agent.standstill.over().await;
        self.writes.open(&spec)
    }

    async fn write_chunk(
        self,
        _: Context,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), GuestError> {
        self.agent.standstill.over().await;
        self.writes.write(handle, offset, &data)
    }

    async fn commit_write(
        self,
        _: Context,
        handle: WriteHandle,
        size: u64,
    ) -> Result<FileStat, GuestError> {
        self.agent.standstill.over().await;
        let write = self.writes.take(handle)?;
        blocking(move || write.commit(size)).await
    }

    async fn abort_write(self, _: Context, handle: WriteHandle) -> Result<(), GuestError> {
        self.agent.standstill.over().await;
        self.writes.take(handle).map(drop)
    }

    async fn make_dir(
        self,
        _: Context,
        path: String,
        mode: u32,
        parents: bool,
    ) -> Result<(), GuestError> {
        self.agent.standstill.over().await;
        file::make_dir(&path, mode, parents)
    }

    async fn rename(self, _: Context, from: String, to: String) -> Result<(), GuestError> {
        self.agent.standstill.over().await;
        file::rename(&from, &to)
    }

    async fn remove(self, _: Context, path: String, recursive: bool) -> Result<(), GuestError> {
        self.agent.standstill.over().await;
        if recursive {
            blocking(move || file::remove_all(&path)).await
        } else {
            file::remove(&path)
        }
    }

    async fn quiesce(self, _: Context, trim: bool) -> Result<(), GuestError> {
        // They end with the connection, which ends next, and could not be tidied up then.
        self.writes.abort_all();
        self.agent.standstill.begin(trim).await
    }

    async fn wake(self, _: Context, waking: Waking) -> Result<(), GuestError> {
        let owns_machine = self.agent.standstill.owns_machine();
        let adopt = move || match owns_machine {
            true => identity::wake(&waking),
            false => Ok(()),
        };
        self.agent.standstill.end(adopt).await
    }

    async fn prepare_snapshot(self, _: Context) -> Result<(), GuestError> {
        blocking(|| {
            nix::unistd::sync();
            Ok(())
        })
        .await
    }
}

/// Runs what may take long on a thread of its own. It goes on when the caller has gone.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
) -> Result<T, GuestError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(GuestError::Invalid(format!("the agent failed: {error}"))),
    }
}
