//! A real platform in a folder of the test's own, that leaves nothing.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "not every test target uses all of it"
)]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sandbox_core::process::ExecOutput;
use sandbox_host::testkit::{leftovers::Leftovers, seed};
use sandbox_sdk::{
    Client, DiskBackend, DiskChoice, EmbeddedConfig, Error, Sandbox, SandboxRecord, SandboxState,
};
use tempfile::TempDir;

/// Longer than anything here takes, and short enough for a test that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(25);

pub(crate) fn shared() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Fields are dropped in their order: what a failed test left running ends before its folder goes.
pub(crate) struct Platform {
    pub(crate) client: Client,
    pub(crate) leftovers: Leftovers,
    pub(crate) folder: PathBuf,
    _temporary: TempDir,
}

impl Platform {
    pub(crate) async fn with_pool(clones: usize) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let leftovers = Leftovers::watch(&folder);
        seed::plant(shared(), &folder.join("host")).await;
        let client = open(&folder, clones).await.unwrap();
        Self {
            client,
            leftovers,
            folder,
            _temporary: temporary,
        }
    }

    /// Closes the platform, which must have no sandboxes, and looks for what is left.
    pub(crate) async fn close(self) {
        let Self {
            client,
            leftovers,
            folder: _,
            _temporary,
        } = self;
        client.shutdown().await;
        drop(client);
        leftovers.assert_none().await;
    }

    pub(crate) async fn create(&self) -> Sandbox {
        self.client.create().await.unwrap()
    }

    pub(crate) fn qemu_pid(&self, sandbox: &Sandbox) -> Option<u32> {
        self.client.host().unwrap().pid_of(sandbox.id())
    }
}

/// A platform without waiting clones, so that a test's machines are those that it asked for. The
/// test ends its sandboxes itself; what the test holds is dropped before the
/// platform is closed.
pub(crate) async fn with_platform(test: impl AsyncFnOnce(&Platform)) {
    with_pool(0, test).await;
}

pub(crate) async fn with_pool(clones: usize, test: impl AsyncFnOnce(&Platform)) {
    let platform = Platform::with_pool(clones).await;
    test(&platform).await;
    platform.close().await;
}

pub(crate) async fn open(folder: &Path, clones: usize) -> Result<Client, Error> {
    let config = EmbeddedConfig::in_folder(folder)
        .pool_size(clones)
        // What the shared images were made for, on whatever file system the test has them.
        .disk_backend(DiskChoice::Only(DiskBackend::Qcow2));
    Client::embedded(config).await
}

/// What a command printed; it must have gone well.
#[track_caller]
pub(crate) fn text(output: ExecOutput) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.into()).unwrap()
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "{what}: not within {LONG:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for the record to say that the sandbox's machine has ended.
pub(crate) async fn stopped(sandbox: &Sandbox) -> SandboxRecord {
    eventually("the sandbox stops", || async {
        let record = sandbox.info().await.unwrap();
        (record.state == SandboxState::Stopped).then_some(record)
    })
    .await
}

/// Whether a process of this machine lives.
pub(crate) fn lives(pid: u32) -> bool {
    // A zombie has ended.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

pub(crate) fn kill_9(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}
