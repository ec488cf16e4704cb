//! What the reconciler's rounds do about builds.

use std::sync::Arc;

use crate::{
    audit::Actor,
    build::{BuildFilter, BuildPageRequest, BuildRecord, BuildStatus},
    clock::Timestamp,
    engine::{Inner, errors, later},
    error::Error,
    lifecycle::build::abandon,
    sandbox::PageRequest,
    store::StoreError,
};

impl Inner {
    /// Until when a build that waits now waits.
    pub(super) fn waits_until(&self) -> Timestamp {
        later(self.now(), self.config.build_queue_timeout)
    }

    /// All builds that have not ended, by ID.
    pub(in crate::engine) async fn unended_builds(&self) -> Result<Vec<BuildRecord>, Error> {
        let filter = BuildFilter {
            statuses: vec![BuildStatus::Pending, BuildStatus::Running],
            ..BuildFilter::default()
        };
        let mut page = BuildPageRequest {
            after: None,
            limit: PageRequest::LIMIT_MAX,
        };
        let mut all = Vec::new();
        loop {
            let part = self.store.list_builds(&filter, page).await;
            let part = part.map_err(errors::from_store)?;
            all.extend(part.items);
            page.after = part.next;
            if page.after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Settles a build that nobody works on, if it still stands as it was planned on.
    pub(in crate::engine) async fn end_build(
        self: &Arc<Self>,
        record: &BuildRecord,
    ) -> Result<(), Error> {
        let stamp = self.stamp(&Actor::system("reconciler"));
        let write = abandon(record, self.waits_until(), stamp);
        let again = write.record.status == BuildStatus::Pending;
        match self.store.update_build(write).await {
            Ok(()) => {
                self.builds.tell_news();
                // Its sandbox is left over from now on.
                self.nudge.notify_one();
                if again && let Err(error) = self.queue.announce(record.id).await {
                    tracing::warn!(build = %record.id, %error, "no worker woken");
                }
                Ok(())
            }
            Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(errors::from_store(error)),
        }
    }

    /// Forgets builds that ended long ago, and uploads that no build wants.
    pub(in crate::engine) async fn sweep_builds(&self, now: Timestamp) {
        let before = |retention| {
            let retention = chrono::TimeDelta::from_std(retention).ok()?;
            now.checked_sub_signed(retention)
        };
        if let Some(before) = before(self.config.build_retention)
            && let Err(error) = self.store.remove_builds_finished_before(before).await
        {
            tracing::warn!(%error, "old builds not removed");
        }
        if let Some(before) = before(self.config.context_retention)
            && let Err(error) = self.store.remove_contexts_before(before).await
        {
            tracing::warn!(%error, "old uploads not removed");
        }
    }
}
