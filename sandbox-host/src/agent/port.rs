//! The virtio-serial port as a stream.
//!
//! While no host has the other end open, `poll` reports a hang-up and reads give 0. tokio takes a
//! hang-up as final, so the port is watched by an epoll of its own (edge-triggered), and tokio
//! watches that.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll, ready},
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
        stat::Mode,
    },
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use super::sys;
use crate::link::protocol::PORT_NAME;

const PAGE_BYTES: usize = 4096;

/// The device of the port with our name, if it is there yet.
pub(crate) fn find() -> Option<PathBuf> {
    for port in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Some(PathBuf::from("/dev").join(port.file_name()));
        }
    }
    None
}

/// See the module. One task reads and writes it.
pub(crate) struct PortStream {
    port: OwnedFd,
    watch: AsyncFd<OwnedFd>,
}

impl PortStream {
    pub(crate) fn open(device: &std::path::Path) -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Self::new(nix::fcntl::open(device, flags, Mode::empty())?)
    }

    fn new(port: OwnedFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let events =
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLET;
        epoll.add(&port, EpollEvent::new(events, 0))?;
        let watch = sys::watch_reads(epoll.0)?;
        Ok(Self { port, watch })
    }

    /// Waits until a host has the other end open.
    pub(crate) async fn host_connected(&self) -> io::Result<()> {
        loop {
            if !self.is_hung_up() {
                return Ok(());
            }
            let mut edge = self.watch.readable().await?;
            self.take_edge();
            edge.clear_ready();
            if !self.is_hung_up() {
                return Ok(());
            }
        }
    }

    fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.port.as_fd(), PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::ZERO).is_ok()
            && polled[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    /// Empties the inner epoll, so that its next event is an edge of it too.
    fn take_edge(&self) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: writes at most one event to the address given.
        unsafe {
            use std::os::fd::AsRawFd;
            libc::epoll_wait(self.watch.get_ref().as_raw_fd(), &raw mut event, 1, 0);
        }
    }

    /// Waits for the next edge. Reading and writing share it, so one that takes it for itself wakes
    /// the task again for the other.
    fn poll_edge(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut edge = ready!(self.watch.poll_read_ready(context))?;
        self.take_edge();
        edge.clear_ready();
        context.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            // A port gives a page at a time, whatever it is asked for: initializing the rest of a
            // large buffer for each would take most of the time.
            let wanted = buffer.remaining().min(PAGE_BYTES);
            match nix::unistd::read(&self.port, buffer.initialize_unfilled_to(wanted)) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(nix::Error::EAGAIN) => ready!(self.poll_edge(context))?,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match nix::unistd::write(&self.port, data) {
                Ok(count) => return Poll::Ready(Ok(count)),
                // A port without a host takes nothing and says only that it would block.
                Err(nix::Error::EAGAIN) if self.is_hung_up() => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Err(nix::Error::EAGAIN) => ready!(self.poll_edge(context))?,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A socket pair behaves as a port does, but that its hang-up is for good.
    #[tokio::test]
    async fn both_directions_move_under_load_and_a_hang_up_shows() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut port = PortStream::new(ours.into()).unwrap();
        let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        let (mut their_read, mut their_write) = theirs.into_split();
        const BYTES: usize = 3_000_000;
        let sender = tokio::spawn(async move {
            their_write.write_all(&vec![7; BYTES]).await.unwrap();
            their_write
        });
        let receiver = tokio::spawn(async move {
            let mut got = vec![0; BYTES];
            their_read.read_exact(&mut got).await.unwrap();
            assert!(got.iter().all(|byte| *byte == 9));
            their_read
        });
        port.host_connected().await.unwrap();
        let mut got = vec![0; BYTES];
        port.read_exact(&mut got).await.unwrap();
        assert!(got.iter().all(|byte| *byte == 7));
        port.write_all(&vec![9; BYTES]).await.unwrap();
        let ends = (sender.await.unwrap(), receiver.await.unwrap());
        assert!(!port.is_hung_up());
        drop(ends);
        assert_eq!(port.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(port.is_hung_up());
    }
}
