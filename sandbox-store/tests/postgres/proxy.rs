//! A network in between that fails where a test wants it to.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use crate::server::url;

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// The connection is lost within the next transaction, before its last statement.
    BeforeAudit,
    /// The connection is lost before the next commit reaches the server.
    BeforeCommit,
    /// The server has committed, and the connection is lost before it can say so.
    AfterCommit,
    /// Nothing gets through any more, and nobody is told.
    Silence,
}

pub(crate) struct Proxy {
    folder: TempDir,
    trouble: Arc<Mutex<Trouble>>,
    _serving: JoinSet<()>,
}

const SOCKET: &str = ".s.PGSQL.5432";

impl Proxy {
    pub(crate) fn before(server: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("px").tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let trouble = Arc::new(Mutex::new(Trouble::None));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, server.join(SOCKET), Arc::clone(&trouble)));
        Self {
            folder,
            trouble,
            _serving: serving,
        }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        url(self.folder.path(), database)
    }

    pub(crate) fn make(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }

    /// Whether the trouble has not struck yet.
    pub(crate) fn pending(&self) -> bool {
        *self.trouble.lock().unwrap() != Trouble::None
    }
}

async fn serve(listener: UnixListener, server: PathBuf, trouble: Arc<Mutex<Trouble>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if let Ok(server) = UnixStream::connect(&server).await {
            connections.spawn(pass(client, server, Arc::clone(&trouble)));
        }
    }
}

/// Which trouble strikes these bytes, if it does now. All but silence strike once.
fn strike(trouble: &Mutex<Trouble>, bytes: &[u8]) -> Trouble {
    let says = |words: &[u8]| bytes.windows(words.len()).any(|part| part == words);
    let mut trouble = trouble.lock().unwrap();
    let strikes = match *trouble {
        Trouble::None => false,
        Trouble::Silence => return Trouble::Silence,
        Trouble::BeforeAudit => says(b"audit_logs"),
        Trouble::BeforeCommit | Trouble::AfterCommit => says(b"COMMIT\0"),
    };
    if strikes {
        std::mem::replace(&mut trouble, Trouble::None)
    } else {
        Trouble::None
    }
}

async fn pass(mut client: UnixStream, mut server: UnixStream, trouble: Arc<Mutex<Trouble>>) {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &asked[..length];
                match strike(&trouble, bytes) {
                    Trouble::None => {}
                    Trouble::Silence => continue,
                    Trouble::BeforeAudit | Trouble::BeforeCommit => return,
                    Trouble::AfterCommit => {
                        server.write_all(bytes).await.unwrap();
                        assert!(server.read(&mut answered).await.unwrap() > 0);
                        return;
                    }
                }
                if server.write_all(bytes).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() { return }
            }
        }
    }
}
