//! Destroying a sandbox: from every state, as often as anyone likes.
//!
//! ```text
//!  record ──► +destroy, generation + 1 ──► host.destroy ──► (what it cut short ends,
//!    │            │ in flight already           │            host.destroy again) ──► removed
//!    │ gone       ▼                             │ error
//!    ▼         join it                          ▼
//!  done, if it was destroyed           lease set to the next attempt: the reconciler's
//! ```
//!
//! Nothing here waits for a create, pause, resume or snapshot before ordering the machine's end, and
//! they never wait for a destroy: they can't wait for each other.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tracing::Instrument;

use crate::{
    audit::Actor,
    engine::{
        Engine, Inner, errors,
        flights::{Flight, Outcome, Pilot},
        lease::{Lease, Unfinished},
        observe::operation_span,
    },
    error::Error,
    host::HostError,
    id::{OperationId, SandboxId},
    lifecycle::Change,
    operation::{Operation, OperationKind, OperationStatus},
    planted::{Bug, planted},
    sandbox::SandboxRecord,
};

/// How often the store is asked about a destroy of another engine.
const POLL: Duration = Duration::from_millis(200);
/// Rounds of reading and deciding anew when others write the record at the same time.
const BEGIN_ATTEMPTS: u32 = 20;
/// The most rounds in which a host turns out to have a newer machine than the one just named.
const GENERATION_ATTEMPTS: u32 = 3;

enum Start {
    Gone,
    Wait(Flight),
    Poll(OperationId),
}

/// A destroy that this engine owns now.
pub(super) struct Begun {
    pub(super) record: SandboxRecord,
    pilot: Pilot,
    /// The operation that it cuts short.
    cut: Option<Flight>,
}

enum Decided {
    Ours(Box<Begun>, Flight),
    Theirs(Start),
}

impl Engine {
    /// Removes a sandbox and all it holds; see [`Api::destroy`](crate::api::Api::destroy).
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] where there never was one. An error from the host means that it
    /// is not done *yet*: the sandbox stays marked and the platform tries again by itself.
    pub async fn destroy(&self, id: SandboxId, actor: &Actor) -> Result<(), Error> {
        self.inner.destroy(id, actor).await
    }
}

impl Inner {
    pub(super) async fn destroy(
        self: &Arc<Self>,
        id: SandboxId,
        actor: &Actor,
    ) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        let inner = Arc::clone(self);
        let actor = actor.clone();
        self.tasks.spawn(async move {
            inner.run_destroy(id, actor, sender).await;
        })?;
        let start = receiver.await.unwrap_or_else(|_| {
            Err(Error::Unavailable(
                "the platform is shutting down".to_owned(),
            ))
        })?;
        match start {
            Start::Gone => Ok(()),
            Start::Wait(flight) => flight.wait().await.map(drop),
            Start::Poll(operation) => self.poll_destroy(operation).await,
        }
    }
}

