//! The number of a simulated host's report, and how to wait for a higher one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Counts changes. Whoever waits is woken in the order of asking, so that a run repeats: tokio's own
/// `watch` wakes in an order that it draws by lot.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    counts: Mutex<Counts>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Since the host's process started.
    sequence: u64,
    /// Since ever.
    changes: u64,
}

impl Sequence {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> u64 {
        self.lock().sequence
    }

    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    pub(super) fn bump(&self) {
        {
            let mut counts = self.lock();
            counts.sequence += 1;
            counts.changes += 1;
        }
        self.changed.notify_waiters();
    }

    /// The process has started anew.
    pub(super) fn reset(&self) {
        {
            let mut counts = self.lock();
            counts.sequence = 0;
            counts.changes += 1;
        }
        self.changed.notify_waiters();
    }

    /// Returns once there were more changes than this.
    pub(super) async fn changed_since(&self, seen: u64) {
        self.until(|counts| counts.changes != seen).await;
    }

    /// Returns once the sequence is beyond this.
    pub(super) async fn beyond(&self, seen: u64) {
        self.until(|counts| counts.sequence > seen).await;
    }

    async fn until(&self, holds: impl Fn(&Counts) -> bool) {
        loop {
            // Before the look: what changes in between wakes it.
            let changed = self.changed.notified();
            if holds(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}
