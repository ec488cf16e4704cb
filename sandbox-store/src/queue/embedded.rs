//! A queue within one process.

use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{
    id::BuildId,
    queue::{Queue, QueueError, WAKE_UPS_MAX},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::timeout,
};

/// A [`Queue`] for the tasks of one process; it ends with it.
#[derive(Debug)]
pub struct EmbeddedQueue {
    send: mpsc::Sender<BuildId>,
    /// Waiters take turns, in the order in which they came; one that goes away gives up its turn.
    receive: Mutex<mpsc::Receiver<BuildId>>,
    closed: watch::Sender<bool>,
}

impl EmbeddedQueue {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let (send, receive) = mpsc::channel(WAKE_UPS_MAX);
        Self {
            send,
            receive: Mutex::new(receive),
            closed: watch::Sender::new(false),
        }
    }
}

impl Default for EmbeddedQueue {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn announce(&self, id: BuildId) -> Result<(), QueueError> {
        if *self.closed.borrow() {
            return Err(QueueError::Closed);
        }
        if self.send.try_send(id).is_err() {
            tracing::debug!(%id, "enough wake-ups wait already");
        }
        Ok(())
    }

    async fn next(&self, patience: Duration) -> Result<Option<BuildId>, QueueError> {
        let mut closed = self.closed.subscribe();
        let next = timeout(patience, async { self.receive.lock().await.recv().await });
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(QueueError::Closed),
            next = next => Ok(next.ok().flatten()),
        }
    }

    async fn close(&self) {
        self.closed.send_replace(true);
    }
}
