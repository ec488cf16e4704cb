//! What wakes a worker up when there is a build to run.
//!
//! A queue is a bell and no book: which builds wait, in which order, and who has taken which, says
//! the [`Store`](crate::store::Store) alone. A wake-up that is lost delays a build until the next
//! worker looks by itself, and one that comes twice, late, or for a build that is long over finds
//! nothing to do. So a worker looks at the store when [`Queue::next`] returns, whatever it returned.
//!
//! ```text
//!   announce(id) ──► [ id, id, … ] ──► next() ──► one of those who wait, the longest first
//! ```
//!
//! [`WAKE_UPS_MAX`] of them wait at a time, and any above that are forgotten. The same contract test
//! runs over every implementation. *Never here:* a build's state, a claim on it, or anything else
//! that must not be lost.

use std::time::Duration;

use async_trait::async_trait;

use crate::id::BuildId;

/// How many wake-ups wait for a worker at most; any above that are forgotten. So many workers that
/// look at the store find whatever there is.
pub const WAKE_UPS_MAX: usize = 1024;

/// Why a queue could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// What keeps the queue does not answer for now.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
    /// It was closed on this side.
    #[error("the queue is closed")]
    Closed,
}

/// What wakes workers up.
///
/// Any number of tasks, in any number of processes that share what keeps the queue, may call it at
/// the same time.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Wakes up one worker for this build: one that waits now, or else the next that asks. It takes
    /// a few seconds at most, also when what keeps the queue is away.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] when it is not known whether anyone will be woken up; nothing
    /// needs to be undone. [`QueueError::Closed`] after [`Queue::close`].
    async fn announce(&self, id: BuildId) -> Result<(), QueueError>;

    /// The next wake-up, waiting for one for as long as `patience`; `None` once that has run out, or
    /// is about to. With no patience at all it takes what is there.
    ///
    /// A wake-up goes to one of those who wait, wherever they are, and to those first who have
    /// waited longest; wake-ups come in the order in which they were announced. A call that is given
    /// up on its way (its future dropped) takes no wake-up with it: another call gets it, in its turn
    /// or a little later.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] when what keeps the queue did not answer at the end of `patience`,
    /// and not before, so that asking again and again makes no busy loop; a short outage in between
    /// is no error. [`QueueError::Closed`] after [`Queue::close`], and from it, at once.
    async fn next(&self, patience: Duration) -> Result<Option<BuildId>, QueueError>;

    /// Ends all waits on this side and lets go of what they hold, within a few seconds. Wake-ups
    /// that nobody has taken stay for other processes, where there are any.
    async fn close(&self);
}
