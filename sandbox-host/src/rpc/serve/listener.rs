//! Where clients come in.

use std::{
    fmt, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use sandbox_core::wire::Address;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream},
};

const BACKLOG: u32 = 1024;

/// An open door for clients. A unix socket is removed from the file system when it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Unix {
        listener: UnixListener,
        _file: RemoveOnDrop,
    },
    Tcp(TcpListener),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Listener {
    /// Opens `unix:/path/to/socket` or `tcp:HOST:PORT`; port 0 takes any that is free, which
    /// `to_string` then tells. A unix socket is for its owner alone (mode 0600). One that a dead
    /// process left behind is replaced.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is none, `AddrInUse` where someone listens, and the
    /// system's own.
    pub async fn bind(address: &str) -> io::Result<Self> {
        let address: Address = address
            .parse()
            .map_err(|error: sandbox_core::error::Error| {
                io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
            })?;
        match address {
            Address::Unix(path) => Self::unix(&path).await,
            Address::Tcp(place) => Self::tcp(&place).await,
        }
    }

    async fn unix(path: &Path) -> io::Result<Self> {
        let told =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            // A connection to an ordinary file is refused too, and that is not ours to remove.
            if !metadata.file_type().is_socket() {
                return Err(told(io::Error::other("it is there, and is no socket")));
            }
            match UnixStream::connect(path).await {
                Ok(_) => {
                    let problem = format!("{}: another process listens there", path.display());
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
                }
                // Nobody listens: what a dead process left behind.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(told)?;
                }
                Err(error) => return Err(told(error)),
            }
        }
        let socket = UnixSocket::new_stream()?;
        socket.bind(path).map_err(told)?;
        let file = RemoveOnDrop::new(path).map_err(told)?;
        // Before it listens, nobody can connect.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(told)?;
        let listener = socket.listen(BACKLOG).map_err(told)?;
        Ok(Self {
            address: Address::Unix(path.to_owned()),
            socket: Socket::Unix {
                listener,
                _file: file,
            },
        })
    }

    async fn tcp(place: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(place)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("{place}: {error}")))?;
        Ok(Self {
            address: Address::Tcp(listener.local_addr()?.to_string()),
            socket: Socket::Tcp(listener),
        })
    }

    /// Whether the system itself keeps others out.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self.socket, Socket::Unix { .. })
    }

    /// Whether those who come in over TCP do so from this machine alone. True of a unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.socket {
            Socket::Unix { .. } => true,
            Socket::Tcp(listener) => listener
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// Removes a socket from the file system, unless another has taken its place.
#[derive(Debug)]
struct RemoveOnDrop {
    path: PathBuf,
    file: (u64, u64),
}

impl RemoveOnDrop {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: identity(path)?,
        })
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // A socket that stays is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A client's byte stream.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
