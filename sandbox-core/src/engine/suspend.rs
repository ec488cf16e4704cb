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
        premark::Marked,
    },
    error::Error,
    host::{HostError, HostOrder},
    id::{OperationId, SandboxId},
    lifecycle::{Change, Standing},
    operation::{OperationKind, OperationStatus},
    sandbox::SandboxRecord,
};

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
        let operation_id = OperationId::from_uuid(self.clock.new_uuid());
        let start = self
            .start_marked(
                id,
                operation_id,
                None,
                actor,
                move |inner, _| turn.begin(operation_id, inner.lease_end()),
                move |inner, marked, pilot, actor| async move {
                    inner.drive_turn(turn, marked, &pilot, actor).await
                },
            )
            .await?;
        self.outcome_of(id, start, self.config.pause_timeout).await
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
