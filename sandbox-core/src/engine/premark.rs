//! What pause, resume and snapshot have in common: marked before the order leaves, ended by what
//! the host says.
//!
//! ```text
//!  record ──► paused, +operation ──► host order ──ok──► as ordered, operation succeeded
//!    │ so it stands already              │ error
//!    │ another operation                 ▼
//!    ▼                              the host's report ──► as it says, operation failed
//!  host asked, or joined, or refused     │ no answer, or still at work
//!                                        ▼
//!                          left in flight: the reconciler's, when its lease runs out
//! ```
//!
//! The mark comes first so that no report taken while the host has the machine out of its live map
//! can make the record `stopped`. Never here: `running` by guess.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tracing::Instrument;

use crate::{
    audit::Actor,
    engine::{
        Inner, errors,
        flights::{Flight, Outcome, Pilot},
        lease::Lease,
        observe::operation_span,
    },
    error::Error,
    host::{HostError, HostOrder},
    id::{OperationId, SandboxId},
    lifecycle::{Change, Standing, Transition, transition},
    operation::{OperationKind, OperationStatus},
    planted::{Bug, planted},
    reconcile::standing,
    sandbox::{SandboxRecord, SandboxState},
    store::{StoreError, TemplateChange},
    template::TemplateRecord,
};

/// How often the store is asked about an operation of another engine.
const POLL: Duration = Duration::from_millis(200);
/// Rounds of reading and deciding anew when others write the record at the same time.
const BEGIN_ATTEMPTS: u32 = 20;

/// How a request for an operation was met.
#[derive(Debug)]
pub(super) enum Start {
    /// So it stands already, by the record.
    Done(Box<SandboxRecord>),
    /// It is at work here.
    Wait(OperationId, Flight),
    /// Another engine is at it.
    Poll(OperationId),
}

/// A record that was marked.
#[derive(Debug)]
pub(super) struct Marked {
    /// As it was written.
    pub(super) record: SandboxRecord,
    /// How it stood before.
    pub(super) before: SandboxState,
    /// The template that was written with it.
    pub(super) template: Option<TemplateRecord>,
}

enum Begun {
    Ours(Box<Marked>),
    Theirs(Start),
}

impl Marked {
    /// What the host is told: the version of the mark numbers the order.
    pub(super) const fn order(&self) -> HostOrder {
        HostOrder {
            id: self.record.id,
            generation: self.record.generation,
            order: self.record.version,
        }
    }
}

