//! A platform in memory, served over sockets, and a wire between that can be cut.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    engine::{Engine, EngineConfig, Parts},
    sim::{MemoryStore, SimClock, SimHost, SimQueue},
};
use sandbox_sdk::{
    Client, RemoteConfig,
    rpc::{Listener, Server},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub(crate) const KEY: &str = "a key for tests";

/// The whole platform in memory.
pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) host: SimHost,
    pub(crate) engine: Engine,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(SimClock::new());
        let host = SimHost::new(clock.clone());
        let store = Arc::new(MemoryStore::new());
        let parts = Parts {
            store: store.clone(),
            host: Arc::new(host.clone()),
            queue: Arc::new(SimQueue::new()),
            clock,
        };
        let engine = Engine::start(parts, EngineConfig::default()).await.unwrap();
        Self {
            store,
            host,
            engine,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn api(&self) -> Arc<dyn Api> {
        Arc::new(self.engine.api(Caller::admin(Actor::app())))
    }

    /// The platform without any connection.
    pub(crate) fn local(&self) -> Client {
        Client::from_api(self.api())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) async fn serve(&self, address: &str) -> Serving {
        Serving::begin(Server::new(self.api(), Some(KEY.to_owned())), address).await
    }

    pub(crate) async fn serve_unix(&self) -> Serving {
        self.serve(&format!("unix:{}", self.socket().display()))
            .await
    }
}

/// A server that was begun, and its address.
pub(crate) struct Serving {
    pub(crate) address: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Serving {
    pub(crate) async fn begin(server: Server, address: &str) -> Self {
        let listener = Listener::bind(address).await.unwrap();
        let address = listener.to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.serve(listener, stopped).await
        });
        Self {
            address,
            stop,
            task,
        }
    }

    pub(crate) async fn connect(&self) -> Client {
        connect(&self.address).await
    }

    /// Ends it, connections and all.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) async fn connect(address: &str) -> Client {
    Client::connect_with(RemoteConfig::new(address).key(KEY))
        .await
        .unwrap()
}

/// A wire to a unix socket that can be cut, or made to lose what comes back.
pub(crate) struct Wire {
    pub(crate) address: String,
    cuts: watch::Sender<u64>,
    deaf: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub(crate) fn to(world: &World) -> Self {
        let path = world.folder.path().join("wire");
        let address = format!("unix:{}", path.display());
        let listener = UnixListener::bind(path).unwrap();
        let target = world.socket();
        let (cuts, cut) = watch::channel(0);
        let deaf = Arc::new(AtomicBool::new(false));
        let is_deaf = Arc::clone(&deaf);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (mut cut, target) = (cut.clone(), target.clone());
                cut.mark_unchanged();
                let deaf = Arc::clone(&is_deaf);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.changed() => {}
                        () = carry(near, &target, &deaf) => {}
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            deaf,
            task,
        }
    }

    /// Ends all connections in the middle.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// From now on nothing comes back.
    pub(crate) fn lose_answers(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// The connections that lost answers end, and new ones are whole.
    pub(crate) fn mend(&self) {
        self.deaf.store(false, Ordering::SeqCst);
        self.cut();
    }
}

async fn carry(near: UnixStream, target: &Path, deaf: &AtomicBool) {
    let Ok(far) = UnixStream::connect(target).await else {
        return;
    };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let there = tokio::io::copy(&mut near_read, &mut far_write);
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
            if !deaf.load(Ordering::SeqCst) && near_write.write_all(&buffer[..count]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        _ = there => {}
        () = back => {}
    }
}

/// Asks again and again until it holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    const LONG: Duration = Duration::from_secs(20);
    let end = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
