//! Looking at builds, following their logs, and ending them.

use std::{sync::Arc, time::Duration};

use crate::{
    authorize::{Action, Resource},
    build::{
        BuildDetails, BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildRecord, BuildStatus,
        LogCursor, LogEntry, LogStream, StepLog,
    },
    caller::Caller,
    engine::{Engine, Inner, errors, rights, validate},
    error::Error,
    id::BuildId,
    lifecycle::build::cancel,
    store::StoreError,
};

/// Bytes of log in one answer.
const LOG_PIECE_BYTES: u32 = 512 * 1024;
/// How often a log is looked at that another engine writes.
const GLANCE: Duration = Duration::from_millis(500);
/// Rounds of reading and deciding anew when others write the record at the same time.
const WRITE_ATTEMPTS: u32 = 20;

impl Engine {
    pub(super) async fn build_details(
        &self,
        caller: &Caller,
        id: BuildId,
    ) -> Result<BuildDetails, Error> {
        rights::on_platform(caller, Action::Use, Resource::AllTeams)?;
        let inner = &self.inner;
        let record = inner.build_record(id).await?;
        let steps = inner.store.build_steps(id, record.attempt).await;
        let steps = steps.map_err(errors::from_store)?;
        let entries = inner.whole_log(id, record.attempt).await?;
        let printed = |step: u32, stream: LogStream| {
            let mut text = Vec::new();
            for entry in entries.iter().filter(|entry| entry.step == step) {
                let remark = entry.stream == LogStream::Note;
                if entry.stream == stream || (remark && stream == LogStream::Stderr) {
                    text.extend_from_slice(&entry.data);
                }
            }
            text
        };
        Ok(BuildDetails {
            steps: steps
                .into_iter()
                .map(|step| StepLog {
                    stdout: printed(step.step, LogStream::Stdout),
                    stderr: printed(step.step, LogStream::Stderr),
                    step,
                })
                .collect(),
            record,
        })
    }

    pub(super) async fn list_builds(
        &self,
        caller: &Caller,
        filter: BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, Error> {
        rights::on_platform(caller, Action::Use, Resource::AllTeams)?;
        validate::limit(page.limit)?;
        let listed = self.inner.store.list_builds(&filter, page).await;
        listed.map_err(errors::from_store)
    }

    pub(super) async fn cancel_build(
        &self,
        caller: &Caller,
        id: BuildId,
    ) -> Result<BuildRecord, Error> {
        rights::on_platform(caller, Action::Change, Resource::AllTeams)?;
        let inner = &self.inner;
        for _ in 0..WRITE_ATTEMPTS {
            let record = inner.build_record(id).await?;
            let Some(write) = cancel(&record, inner.stamp(&caller.actor)) else {
                return match record.status {
                    BuildStatus::Cancelled => Ok(record),
                    status => Err(Error::BuildEnded { id, status }),
                };
            };
            let cancelled = write.record.clone();
            match inner.store.update_build(write).await {
                Ok(()) => {
                    inner.builds.end(id);
                    // Its sandbox, where its worker is gone, is the reconciler's.
                    inner.nudge.notify_one();
                    return Ok(cancelled);
                }
                // Written by someone else, or by this with the reply lost: the next look tells.
                Err(StoreError::Conflict | StoreError::Unavailable(_)) => {}
                Err(error) => return Err(errors::from_store(error)),
            }
        }
        Err(Error::Unavailable(
            "the build changes all the time; try again".to_owned(),
        ))
    }

    pub(super) async fn follow_build(
        &self,
        caller: &Caller,
        id: BuildId,
        after: LogCursor,
        wait: Duration,
    ) -> Result<BuildLog, Error> {
        rights::on_platform(caller, Action::Use, Resource::AllTeams)?;
        let inner = Arc::clone(&self.inner);
        let mut left = wait.min(validate::WAIT_MAX);
        loop {
            let mut news = inner.builds.news();
            // The record first: what is written before a build ends is there when it says so.
            let record = inner.build_record(id).await?;
            let steps = inner.store.build_steps(id, record.attempt).await;
            let steps = steps.map_err(errors::from_store)?;
            let entries = inner.store.build_log(id, after, LOG_PIECE_BYTES).await;
            let entries = entries.map_err(errors::from_store)?;
            let ended = record.status.ended() && entries.is_empty();
            if ended || !entries.is_empty() || left.is_zero() || inner.stopping() {
                return Ok(BuildLog {
                    record,
                    steps,
                    entries,
                    ended,
                });
            }
            let pause = left.min(GLANCE);
            left -= pause;
            tokio::select! {
                biased;
                () = inner.stopped() => left = Duration::ZERO,
                _ = news.changed() => {}
                () = inner.clock.sleep(pause) => {}
            }
        }
    }
}

impl Inner {
    pub(super) async fn build_record(&self, id: BuildId) -> Result<BuildRecord, Error> {
        let found = self.store.build(id).await.map_err(errors::from_store)?;
        found.ok_or(Error::BuildNotFound(id))
    }

    /// All pieces of one attempt. Their number and size are bounded as they are written.
    async fn whole_log(&self, id: BuildId, attempt: u32) -> Result<Vec<LogEntry>, Error> {
        let mut all = Vec::new();
        let mut after = LogCursor::new(attempt, 0);
        loop {
            let part = self.store.build_log(id, after, LOG_PIECE_BYTES).await;
            let part = part.map_err(errors::from_store)?;
            let Some(last) = part.last() else {
                return Ok(all);
            };
            after = last.cursor;
            all.extend(part);
        }
    }
}
