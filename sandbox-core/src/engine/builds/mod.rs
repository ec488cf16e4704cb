//! Template builds: a queue of them, and workers that run them.
//!
//! ```text
//!  submit ──► store (pending) ──► queue: wake-up
//!                                    │ or a look now and then
//!                                    ▼
//!  worker: claim ──► sandbox ──► steps ──► start ──► healthcheck ──► save ──► publish
//!             │                    │ each: result kept as a layer, output into the log
//!             └── lease, renewed; cancelled, or lost ──► the sandbox goes, nothing is published
//! ```
//!
//! The store says which builds wait; the queue only wakes workers up. A build's sandbox is an ordinary
//! one that names its build: whoever dies, the reconciler destroys it when its build does not work in
//! it any more. The template becomes visible in the same write in which its build succeeds.

mod api;
mod care;
mod command;
mod copy;
mod hold;
mod layers;
mod log;
mod program;
mod publish;
mod read;
mod run;
mod submit;
mod worker;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use crate::id::BuildId;

/// The builds that this engine has at work.
#[derive(Debug, Default)]
pub(super) struct Builds {
    at_work: Arc<Mutex<BTreeMap<BuildId, Arc<End>>>>,
    /// Changes when a log or a build does.
    news: watch::Sender<u64>,
    /// Workers that are there.
    workers: watch::Sender<usize>,
}

/// How a build that is at work is told to end.
#[derive(Debug, Default)]
pub(super) struct End {
    told: std::sync::atomic::AtomicBool,
    notify: Notify,
}

impl End {
    /// Returns when the build is to end.
    pub(super) async fn told(&self) {
        loop {
            let notified = self.notify.notified();
            if self.told.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            notified.await;
        }
    }

    fn tell(&self) {
        self.told.store(true, std::sync::atomic::Ordering::Relaxed);
        self.notify.notify_waiters();
    }
}

/// A build is at work here for as long as this lives.
struct AtWork {
    id: BuildId,
    end: Arc<End>,
    at_work: Arc<Mutex<BTreeMap<BuildId, Arc<End>>>>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        lock(&self.at_work).remove(&self.id);
    }
}

type Ends = BTreeMap<BuildId, Arc<End>>;

fn lock(at_work: &Mutex<Ends>) -> MutexGuard<'_, Ends> {
    at_work.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Builds {
    /// Registers a build, before the write that claims it. `None` when it is at work here already.
    fn begin(&self, id: BuildId) -> Option<AtWork> {
        let mut at_work = lock(&self.at_work);
        if at_work.contains_key(&id) {
            return None;
        }
        let end = Arc::new(End::default());
        at_work.insert(id, Arc::clone(&end));
        Some(AtWork {
            id,
            end,
            at_work: Arc::clone(&self.at_work),
        })
    }

    /// Whether a build is at work here.
    pub(super) fn has(&self, id: BuildId) -> bool {
        lock(&self.at_work).contains_key(&id)
    }

    /// Tells a build that is at work here to end.
    fn end(&self, id: BuildId) {
        if let Some(end) = lock(&self.at_work).get(&id) {
            end.tell();
        }
        self.tell_news();
    }

    /// Changes when a log or a build does.
    fn news(&self) -> watch::Receiver<u64> {
        let mut news = self.news.subscribe();
        news.mark_unchanged();
        news
    }

    fn tell_news(&self) {
        self.news
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}
