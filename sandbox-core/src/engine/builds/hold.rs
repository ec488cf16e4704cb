//! A build that a worker here has: its lease is kept, and every write of it is compare-and-set.

use std::{future::Future, pin::pin, sync::Arc};

use crate::{
    audit::Actor,
    build::{BuildRecord, BuildStatus, BuildStep},
    engine::{Inner, builds::AtWork, errors},
    error::Error,
    lifecycle::{Stamp, build::progress},
    store::{BuildWrite, StoreError},
};

/// Repetitions of a write that lost to another one, or whose reply was lost.
pub(super) const WRITE_ATTEMPTS: u32 = 6;

/// A build that is at work here.
pub(in crate::engine) struct Hold {
    pub(super) inner: Arc<Inner>,
    pub(super) actor: Actor,
    /// As it was last read or written.
    pub(super) record: BuildRecord,
    at_work: AtWork,
}

/// Why a build does not go on here, through no fault of its recipe.
#[derive(Debug)]
pub(super) enum Broken {
    /// Someone cancelled it, or holds it now.
    Elsewhere,
    /// This engine is to stop.
    Stopping,
    /// The platform failed.
    Failed(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Hold {
    pub(super) fn new(inner: Arc<Inner>, record: BuildRecord, at_work: AtWork) -> Self {
        Self {
            actor: Actor::system("builder"),
            inner,
            record,
            at_work,
        }
    }

    fn is_ours(&self, record: &BuildRecord) -> bool {
        record.status == BuildStatus::Running && record.attempt == self.record.attempt
    }

    /// Writes the build. `make` is asked again where the record has changed since.
    pub(super) async fn write(
        &mut self,
        make: impl Fn(&BuildRecord, Stamp) -> BuildWrite,
    ) -> Result<(), Broken> {
        let mut pause = self.inner.config.backoff;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let write = make(&self.record, self.inner.stamp(&self.actor));
            let next = write.record.clone();
            let error = match self.inner.store.update_build(write).await {
                Ok(()) => {
                    self.record = next;
                    self.inner.builds.tell_news();
                    return Ok(());
                }
                // A template's name; asking again changes nothing.
                Err(error @ StoreError::Duplicate) => return Err(errors::from_store(error).into()),
                Err(error) => error,
            };
            match self.inner.store.build(self.record.id).await {
                // The reply was lost: what was to be written stands there.
                Ok(Some(stored)) if stored == next => {
                    self.record = next;
                    return Ok(());
                }
                Ok(Some(stored)) if self.is_ours(&stored) => {
                    // Nobody else writes it, so that a conflict is about something that goes with it.
                    if matches!(error, StoreError::Conflict)
                        && stored.version == self.record.version
                    {
                        return Err(errors::from_store(error).into());
                    }
                    self.record = stored;
                }
                Ok(_) => return Err(Broken::Elsewhere),
                Err(_) => {}
            }
            if attempt >= WRITE_ATTEMPTS {
                return Err(errors::from_store(error).into());
            }
            self.inner.clock.sleep(pause).await;
            pause *= 2;
        }
    }

    /// Notes how far the build has come.
    pub(super) async fn progress(&mut self, number: u32, step: BuildStep) -> Result<(), Broken> {
        let inner = Arc::clone(&self.inner);
        self.write(|record, stamp| {
            progress(record, number, vec![step.clone()], inner.lease_end(), stamp)
        })
        .await
    }

    async fn renew(&mut self) -> Result<(), Broken> {
        let inner = Arc::clone(&self.inner);
        let number = self.record.current_step;
        self.write(|record, stamp| progress(record, number, Vec::new(), inner.lease_end(), stamp))
            .await
    }

    /// Does work while renewing the lease, until the build is to end.
    pub(super) async fn keep<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Broken> {
        let mut work = pin!(work);
        let renew_every = self.inner.config.lease / 3;
        let inner = Arc::clone(&self.inner);
        let end = Arc::clone(&self.at_work.end);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = end.told() => return Err(Broken::Elsewhere),
                () = inner.stopped() => return Err(Broken::Stopping),
                () = inner.clock.sleep(renew_every) => match self.renew().await {
                    Ok(()) => {}
                    // Others may take it for abandoned from then on.
                    Err(Broken::Failed(error))
                        if self.record.lease_until.is_some_and(|until| until > inner.now()) =>
                    {
                        tracing::warn!(build = %self.record.id, %error, "lease not renewed");
                    }
                    Err(broken) => return Err(broken),
                },
            }
        }
    }
}