impl Inner {
    async fn run_destroy(
        &self,
        id: SandboxId,
        actor: Actor,
        started: oneshot::Sender<Result<Start, Error>>,
    ) {
        match self.begin_destroy(id, &actor).await {
            Ok(Decided::Ours(begun, flight)) => {
                let _ = started.send(Ok(Start::Wait(flight)));
                self.drive_destroy(*begun, actor).await;
            }
            Ok(Decided::Theirs(start)) => {
                let _ = started.send(Ok(start));
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    }

    async fn begin_destroy(&self, id: SandboxId, actor: &Actor) -> Result<Decided, Error> {
        let mut last = Error::Conflict(id);
        for _ in 0..BEGIN_ATTEMPTS {
            let Some(record) = self.store.sandbox(id).await.map_err(errors::from_store)? else {
                return self.destroyed_before(id).await;
            };
            let destroy = record
                .operation
                .as_ref()
                .filter(|operation| operation.kind == OperationKind::Destroy);
            let begun = match destroy {
                Some(operation) => {
                    if let Some(flight) = self.flights.get(operation.id) {
                        return Ok(Decided::Theirs(Start::Wait(flight)));
                    }
                    let free = self.config.sole_owner || operation.lease_until <= self.now();
                    if !free {
                        return Ok(Decided::Theirs(Start::Poll(operation.id)));
                    }
                    self.adopt(&record, operation, actor).await
                }
                None => self.begin_on(&record, "it was asked for", actor).await,
            };
            match begun {
                Ok(Some((begun, flight))) => return Ok(Decided::Ours(Box::new(begun), flight)),
                Ok(None) => {}
                // The reply may have been lost with the write done; the next round shows it.
                Err(error) => {
                    last = error;
                    self.clock.sleep(self.config.backoff).await;
                }
            }
        }
        Err(last)
    }

    async fn destroyed_before(&self, id: SandboxId) -> Result<Decided, Error> {
        let last = self.store.last_operation_on(id).await;
        match last.map_err(errors::from_store)? {
            Some(operation) if operation.kind == OperationKind::Destroy => {
                Ok(Decided::Theirs(Start::Gone))
            }
            _ => Err(Error::SandboxNotFound(id)),
        }
    }

    /// Begins to destroy a record as it was read. `None` when it has changed since.
    pub(super) async fn begin_on(
        &self,
        record: &SandboxRecord,
        reason: &str,
        actor: &Actor,
    ) -> Result<Option<(Begun, Flight)>, Error> {
        let operation_id = OperationId::from_uuid(self.clock.new_uuid());
        let cut = record
            .operation
            .as_ref()
            .and_then(|operation| self.flights.get(operation.id));
        let Some((pilot, flight)) = self.flights.begin(operation_id) else {
            return Ok(None);
        };
        let change = Change::BeginDestroy {
            operation_id,
            lease_until: self.lease_end(),
            reason: reason.to_owned(),
        };
        let written = self.try_change(record, &change, actor).await;
        Ok(written.map_err(errors::from_store)?.map(|record| {
            if let Some(cut) = &cut {
                cut.cut();
            }
            let begun = Begun { record, pilot, cut };
            (begun, flight)
        }))
    }

    /// Takes up a destroy whose owner is gone. `None` when someone else was faster.
    pub(super) async fn adopt(
        &self,
        record: &SandboxRecord,
        operation: &Operation,
        actor: &Actor,
    ) -> Result<Option<(Begun, Flight)>, Error> {
        let Some((pilot, flight)) = self.flights.begin(operation.id) else {
            return Ok(None);
        };
        let change = Change::ExtendLease {
            lease_until: self.lease_end(),
            generation_min: 0,
        };
        let written = self.try_change(record, &change, actor).await;
        Ok(written.map_err(errors::from_store)?.map(|record| {
            let begun = Begun {
                record,
                pilot,
                cut: None,
            };
            (begun, flight)
        }))
    }

    /// Carries a destroy out to its end.
    pub(super) async fn drive_destroy(&self, begun: Begun, actor: Actor) {
        let Begun { record, pilot, cut } = begun;
        let span = operation_span(&record);
        let lease = Lease::new(self, actor, pilot.id(), record);
        let outcome = self.destroy_under(lease, cut).instrument(span).await;
        pilot.land(outcome);
    }

    async fn destroy_under(&self, mut lease: Lease<'_>, cut: Option<Flight>) -> Outcome {
        let error = match self.free(&mut lease, cut).await {
            Err(error) if !planted(Bug::DestroyNotAwaited) => error,
            _ => return self.finish_destroy(lease).await,
        };
        // The wish stands. The lease now says when the reconciler takes it up again.
        let id = lease.record.id;
        tracing::warn!(sandbox = %id, %error, "destroy not done; it is tried again");
        if let Err(error) = lease.extend_by(self.config.destroy_retry, 0).await {
            tracing::warn!(sandbox = %id, ?error, "lease not set");
        }
        self.nudge.notify_one();
        Err(errors::from_host(error))
    }

    async fn finish_destroy(&self, mut lease: Lease<'_>) -> Outcome {
        let record = lease.record.clone();
        match lease.finish(Change::DestroySucceeded).await {
            Ok(record) => Ok(record),
            // Two engines destroyed it, one wrote so.
            Err(Unfinished::EndedElsewhere(OperationStatus::Succeeded)) => Ok(record),
            Err(unfinished) => Err(unfinished.into_error(record.id)),
        }
    }

    /// Makes the host hold nothing of the sandbox.
    async fn free(&self, lease: &mut Lease<'_>, cut: Option<Flight>) -> Result<(), HostError> {
        self.free_once(lease).await?;
        let Some(cut) = cut.filter(|cut| !cut.ended()) else {
            return Ok(());
        };
        // The host refuses its orders from now on; its task is given time to see that, so that a
        // machine which slipped in between is found by the second order.
        let bound = self.config.destroy_timeout;
        lease
            .keep(async {
                tokio::select! {
                    biased;
                    _ = cut.wait() => {}
                    () = self.clock.sleep(bound) => {}
                }
            })
            .await;
        self.free_once(lease).await
    }

    async fn free_once(&self, lease: &mut Lease<'_>) -> Result<(), HostError> {
        let mut attempt = 1;
        loop {
            let (id, generation) = (lease.record.id, lease.record.generation);
            match lease.keep(self.order_destroy(id, generation)).await {
                // The store is behind its host, as after a restore from a backup.
                Err(HostError::StaleGeneration { present, .. })
                    if attempt < GENERATION_ATTEMPTS =>
                {
                    attempt += 1;
                    let above = present.saturating_add(1);
                    let raised = lease.extend_by(self.config.lease, above).await;
                    if let Err(error) = raised {
                        let text = format!("the generation was not raised: {error:?}");
                        return Err(HostError::Unavailable(text));
                    }
                }
                other => return other,
            }
        }
    }

    /// Orders a machine's end until it is done, is refused, or was repeated often enough.
    pub(super) async fn order_destroy(
        &self,
        id: SandboxId,
        generation: u64,
    ) -> Result<(), HostError> {
        let mut pause = self.config.backoff;
        let mut attempt = 1;
        loop {
            let done = tokio::select! {
                biased;
                done = self.host.destroy_sandbox(id, generation) => done,
                () = self.clock.sleep(self.config.destroy_timeout) => {
                    let bound = self.config.destroy_timeout.as_secs();
                    Err(HostError::Unavailable(format!("it gave no answer within {bound} s")))
                }
            };
            match done {
                Ok(()) => return Ok(()),
                Err(error @ HostError::StaleGeneration { .. }) => return Err(error),
                Err(error) if attempt >= self.config.order_attempts => return Err(error),
                Err(error) => {
                    tracing::warn!(sandbox = %id, %error, "destroy not done; trying again");
                }
            }
            attempt += 1;
            self.clock.sleep(pause).await;
            pause *= 2;
        }
    }

    /// Waits for a destroy that another engine has at work.
    async fn poll_destroy(&self, operation: OperationId) -> Result<(), Error> {
        let mut left = self.config.destroy_timeout + self.config.lease;
        loop {
            let found = self.store.operation(operation).await;
            match found.map_err(errors::from_store)?.map(|found| found.status) {
                Some(OperationStatus::Running) => {}
                Some(OperationStatus::Succeeded) => return Ok(()),
                Some(OperationStatus::Failed { error }) => return Err(error),
                None => return Err(Error::OperationNotFound(operation)),
            }
            if left.is_zero() || self.stopping() {
                return Err(Error::Unavailable(
                    "the sandbox is still being destroyed".to_owned(),
                ));
            }
            self.clock.sleep(POLL).await;
            left = left.saturating_sub(POLL);
        }
    }
}
