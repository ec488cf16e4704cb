//! Connections: taking them, bounding them, and letting go of them at a stop.
//!
//! ```text
//!  accept ──► room? ──no──► 503, closed
//!               │ yes
//!               ▼
//!         HTTP/1.1 until the client goes, is silent for too long, or the daemon stops:
//!         then the request in flight is finished and the connection closed
//! ```

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{limits::Limits, metrics::Metrics};

/// The pause after the system could not give a connection: it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refused connections that are told so at a time; the others are just closed.
const REFUSALS_MAX: usize = 64;
/// For how long a refused client may take to read that it was.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
const HEADERS_MAX: usize = 100;
/// Silence on a connection after which the system asks whether the other end is there.
const KEEP_ALIVE_AFTER_SEC: u32 = 60;
/// For how long sent bytes may stay without a sign that they arrived, in milliseconds.
const UNACKNOWLEDGED_MS_MAX: u32 = 120_000;

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\n\
    content-length: 85\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\r\n\
    {\"error\":{\"code\":\"unavailable\",\"message\":\"too many connections; try again in a bit\"}}";

/// Serves until told to stop, then waits for requests in flight, at most for `stop_timeout`.
///
/// # Errors
/// None so far: what goes wrong with a connection ends that connection.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: Metrics,
    stopping: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let connections = TaskTracker::new();
    let dropping = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&room).try_acquire_owned() {
            Ok(permit) => {
                let connection = Connection {
                    stream,
                    router: router.clone(),
                    limits,
                    metrics: metrics.clone(),
                    stopping: stopping.clone(),
                    _permit: permit,
                };
                let dropping = dropping.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = connection.run() => {}
                        () = dropping.cancelled() => {}
                    }
                });
            }
            Err(_) => {
                metrics.refused().inc();
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    tokio::spawn(refuse(stream, permit));
                }
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(limits.stop_timeout, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("the daemon stops with requests in flight; their work goes on");
        dropping.cancel();
        connections.wait().await;
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    router: Router,
    limits: Limits,
    metrics: Metrics,
    stopping: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self) {
        let _counted = Counted::one(&self.metrics);
        prepare(&self.stream);
        let service = TowerToHyperService::new(self.router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(self.stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// Small answers go out at once, and the other end's silent death shows some time.
fn prepare(stream: &TcpStream) {
    // A system that knows one of these not serves all the same.
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &KEEP_ALIVE_AFTER_SEC);
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS_MAX);
}

async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let told = async {
        stream.writable().await?;
        stream.try_write(REFUSAL)?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
        // Closing with unread bytes would take the answer back.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // A client that does not listen has itself to blame.
    let _ = timeout(REFUSAL_TIME, told).await;
}

/// Counts a connection while it is open.
struct Counted(Metrics);

impl Counted {
    fn one(metrics: &Metrics) -> Self {
        metrics.connections().inc();
        Self(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections().dec();
    }
}

/// Raises the number of files that the process may hold open to the most it is allowed, and returns
/// that.
///
/// # Errors
/// When the system does not say or do so.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_announces_its_own_length() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
