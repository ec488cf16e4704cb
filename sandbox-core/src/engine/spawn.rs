//! The one place where tasks are spawned: work that must outlive whoever asked for it.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::AbortHandle};
use tracing::Instrument;

use crate::error::Error;

/// The tasks of one engine.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    list: Mutex<List>,
    running: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct List {
    closed: bool,
    next: u64,
    /// In the order of their beginning, so that a simulated crash ends them the same way each time.
    handles: BTreeMap<u64, AbortHandle>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the task off the list when it ends, also by a panic or an abort.
struct Listed {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut list = self.shared.lock();
        list.handles.remove(&self.number);
        self.shared.running.send_replace(list.handles.len());
    }
}

impl Tasks {
    /// Runs a future to its end, whatever becomes of the caller. What it logs is still told as the
    /// caller's, by the span that the caller is in.
    ///
    /// # Errors
    /// [`Error::Unavailable`] once the engine shuts down.
    pub(super) fn spawn(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        // The lock is held over the spawn, so that the task can't end before it is listed.
        let mut list = self.shared.lock();
        if list.closed {
            return Err(Error::Unavailable(
                "the platform is shutting down".to_owned(),
            ));
        }
        let number = list.next;
        list.next += 1;
        let listed = Listed {
            shared: Arc::clone(&self.shared),
            number,
        };
        let work = async move {
            let _listed = listed;
            future.await;
        };
        let task = tokio::spawn(work.in_current_span());
        list.handles.insert(number, task.abort_handle());
        self.shared.running.send_replace(list.handles.len());
        Ok(())
    }

    /// Refuses new tasks from now on.
    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
    }

    /// Returns when no task runs.
    pub(super) async fn idle(&self) {
        let mut running = self.shared.running.subscribe();
        // The sender lives in `self`: this ends only with the value.
        let _ = running.wait_for(|running| *running == 0).await;
    }

    /// Ends all tasks where they are.
    pub(super) fn abort(&self) {
        let handles: Vec<AbortHandle> = self.shared.lock().handles.values().cloned().collect();
        for handle in handles {
            handle.abort();
        }
    }
}
