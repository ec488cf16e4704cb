//! A queue that does what it is told, and goes wrong as it is told.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    id::BuildId,
    queue::{Queue, QueueError, WAKE_UPS_MAX},
};

/// How often a waiter looks whether the queue is back.
const GLANCE: Duration = Duration::from_millis(100);

/// What becomes of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// It wakes somebody up.
    Arrives,
    /// It wakes nobody up, and nobody is told.
    IsLost,
    /// It wakes somebody up now, and somebody once more after a while.
    ComesTwice(Duration),
    /// It wakes somebody up after a while.
    IsLate(Duration),
    /// The announcer is told that the queue is unavailable. The wake-up arrives all the same, or not.
    Fails {
        /// Whether it arrives.
        arrives: bool,
    },
}

/// What goes wrong on the way to a queue. Asked at each call, in order: answers that come from a seed
/// make the same life each time.
pub trait QueueFaults: Send + Sync {
    /// What becomes of this announcement.
    fn announced(&self, id: BuildId) -> Announced {
        let _ = id;
        Announced::Arrives
    }

    /// Whether the queue can't be reached now.
    fn is_away(&self) -> bool {
        false
    }
}

/// Nothing goes wrong.
struct NoFaults;

impl QueueFaults for NoFaults {}

/// One end of a simulated queue.
#[derive(Clone)]
pub struct SimQueue {
    line: Arc<Line>,
    faults: Arc<dyn QueueFaults>,
    /// Of this end.
    closed: watch::Sender<bool>,
}

/// What all ends share. Waiters take turns at the receiver, in the order in which they came.
struct Line {
    send: mpsc::Sender<BuildId>,
    receive: Mutex<mpsc::Receiver<BuildId>>,
}

impl Line {
    fn push(&self, id: BuildId) {
        // A full queue forgets.
        let _ = self.send.try_send(id);
    }

    async fn pop(&self) -> Option<BuildId> {
        self.receive.lock().await.recv().await
    }
}

impl SimQueue {
    /// An empty queue where nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        let (send, receive) = mpsc::channel(WAKE_UPS_MAX);
        let receive = Mutex::new(receive);
        Self {
            line: Arc::new(Line { send, receive }),
            faults: Arc::new(NoFaults),
            closed: watch::Sender::new(false),
        }
    }

    /// Another end of this queue, as another process has it, with these faults on the way to it.
    #[must_use]
    pub fn reached_through(&self, faults: Arc<dyn QueueFaults>) -> Self {
        Self {
            line: Arc::clone(&self.line),
            faults,
            closed: watch::Sender::new(false),
        }
    }

    fn push_later(&self, id: BuildId, by: Duration) {
        let line = Arc::clone(&self.line);
        tokio::spawn(async move {
            sleep(by).await;
            line.push(id);
        });
    }

    async fn wait(&self, patience: Duration) -> Result<Option<BuildId>, QueueError> {
        let deadline = Instant::now() + patience;
        while self.faults.is_away() {
            if Instant::now() >= deadline {
                return Err(away());
            }
            sleep(GLANCE.min(deadline - Instant::now())).await;
        }
        match timeout_at(deadline, self.line.pop()).await {
            Ok(id) => Ok(id),
            Err(_) if self.faults.is_away() => Err(away()),
            Err(_) => Ok(None),
        }
    }
}

fn away() -> QueueError {
    QueueError::Unavailable("injected".to_owned())
}

impl Default for SimQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SimQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimQueue")
    }
}

#[async_trait]
impl Queue for SimQueue {
    async fn announce(&self, id: BuildId) -> Result<(), QueueError> {
        if *self.closed.borrow() {
            return Err(QueueError::Closed);
        }
        if self.faults.is_away() {
            return Err(away());
        }
        match self.faults.announced(id) {
            Announced::Arrives => self.line.push(id),
            Announced::IsLost => {}
            Announced::ComesTwice(by) => {
                self.line.push(id);
                self.push_later(id, by);
            }
            Announced::IsLate(by) => self.push_later(id, by),
            Announced::Fails { arrives } => {
                if arrives {
                    self.line.push(id);
                }
                return Err(away());
            }
        }
        Ok(())
    }

    async fn next(&self, patience: Duration) -> Result<Option<BuildId>, QueueError> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(QueueError::Closed),
            next = self.wait(patience) => next,
        }
    }

    async fn close(&self) {
        self.closed.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
