//! Unix sockets in a folder whose path may be longer than a socket's may be.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::UnixStream;

use crate::link::client::Connector;

/// An open folder. Its sockets are reached through the descriptor, by a path that is always short.
#[derive(Debug, Clone)]
pub(crate) struct SocketFolder(Arc<File>);

impl SocketFolder {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(folder)?;
        Ok(Self(Arc::new(file)))
    }

    /// A path to a socket, good as long as this lives.
    pub(crate) fn path(&self, socket: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{socket}", self.0.as_raw_fd()))
    }

    /// What connects to a socket of this folder.
    pub(crate) fn connector(&self, socket: &'static str) -> Connector {
        let folder = self.clone();
        Arc::new(move || {
            let folder = folder.clone();
            Box::pin(async move { UnixStream::connect(folder.path(socket)).await })
        })
    }
}
