//! An agent in a temporary folder, that ends with its test.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "not every test target uses all of it"
)]
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sandbox_host::link::{client::GuestClient, protocol::Identity};
use tokio::sync::watch;

pub(crate) struct TestAgent {
    child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) client: GuestClient,
    /// Says that the machine is gone.
    pub(crate) gone: watch::Sender<Option<String>>,
}

impl TestAgent {
    pub(crate) async fn start() -> Self {
        let agent = Self::start_without_identity().await;
        agent.client.identify(identity()).await.unwrap();
        agent
    }

    pub(crate) async fn start_without_identity() -> Self {
        let folder = std::env::temp_dir().join(format!("agent-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let binary = folder.join("agent");
        std::fs::write(&binary, sandbox_host::agent_binary()).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        let child = Command::new(&binary)
            .arg("--listen")
            .arg(folder.join("socket"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (gone, not_running) = watch::channel(None);
        let client = GuestClient::unix(folder.join("socket"), not_running);
        client.wait_ready(Duration::from_secs(20)).await.unwrap();
        Self {
            child,
            folder,
            client,
            gone,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        // Its children come to it and have no terminal: they are found as its children.
        let tasks = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(tasks).unwrap_or_default();
        for pid in children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
        {
            let _ = nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::SIGKILL,
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        hostname: "test".into(),
        machine_id: [1; 16],
        entropy: vec![1; 32].into(),
        unix_time_us: 1_700_000_000_000_000,
        env: BTreeMap::from([("SANDBOX".to_owned(), "yes".to_owned())]),
    }
}
