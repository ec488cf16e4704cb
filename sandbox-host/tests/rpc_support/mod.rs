//! A simulated host behind a socket.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test program uses a part of it"
)]

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sandbox_core::{
    host::{Host, HostCreate},
    id::SandboxId,
    name::TemplateName,
    sim::{SimClock, SimHost},
    size::MachineSize,
    template::MINIMAL_TEMPLATE_ID,
};
use sandbox_host::rpc::{HostServer, Listener, RemoteHost, RemoteHostConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) host: SimHost,
    folder: TempDir,
}

/// A server that ends with this: its connections break off at once, as in a kill.
pub(crate) struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Serving {
    /// Kills it, and returns when nobody listens any more.
    pub(crate) async fn kill(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            host: SimHost::new(Arc::new(SimClock::new())),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("hostd.sock")
    }

    /// A server of its own, as after a restart.
    pub(crate) async fn serve(&self) -> Serving {
        self.serve_at(&format!("unix:{}", self.socket().display()), None)
            .await
            .0
    }

    pub(crate) async fn serve_at(&self, address: &str, secret: Option<&str>) -> (Serving, String) {
        let listener = Listener::bind(address).await.unwrap();
        let address = listener.to_string();
        let server = HostServer::new(Arc::new(self.host.clone()), secret.map(str::to_owned));
        server.check(&listener).unwrap();
        let serving = tokio::spawn(async move {
            server
                .serve(listener, std::future::pending())
                .await
                .unwrap();
        });
        (Serving(serving), address)
    }

    pub(crate) fn config(&self) -> RemoteHostConfig {
        RemoteHostConfig::new(format!("unix:{}", self.socket().display()))
    }

    pub(crate) fn remote(&self) -> RemoteHost {
        RemoteHost::new(self.config()).unwrap()
    }

    /// With little patience.
    pub(crate) fn hasty(&self, patience: Duration) -> RemoteHost {
        let mut config = self.config();
        config.patience = patience;
        RemoteHost::new(config).unwrap()
    }
}

pub(crate) fn id(number: u128) -> SandboxId {
    SandboxId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn order(number: u128, generation: u64) -> HostCreate {
    HostCreate {
        id: id(number),
        generation,
        template: TemplateName::default(),
        image: MINIMAL_TEMPLATE_ID,
        size: MachineSize::default(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
    }
}

/// Makes a sandbox directly.
pub(crate) async fn made(host: &SimHost, number: u128) -> SandboxId {
    host.create_sandbox(order(number, 1)).await.unwrap();
    id(number)
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let end = Instant::now() + LONG;
    while !check().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
