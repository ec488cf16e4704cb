//! Workers: each takes the build that has waited longest, runs it, and takes the next.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use crate::{
    audit::Actor,
    build::{BuildFilter, BuildPageRequest, BuildRecord, BuildStatus},
    engine::{Inner, builds::hold::Hold, errors},
    error::Error,
    id::SandboxId,
    lifecycle::build::claim,
    store::StoreError,
};

/// The pause after a look that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Builds that are looked at in one go: others may be quicker with the first.
const LOOKED_AT: u32 = 16;

/// Counts a worker for as long as it lives.
struct Present(Arc<Inner>);

impl Present {
    fn new(inner: Arc<Inner>) -> Self {
        inner.builds.workers.send_modify(|count| *count += 1);
        Self(inner)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.builds.workers.send_modify(|count| *count -= 1);
    }
}

impl Inner {
    /// Begins the work of the configured number of workers.
    pub(in crate::engine) fn start_builders(self: &Arc<Self>) -> Result<(), Error> {
        for _ in 0..self.config.build_workers {
            let present = Present::new(Arc::clone(self));
            let inner = Arc::clone(self);
            self.tasks.spawn(async move {
                let _present = present;
                inner.run_builds().await;
            })?;
        }
        Ok(())
    }

    /// Returns when no worker is left: they go when the engine is to stop.
    pub(in crate::engine) async fn builders_gone(&self) {
        let mut workers = self.builds.workers.subscribe();
        // The sender lives in `self`: this ends only with the value.
        let _ = workers.wait_for(|count| *count == 0).await;
    }

    async fn run_builds(self: &Arc<Self>) {
        while !self.stopping() {
            match self.take_build().await {
                Ok(Some(hold)) => {
                    let span = tracing::info_span!("build", build = %hold.record.id);
                    hold.run().instrument(span).await;
                }
                Ok(None) => self.wait_for_build().await,
                Err(error) => {
                    tracing::warn!(%error, "no build taken; trying again");
                    self.pause(FAILURE_PAUSE).await;
                }
            }
        }
    }

    /// Returns when there may be a build that waits. The queue wakes; that nobody is woken delays a
    /// build, and never loses it.
    async fn wait_for_build(&self) {
        let patience = self.config.build_glance;
        tokio::select! {
            biased;
            () = self.stopped() => {}
            woken = self.queue.next(patience) => {
                if let Err(error) = woken {
                    tracing::debug!(%error, "the queue wakes nobody");
                    self.pause(FAILURE_PAUSE).await;
                }
            }
            // A queue that waits longer than it was asked to delays nothing.
            () = self.clock.sleep(patience) => {}
        }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.stopped() => {}
            () = self.clock.sleep(pause) => {}
        }
    }

    /// Claims the build that has waited longest.
    async fn take_build(self: &Arc<Self>) -> Result<Option<Hold>, Error> {
        let filter = BuildFilter {
            statuses: vec![BuildStatus::Pending],
            ..BuildFilter::default()
        };
        let page = BuildPageRequest {
            after: None,
            limit: LOOKED_AT,
        };
        let waiting = self.store.list_builds(&filter, page).await;
        for record in waiting.map_err(errors::from_store)?.items {
            if let Some(hold) = self.claim_build(record).await? {
                return Ok(Some(hold));
            }
        }
        Ok(None)
    }

    async fn claim_build(self: &Arc<Self>, record: BuildRecord) -> Result<Option<Hold>, Error> {
        // Whoever reads the claim in the store finds that it is at work here.
        let Some(at_work) = self.builds.begin(record.id) else {
            return Ok(None);
        };
        let sandbox = SandboxId::from_uuid(self.clock.new_uuid());
        let stamp = self.stamp(&Actor::system("builder"));
        let Some(write) = claim(&record, sandbox, self.lease_end(), stamp) else {
            return Ok(None);
        };
        let claimed = write.record.clone();
        let ours = match self.store.update_build(write).await {
            Ok(()) => true,
            Err(StoreError::Conflict) => false,
            // The reply may have been lost with the claim written.
            Err(error) => match self.store.build(record.id).await {
                Ok(stored) => stored.as_ref() == Some(&claimed),
                Err(_) => return Err(errors::from_store(error)),
            },
        };
        Ok(ours.then(|| Hold::new(Arc::clone(self), claimed, at_work)))
    }
}