impl Inner {
    /// Marks a sandbox for an operation and has `drive` carry it out, on a task of its own. Returns
    /// once it is marked. `name` is the template's that is to be made, if one is.
    pub(super) async fn start_marked<C, D, F>(
        self: &Arc<Self>,
        id: SandboxId,
        operation_id: OperationId,
        name: Option<String>,
        actor: &Actor,
        change: C,
        drive: D,
    ) -> Result<Start, Error>
    where
        C: Fn(&Self, &SandboxRecord) -> Change + Send + Sync + 'static,
        D: FnOnce(Arc<Self>, Marked, Arc<Pilot>, Actor) -> F + Send + 'static,
        F: Future<Output = Outcome> + Send,
    {
        let (sender, receiver) = oneshot::channel();
        let inner = Arc::clone(self);
        let actor = actor.clone();
        self.tasks.spawn(async move {
            let Some((pilot, flight)) = inner.flights.begin(operation_id) else {
                let _ = sender.send(Err(Error::Internal("an ID was taken already".to_owned())));
                return;
            };
            let begun = inner
                .mark_begun(id, operation_id, name.as_deref(), &actor, &change)
                .await;
            let marked = match begun {
                Ok(Begun::Ours(marked)) => *marked,
                Ok(Begun::Theirs(start)) => {
                    drop(pilot);
                    let _ = sender.send(Ok(start));
                    return;
                }
                Err(error) => {
                    drop(pilot);
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            // The caller may have gone away. The work goes on all the same.
            let _ = sender.send(Ok(Start::Wait(operation_id, flight)));
            let span = operation_span(&marked.record);
            let pilot = Arc::new(pilot);
            let driven = drive(Arc::clone(&inner), marked, Arc::clone(&pilot), actor);
            let outcome = driven.instrument(span).await;
            pilot.land(outcome);
        })?;
        receiver.await.unwrap_or_else(|_| {
            Err(Error::Unavailable(
                "the platform is shutting down".to_owned(),
            ))
        })
    }

    async fn mark_begun(
        &self,
        id: SandboxId,
        operation_id: OperationId,
        name: Option<&str>,
        actor: &Actor,
        change: &(impl Fn(&Self, &SandboxRecord) -> Change + Sync),
    ) -> Result<Begun, Error> {
        let mut last = Error::Conflict(id);
        let mut written = None;
        for _ in 0..BEGIN_ATTEMPTS {
            let record = match self.record(id).await {
                Ok(record) => record,
                // A mark may stand there that nobody knows of.
                Err(error @ Error::Unavailable(_)) if written.is_some() => {
                    last = error;
                    self.clock.sleep(self.config.backoff).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let in_flight = record.operation.as_ref().map(|operation| operation.id);
            // A reply was lost with the mark written.
            if in_flight == Some(operation_id)
                && let Some((before, template)) = written.clone()
            {
                return Ok(Begun::Ours(Box::new(Marked {
                    record,
                    before,
                    template,
                })));
            }
            let change = change(self, &record);
            let write = match transition(&record, &change, self.stamp(actor))? {
                Transition::Write(write) => write,
                Transition::Already(_) | Transition::Remove(_) => {
                    return Ok(Begun::Theirs(self.join(record)));
                }
            };
            let marked = write.record.clone();
            let template = match write.template.as_ref().map(|write| &write.change) {
                Some(TemplateChange::Insert(template)) => Some(template.clone()),
                _ => None,
            };
            written = Some((record.state, template.clone()));
            match self.update(*write).await {
                Ok(()) => {
                    return Ok(Begun::Ours(Box::new(Marked {
                        record: marked,
                        before: record.state,
                        template,
                    })));
                }
                Err(StoreError::Conflict) => {}
                Err(StoreError::Duplicate) => {
                    return Err(match name {
                        Some(name) => Error::TemplateExists(name.to_owned()),
                        None => errors::from_store(StoreError::Duplicate),
                    });
                }
                Err(error) => {
                    last = errors::from_store(error);
                    self.clock.sleep(self.config.backoff).await;
                }
            }
        }
        Err(last)
    }

    /// The same has been asked for before.
    fn join(&self, record: SandboxRecord) -> Start {
        let Some(operation) = &record.operation else {
            return Start::Done(Box::new(record));
        };
        match self.flights.get(operation.id) {
            Some(flight) => Start::Wait(operation.id, flight),
            None => Start::Poll(operation.id),
        }
    }

    /// Gives an order until it is done, is refused, or was repeated often enough.
    pub(super) async fn order<T, F>(
        &self,
        pilot: &Pilot,
        bound: Duration,
        give: impl Fn() -> F,
    ) -> Result<T, HostError>
    where
        F: Future<Output = Result<T, HostError>>,
    {
        let attempts = async {
            let mut pause = self.config.backoff;
            let mut attempt = 1;
            loop {
                let error = match give().await {
                    Err(error)
                        if errors::worth_repeating(&error)
                            && attempt < self.config.order_attempts
                            && !pilot.is_cut() =>
                    {
                        error
                    }
                    other => return other,
                };
                tracing::warn!(%error, "order not done; trying again");
                self.clock.sleep(pause).await;
                if pilot.is_cut() {
                    return Err(error);
                }
                attempt += 1;
                pause *= 2;
            }
        };
        tokio::select! {
            biased;
            done = attempts => done,
            () = self.clock.sleep(bound) => Err(HostError::Unavailable(format!(
                "it was not done within {} s",
                bound.as_secs()
            ))),
        }
    }

    /// How the machine stands, by its host's report. Asked for until there is one that shows it at
    /// rest, or the patience for that ends.
    pub(super) async fn truth(&self, record: &SandboxRecord, pilot: &Pilot) -> Option<Standing> {
        let asking = async {
            let mut pause = self.config.backoff;
            loop {
                match self.report().await {
                    Ok(Some(report)) => match standing(record, &report) {
                        Some(standing) => return Some(standing),
                        None => tracing::debug!("the host is still at work on it"),
                    },
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the host does not say how the machine stands");
                    }
                }
                if pilot.is_cut() {
                    return None;
                }
                self.clock.sleep(pause).await;
                pause = (pause * 2).min(self.config.lease);
            }
        };
        tokio::select! {
            biased;
            found = asking => found,
            () = self.clock.sleep(self.config.lease) => None,
        }
    }

    /// After an order that failed: how the machine stands, and how the operation has ended by that.
    ///
    /// # Errors
    /// The order's own, where the host does not say: the operation is left to the reconciler.
    pub(super) async fn ended_by_report(
        &self,
        lease: &mut Lease<'_>,
        kind: OperationKind,
        pilot: &Pilot,
        error: HostError,
    ) -> Result<(Standing, OperationStatus), Error> {
        let record = lease.record.clone();
        if planted(Bug::RunningByGuess) {
            let error = errors::from_host(error);
            return Ok((Standing::Running, OperationStatus::Failed { error }));
        }
        let Some(standing) = lease.keep(self.truth(&record, pilot)).await else {
            return Err(errors::from_host(error));
        };
        let error = match error {
            HostError::WrongState { reason, .. } => Error::InvalidState {
                id: record.id,
                state: standing.state(),
                reason,
            },
            error => errors::from_host(error),
        };
        let status = standing.status_of(kind, error);
        Ok((standing, status))
    }

    /// Waits for what [`start_marked`](Self::start_marked) began or found.
    pub(super) async fn outcome_of(&self, id: SandboxId, start: Start, bound: Duration) -> Outcome {
        match start {
            Start::Done(record) => Ok(*record),
            Start::Wait(_, flight) => flight.wait().await,
            Start::Poll(operation) => self.poll_marked(id, operation, bound).await,
        }
    }

    /// Waits for an operation that another engine has at work.
    async fn poll_marked(&self, id: SandboxId, operation: OperationId, bound: Duration) -> Outcome {
        let mut left = bound + self.config.lease;
        loop {
            let found = self.store.operation(operation).await;
            match found.map_err(errors::from_store)?.map(|found| found.status) {
                Some(OperationStatus::Running) => {}
                Some(OperationStatus::Succeeded) => return self.record(id).await,
                Some(OperationStatus::Failed { error }) => return Err(error),
                None => return Err(Error::OperationNotFound(operation)),
            }
            if left.is_zero() || self.stopping() {
                return Err(Error::Unavailable(
                    "another request for the same is still at work".to_owned(),
                ));
            }
            self.clock.sleep(POLL).await;
            left = left.saturating_sub(POLL);
        }
    }
}
