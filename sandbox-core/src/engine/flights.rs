//! Operations that this engine has at work, and how to wait for them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{error::Error, id::OperationId, sandbox::SandboxRecord};

/// How an operation ended; the record as it was last written.
pub(super) type Outcome = Result<SandboxRecord, Error>;

/// The operations in flight, by ID.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_id: Arc<Mutex<HashMap<OperationId, Flight>>>,
}

/// One operation at work. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    board: Arc<Board>,
}

/// Where an operation's outcome is told. Those who wait are woken in the order in which they came.
#[derive(Debug, Default)]
struct Board {
    outcome: Mutex<Option<Outcome>>,
    told: Notify,
    cut: AtomicBool,
}

/// The worker's end of a flight. However it is dropped, nobody waits for ever.
#[derive(Debug)]
pub(super) struct Pilot {
    id: OperationId,
    board: Arc<Board>,
    by_id: Arc<Mutex<HashMap<OperationId, Flight>>>,
}

impl Board {
    fn outcome(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, outcome: Outcome) {
        *self.outcome() = Some(outcome);
        self.told.notify_waiters();
    }
}

fn lock(
    by_id: &Mutex<HashMap<OperationId, Flight>>,
) -> MutexGuard<'_, HashMap<OperationId, Flight>> {
    by_id.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// Registers an operation. Comes before the write that begins it, so that whoever reads the
    /// operation in the store finds it here. `None` when it is at work here already.
    pub(super) fn begin(&self, id: OperationId) -> Option<(Pilot, Flight)> {
        let mut flights = lock(&self.by_id);
        if flights.contains_key(&id) {
            return None;
        }
        let board = Arc::new(Board::default());
        let flight = Flight {
            board: Arc::clone(&board),
        };
        flights.insert(id, flight.clone());
        let pilot = Pilot {
            id,
            board,
            by_id: Arc::clone(&self.by_id),
        };
        Some((pilot, flight))
    }

    pub(super) fn get(&self, id: OperationId) -> Option<Flight> {
        lock(&self.by_id).get(&id).cloned()
    }
}

impl Flight {
    /// Waits for the outcome.
    pub(super) async fn wait(&self) -> Outcome {
        loop {
            // Before the look: what is told in between wakes it.
            let told = self.board.told.notified();
            if let Some(outcome) = self.board.outcome().clone() {
                return outcome;
            }
            told.await;
        }
    }

    /// Whether it has ended.
    pub(super) fn ended(&self) -> bool {
        self.board.outcome().is_some()
    }

    /// Asks the worker not to try again.
    pub(super) fn cut(&self) {
        self.board.cut.store(true, Ordering::Relaxed);
    }
}

fn lost() -> Error {
    Error::Unavailable("the platform stopped before this was done; it is settled later".to_owned())
}

impl Pilot {
    pub(super) const fn id(&self) -> OperationId {
        self.id
    }

    /// Whether a destroy has cut this operation short.
    pub(super) fn is_cut(&self) -> bool {
        self.board.cut.load(Ordering::Relaxed)
    }

    /// Tells everyone who waits, and those who still come.
    pub(super) fn land(&self, outcome: Outcome) {
        self.board.tell(outcome);
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        lock(&self.by_id).remove(&self.id);
        if self.board.outcome().is_none() {
            self.board.tell(Err(lost()));
        }
    }
}
