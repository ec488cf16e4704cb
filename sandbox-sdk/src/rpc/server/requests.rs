//! Requests that change something, each done once under the ID that its client chose.
//!
//! ```text
//!   first time ──► runs on a task of its own ──► ended: outcome kept for a while ──► forgotten
//!   again      ──► waits for the same outcome ◄──┘                       (time, room, or told to)
//! ```

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use sandbox_core::error::Error;
use tokio::{sync::watch, time::Instant};
use tracing::Instrument;
use uuid::Uuid;

/// How long an outcome is kept: longer than a client goes on asking.
const KEPT_FOR: Duration = Duration::from_secs(120);
/// The most outcomes that are kept, and how many bytes of content in all of them.
const KEPT_MAX: usize = 16 * 1024;
const KEPT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The most requests at work.
const RUNNING_MAX: usize = 4096;

/// What came of a request, once something has.
pub(super) type Outcome<T> = watch::Receiver<Option<Result<T, Error>>>;

/// The requests that one server knows. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Requests {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    known: HashMap<Uuid, Entry>,
    /// In the order in which they ended. Some may have been forgotten since.
    ended: VecDeque<(Instant, Uuid)>,
    ended_count: usize,
    ended_bytes: usize,
}

struct Entry {
    /// An [`Outcome`] of the request's own type.
    outcome: Box<dyn Any + Send>,
    /// How much content it keeps; absent while the request is at work.
    ended_bytes: Option<usize>,
}

impl Requests {
    /// Does `work` unless this request is known, and gives its outcome, come or to come.
    pub(super) fn once<T, F>(
        &self,
        request: Uuid,
        bytes: fn(&T) -> usize,
        work: impl FnOnce() -> F,
    ) -> Result<Outcome<T>, Error>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut state = self.lock();
        state.prune(Instant::now());
        if state.known.contains_key(&request) {
            return state.outcome(request);
        }
        if state.known.len() - state.ended_count >= RUNNING_MAX {
            return Err(Error::Unavailable(format!(
                "{RUNNING_MAX} requests are at work already; try again later"
            )));
        }
        let (sender, outcome) = watch::channel(None);
        state.known.insert(
            request,
            Entry {
                outcome: Box::new(outcome.clone()),
                ended_bytes: None,
            },
        );
        drop(state);
        let work = work();
        let requests = self.clone();
        let work = async move {
            let result = AssertUnwindSafe(work).catch_unwind().await;
            let result = result.unwrap_or_else(|_| {
                Err(Error::Internal("the request ended in a panic".to_owned()))
            });
            let bytes = result.as_ref().map_or(0, bytes);
            sender.send_replace(Some(result));
            requests.lock().end(request, bytes, Instant::now());
        };
        // It is told as the request's that began it, also where others wait for it too.
        tokio::spawn(work.in_current_span());
        Ok(outcome)
    }

    /// The outcome, come or to come, of a request that was made before.
    pub(super) fn find<T: Clone + 'static>(&self, request: Uuid) -> Result<Outcome<T>, Error> {
        self.lock().outcome(request)
    }

    /// Makes room where the outcome is not needed any more. A request at work goes on.
    pub(super) fn forget(&self, request: Uuid) {
        let mut state = self.lock();
        if state
            .known
            .get(&request)
            .is_some_and(|entry| entry.ended_bytes.is_some())
        {
            state.remove(request);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn outcome<T: Clone + 'static>(&self, request: Uuid) -> Result<Outcome<T>, Error> {
        let Some(entry) = self.known.get(&request) else {
            return Err(Error::Unavailable(
                "what came of this request is not known any more; it may have gone well".to_owned(),
            ));
        };
        let outcome = entry.outcome.downcast_ref::<Outcome<T>>();
        outcome.cloned().ok_or_else(|| {
            Error::InvalidRequest("this request ID was used for a request of another kind".into())
        })
    }

    fn end(&mut self, request: Uuid, bytes: usize, now: Instant) {
        if let Some(entry) = self.known.get_mut(&request) {
            entry.ended_bytes = Some(bytes);
            self.ended_count += 1;
            self.ended_bytes += bytes;
            self.ended.push_back((now, request));
        }
        self.prune(now);
    }

    fn remove(&mut self, request: Uuid) {
        if let Some(bytes) = self
            .known
            .remove(&request)
            .and_then(|entry| entry.ended_bytes)
        {
            self.ended_count -= 1;
            self.ended_bytes -= bytes;
        }
    }

    /// Forgets what is old, and the oldest of what is too much.
    fn prune(&mut self, now: Instant) {
        while let Some((ended_at, request)) = self.ended.front().copied() {
            let is_old = now.saturating_duration_since(ended_at) >= KEPT_FOR;
            let is_forgotten = !self.known.contains_key(&request);
            let too_much = self.ended_count > KEPT_MAX || self.ended_bytes > KEPT_BYTES_MAX;
            // The newest stays whatever its size: someone is about to fetch it.
            if !(is_old || is_forgotten || (too_much && self.ended.len() > 1)) {
                return;
            }
            self.ended.pop_front();
            self.remove(request);
        }
    }
}

