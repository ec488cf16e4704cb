//! Pausing a sandbox, and resuming it: see `premark` for the way that both go.

use std::sync::Arc;

use tracing::Instrument;

use crate::{
    audit::Actor,
    clock::Timestamp,
    engine::{
        Engine, Inner, errors,
        flights::{Outcome, Pilot},
        lease::Lease,
        observe::operation_span,
        premark::{Marked, Start},
    },
    error::Error,
    host::{HostError, HostOrder},
    id::{OperationId, SandboxId},
    lifecycle::{Change, Standing},
    operation::{OperationKind, OperationStatus},
    sandbox::SandboxRecord,
};

/// Rounds of looking anew where the host knows better than the record.
const CONFIRM_ATTEMPTS: u32 = 20;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Pause,
    Resume,
}

impl Turn {
    const fn kind(self) -> OperationKind {
        match self {
            Self::Pause => OperationKind::Pause,
            Self::Resume => OperationKind::Resume,
        }
    }

    const fn goal(self) -> Standing {
        match self {
            Self::Pause => Standing::Paused,
            Self::Resume => Standing::Running,
        }
    }

    fn begin(self, operation_id: OperationId, lease_until: Timestamp) -> Change {
        match self {
            Self::Pause => Change::BeginPause {
                operation_id,
                lease_until,
                reason: "it is being paused".to_owned(),
            },
            Self::Resume => Change::BeginResume {
                operation_id,
                lease_until,
            },
        }
    }
}

impl Engine {
    /// Pauses a sandbox; see [`Api::pause`](crate::api::Api::pause).
    ///
    /// # Errors
    /// [`Error::InvalidState`] where it neither runs nor is paused, or something else is being done
    /// with it; whatever kept the host from it.
    pub async fn pause(&self, id: SandboxId, actor: &Actor) -> Result<SandboxRecord, Error> {
        self.inner.turn(Turn::Pause, id, actor).await
    }

    /// Resumes a sandbox; see [`Api::resume`](crate::api::Api::resume).
    ///
    /// # Errors
    /// Like [`pause`](Self::pause). What was saved is kept.
    pub async fn resume(&self, id: SandboxId, actor: &Actor) -> Result<SandboxRecord, Error> {
        self.inner.turn(Turn::Resume, id, actor).await
    }
}

impl Inner {
    async fn turn(self: &Arc<Self>, turn: Turn, id: SandboxId, actor: &Actor) -> Outcome {
        let mut last = Error::Conflict(id);
        for _ in 0..CONFIRM_ATTEMPTS {
            let start = self.start_turn(turn, id, actor).await?;
            let record = match start {
                Start::Done(record) => *record,
                start => return self.outcome_of(id, start, self.config.pause_timeout).await,
            };
            match self.confirm(turn, &record).await {
                Ok(()) => return Ok(record),
                // The record is about to say so too, or says so already.
                Err(
                    error @ (HostError::StaleOrder { .. }
                    | HostError::StaleGeneration { .. }
                    | HostError::UnknownSandbox(_)
                    | HostError::WrongState { .. }),
                ) => {
                    tracing::info!(sandbox = %id, %error, "it does not stand as it is recorded");
                    last = errors::from_host(error);
                    self.nudge.notify_one();
                    self.clock.sleep(self.config.backoff).await;
                }
                Err(error) => return Err(errors::from_host(error)),
            }
        }
        Err(last)
    }

    /// So it stands already, says the record. Its host may know better: of an order that was long on
    /// its way. It is given the order under the number of the record as it stands: where all is as
    /// recorded that changes nothing, and from then on whatever is older is refused.
    async fn confirm(&self, turn: Turn, record: &SandboxRecord) -> Result<(), HostError> {
        let order = HostOrder {
            id: record.id,
            generation: record.generation,
            order: record.version,
        };
        let bound = self.config.pause_timeout;
        tokio::select! {
            biased;
            done = self.give_turn(turn, order) => done,
            () = self.clock.sleep(bound) => Err(HostError::Unavailable(format!(
                "it did not say within {} s how the machine stands",
                bound.as_secs()
            ))),
        }
    }

    async fn start_turn(
        self: &Arc<Self>,
        turn: Turn,
        id: SandboxId,
        actor: &Actor,
    ) -> Result<Start, Error> {
        let operation_id = OperationId::from_uuid(self.clock.new_uuid());
        self.start_marked(
            id,
            operation_id,
            None,
            actor,
            move |inner, _| turn.begin(operation_id, inner.lease_end()),
            move |inner, marked, pilot, actor| async move {
                inner.drive_turn(turn, marked, &pilot, actor).await
            },
        )
        .await
    }

    /// Pauses a sandbox that was not used for as long as its lifetime, if it is still as it was read.
    pub(super) async fn pause_unused(
        self: &Arc<Self>,
        record: &SandboxRecord,
        reason: String,
        actor: Actor,
    ) -> Result<(), Error> {
        let operation_id = OperationId::from_uuid(self.clock.new_uuid());
        let Some((pilot, _)) = self.flights.begin(operation_id) else {
            return Ok(());
        };
        let change = Change::BeginPause {
            operation_id,
            lease_until: self.lease_end(),
            reason,
        };
        let written = self.try_change(record, &change, &actor).await;
        let Some(marked) = written.map_err(errors::from_store)? else {
            return Ok(());
        };
        let span = operation_span(&marked);
        let marked = Marked {
            record: marked,
            before: record.state,
            template: None,
        };
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let driven = inner.drive_turn(Turn::Pause, marked, &pilot, actor);
            let outcome = driven.instrument(span).await;
            pilot.land(outcome);
        })
    }

    async fn drive_turn(&self, turn: Turn, marked: Marked, pilot: &Pilot, actor: Actor) -> Outcome {
        let order = marked.order();
        let mut lease = Lease::new(self, actor, pilot.id(), marked.record);
        let given = self.order(pilot, self.config.pause_timeout, || {
            self.give_turn(turn, order)
        });
        let (standing, status) = match lease.keep(given).await {
            Ok(()) => (turn.goal(), OperationStatus::Succeeded),
            Err(error) => {
                tracing::warn!(%error, "the host did not do it");
                self.ended_by_report(&mut lease, turn.kind(), pilot, error)
                    .await?
            }
        };
        let failed = match &status {
            OperationStatus::Failed { error } => Some(error.clone()),
            _ => None,
        };
        let ended = Change::Ended {
            standing,
            status,
            template: None,
        };
        match (lease.finish(ended).await, failed) {
            (Ok(record), None) => Ok(record),
            (Ok(_), Some(error)) => Err(error),
            (Err(unfinished), _) => Err(unfinished.into_error(order.id)),
        }
    }

    async fn give_turn(&self, turn: Turn, order: HostOrder) -> Result<(), HostError> {
        match turn {
            Turn::Pause => self.host.pause_sandbox(order).await,
            Turn::Resume => self.host.resume_sandbox(order).await,
        }
    }
}
