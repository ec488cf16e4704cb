//! Owning an operation: its lease is renewed while work goes on, and its end is written once.

use std::{future::Future, pin::pin, time::Duration};

use crate::{
    audit::Actor,
    clock::Timestamp,
    engine::{Inner, errors, later},
    error::Error,
    id::OperationId,
    lifecycle::{Change, Transition, transition},
    operation::OperationStatus,
    sandbox::SandboxRecord,
    store::{SandboxWrite, StoreError},
};

/// Repetitions of a write that lost to another one, or whose reply was lost.
const WRITE_ATTEMPTS: u32 = 6;

/// An operation that this engine owns, with its record as it was last read or written.
pub(super) struct Lease<'a> {
    inner: &'a Inner,
    actor: Actor,
    operation_id: OperationId,
    pub(super) record: SandboxRecord,
    /// The generation that is known to be this owner's. Whoever takes over an operation that is not
    /// to be done twice goes above it; then it is not ours any more.
    generation: u64,
    /// What was to be written last, and nobody said that it was: found in the store, it is ours.
    tried: Option<Box<SandboxRecord>>,
}

/// Why an operation's end could not be written by its owner.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// Someone else has ended it, so.
    EndedElsewhere(OperationStatus),
    /// The store failed.
    Store(Error),
}

impl<'a> Lease<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        actor: Actor,
        operation_id: OperationId,
        record: SandboxRecord,
    ) -> Self {
        Self {
            inner,
            actor,
            operation_id,
            generation: record.generation,
            tried: None,
            record,
        }
    }

    fn is_ours(&self, record: &SandboxRecord) -> bool {
        record
            .operation
            .as_ref()
            .is_some_and(|operation| operation.id == self.operation_id)
            && (record.generation <= self.generation || self.tried.as_deref() == Some(record))
    }

    /// So the record stands, by our own doing.
    fn holds(&mut self, record: SandboxRecord) {
        self.generation = self.generation.max(record.generation);
        self.record = record;
    }

    /// Does work while renewing the lease. A lease that is lost meanwhile shows at the end.
    pub(super) async fn keep<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let renew_every = self.inner.config.lease / 3;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.inner.clock.sleep(renew_every) => {
                    let end = self.inner.lease_end();
                    if let Err(error) = self.extend(end, 0).await {
                        tracing::warn!(sandbox = %self.record.id, ?error, "lease not renewed");
                    }
                }
            }
        }
    }

    /// Moves the end of the lease to so much after now; the generation goes up to at least this.
    pub(super) async fn extend_by(
        &mut self,
        by: Duration,
        generation_min: u64,
    ) -> Result<(), Unfinished> {
        let end = later(self.inner.now(), by);
        self.extend(end, generation_min).await
    }

    async fn extend(
        &mut self,
        lease_until: Timestamp,
        generation_min: u64,
    ) -> Result<(), Unfinished> {
        self.write(&Change::ExtendLease {
            lease_until,
            generation_min,
        })
        .await
    }

    /// Ends the operation and returns the record as it is then, or as it last was.
    pub(super) async fn finish(&mut self, change: Change) -> Result<SandboxRecord, Unfinished> {
        let inner = self.inner;
        let operation = self.record.operation.clone();
        let operation = operation.filter(|operation| operation.id == self.operation_id);
        let ended = |status: &OperationStatus| {
            if let Some(operation) = &operation {
                inner.observer.ended(operation, status, inner.now());
            }
        };
        let wanted = change.status();
        match self.write(&change).await {
            Ok(()) => ended(&wanted),
            Err(Unfinished::EndedElsewhere(status)) => {
                ended(&status);
                // Where a reply was lost, what was to be written stands there.
                if status != wanted {
                    return Err(Unfinished::EndedElsewhere(status));
                }
            }
            Err(other) => return Err(other),
        }
        self.inner.admissions.forget(self.record.id);
        // While it was in flight a round has left the sandbox alone, and may have seen what its machine
        // came to since. There may be a deadline by now, too, or a template without users.
        self.inner.nudge.notify_one();
        Ok(self.record.clone())
    }

    async fn write(&mut self, change: &Change) -> Result<(), Unfinished> {
        let mut pause = self.inner.config.backoff;
        let mut attempt = 0;
        loop {
            attempt += 1;
            // What turned out to be someone else's is not written to, whatever it allows.
            let written = match self.is_ours(&self.record) {
                true => self.try_write(change).await,
                false => Err(StoreError::Conflict),
            };
            let error = match written {
                Ok(()) => return Ok(()),
                Err(StoreError::Conflict) => {
                    match self.reread().await {
                        Ok(()) => {}
                        Err(Unfinished::Store(error)) if attempt < WRITE_ATTEMPTS => {
                            tracing::warn!(%error, "record not read; trying again");
                        }
                        Err(other) => return Err(other),
                    }
                    Error::Conflict(self.record.id)
                }
                Err(error) => errors::from_store(error),
            };
            if attempt >= WRITE_ATTEMPTS {
                return Err(Unfinished::Store(error));
            }
            self.inner.clock.sleep(pause).await;
            pause *= 2;
        }
    }

    async fn try_write(&mut self, change: &Change) -> Result<(), StoreError> {
        let stamp = self.inner.stamp(&self.actor);
        match transition(&self.record, change, stamp) {
            Ok(Transition::Write(write)) => {
                self.tried = Some(Box::new(write.record.clone()));
                self.inner.store.update_sandbox(*write).await?;
                if let Some(written) = self.tried.take() {
                    self.holds(*written);
                }
                Ok(())
            }
            Ok(Transition::Remove(removal)) => {
                let (id, version) = (self.record.id, self.record.version);
                self.inner
                    .store
                    .remove_sandbox(id, version, removal.operation, removal.audit)
                    .await
            }
            Ok(Transition::Already(_)) => Ok(()),
            Err(denied) => Err(StoreError::Internal(denied.to_string())),
        }
    }

    /// Reads the record again after it was changed under this lease.
    async fn reread(&mut self) -> Result<(), Unfinished> {
        let failed = |error| Unfinished::Store(errors::from_store(error));
        let current = self.inner.store.sandbox(self.record.id).await;
        match current.map_err(failed)? {
            Some(record) if self.is_ours(&record) => {
                self.holds(record);
                return Ok(());
            }
            Some(record) => self.record = record,
            None => {}
        }
        let operation = self.inner.store.operation(self.operation_id).await;
        let status = operation.map_err(failed)?.map(|operation| operation.status);
        Err(Unfinished::EndedElsewhere(status.unwrap_or(
            OperationStatus::Failed {
                error: Error::Conflict(self.record.id),
            },
        )))
    }
}

impl Inner {
    /// Writes a change of a record that was read just now, once. `None` when it was void: someone
    /// else was faster, or it is not legal any more.
    pub(super) async fn try_change(
        &self,
        record: &SandboxRecord,
        change: &Change,
        actor: &Actor,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let Ok(Transition::Write(write)) = transition(record, change, self.stamp(actor)) else {
            return Ok(None);
        };
        let written = write.record.clone();
        match self.update(*write).await {
            Ok(()) => Ok(Some(written)),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a change that may be the end of what the guest may be asked: from here on until it is
    /// written, and after it, no earlier word that the sandbox runs counts.
    pub(super) async fn update(&self, write: SandboxWrite) -> Result<(), StoreError> {
        let _shut = self.admissions.shut(write.record.id);
        self.store.update_sandbox(write).await
    }
}