/// Waits for an outcome, at most so long.
pub(super) async fn within<T: Clone>(
    mut outcome: Outcome<T>,
    limit: Duration,
) -> Option<Result<T, Error>> {
    tokio::time::timeout(limit, wait(&mut outcome)).await.ok()
}

/// Waits for an outcome.
pub(super) async fn wait<T: Clone>(outcome: &mut Outcome<T>) -> Result<T, Error> {
    let gone = || Error::Internal("a request ended without an outcome".to_owned());
    match outcome.wait_for(Option::is_some).await {
        Ok(result) => result.clone().unwrap_or_else(|| Err(gone())),
        Err(_) => Err(gone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const NOTHING: fn(&u32) -> usize = |_| 0;

    #[tokio::test]
    async fn trap_38_a_request_is_done_once_whoever_asks_again_and_when() {
        let requests = Requests::default();
        let done = Arc::new(AtomicU32::new(0));
        let id = Uuid::now_v7();
        for _ in 0..5 {
            let done = Arc::clone(&done);
            let mut outcome = requests
                .once(id, NOTHING, || async move {
                    tokio::task::yield_now().await;
                    Ok(done.fetch_add(1, Ordering::SeqCst) + 1)
                })
                .unwrap();
            assert_eq!(wait(&mut outcome).await, Ok(1));
        }
        assert_eq!(done.load(Ordering::SeqCst), 1);
        let other: Result<Outcome<String>, _> = requests.find(id);
        assert!(matches!(other, Err(Error::InvalidRequest(_))));
    }

    #[tokio::test]
    async fn r15_a_request_goes_on_when_nobody_waits_and_a_panic_is_its_outcome() {
        let requests = Requests::default();
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        let id = Uuid::now_v7();
        drop(requests.once(id, NOTHING, || async move {
            held.await.unwrap();
            Ok(7)
        }));
        release.send(()).unwrap();
        assert_eq!(wait(&mut requests.find::<u32>(id).unwrap()).await, Ok(7));

        let id = Uuid::now_v7();
        let mut outcome = requests
            .once(id, NOTHING, || async { panic!("as the test wants it") })
            .unwrap();
        assert!(matches!(wait(&mut outcome).await, Err(Error::Internal(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_are_kept_for_a_while_and_within_bounds() {
        let requests = Requests::default();
        let ended = async |bytes: fn(&u32) -> usize| {
            let id = Uuid::now_v7();
            let mut outcome = requests.once(id, bytes, || async { Ok(1) }).unwrap();
            wait(&mut outcome).await.unwrap();
            tokio::task::yield_now().await;
            id
        };
        let knows = |id| requests.find::<u32>(id).is_ok();

        let old = ended(NOTHING).await;
        assert!(knows(old));
        tokio::time::sleep(KEPT_FOR).await;
        let large = ended(|_| KEPT_BYTES_MAX).await;
        assert!(!knows(old) && knows(large));
        let next = ended(|_| 1).await;
        assert!(!knows(large) && knows(next));
        requests.forget(next);
        assert!(!knows(next));
        assert_eq!(requests.lock().ended_bytes, 0);
        for _ in 0..=KEPT_MAX {
            ended(NOTHING).await;
        }
        assert_eq!(requests.lock().known.len(), KEPT_MAX);
    }
}
