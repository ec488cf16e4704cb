//! Connections whose other end has not shown who it is.
//!
//! They may take all places that there are, but never keep someone else out: where there is no place
//! left, the one that has been a stranger for longest gives up its own. Our clients say who they are
//! at once.

use std::{collections::VecDeque, sync::Arc};

use tokio::task::AbortHandle;

use super::Session;

/// The strangers of one listener, the oldest first.
pub(super) struct Strangers<D> {
    /// Some are known or gone since.
    queue: VecDeque<(Arc<Session<D>>, AbortHandle)>,
}

impl<D: Clone> Strangers<D> {
    pub(super) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
        }
    }

    /// Another has come in.
    pub(super) fn add(&mut self, session: Arc<Session<D>>, connection: AbortHandle) {
        // So it never holds more than came in while the oldest stranger may stay.
        while self.queue.front().is_some_and(|one| !is_stranger(one)) {
            self.queue.pop_front();
        }
        self.queue.push_back((session, connection));
    }

    /// Ends the connection of the oldest; false where there is none.
    pub(super) fn turn_out_the_oldest(&mut self) -> bool {
        while let Some(one) = self.queue.pop_front() {
            if is_stranger(&one) {
                one.1.abort();
                return true;
            }
        }
        false
    }
}

fn is_stranger<D: Clone>((session, connection): &(Arc<Session<D>>, AbortHandle)) -> bool {
    !connection.is_finished() && session.door().is_none()
}
