//! Carries out what the reconciler planned, and chooses nothing: each action is void unless the
//! record still has the version that it was planned on.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    audit::Actor,
    engine::{Inner, errors, flights::Pilot, lease::Lease},
    error::Error,
    host::HostError,
    id::SandboxId,
    lifecycle::Change,
    reconcile::Action,
    sandbox::SandboxRecord,
};

/// Sandboxes whose remains are being freed right now.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    ids: Arc<Mutex<HashSet<SandboxId>>>,
}

/// One clean-up at work.
struct Broom {
    id: SandboxId,
    ids: Arc<Mutex<HashSet<SandboxId>>>,
}

impl Cleaning {
    /// `None` when it is being done already.
    fn begin(&self, id: SandboxId) -> Option<Broom> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(id).then(|| Broom {
            id,
            ids: Arc::clone(&self.ids),
        })
    }
}

impl Drop for Broom {
    fn drop(&mut self) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.remove(&self.id);
    }
}

impl Inner {
    /// Carries an action out, or begins to where it takes long. `planned` is the record that it was
    /// planned on.
    pub(super) async fn repair(
        self: &Arc<Self>,
        action: &Action,
        planned: Option<&SandboxRecord>,
    ) -> Result<(), Error> {
        let actor = Actor::system("reconciler");
        match (action, planned) {
            (Action::MarkStopped { reason, .. }, Some(record)) => {
                let reason = reason.clone();
                self.mark(record, &Change::MachineEnded { reason }, &actor)
                    .await
            }
            (Action::MarkRunning { .. }, Some(record)) => {
                let reason = "its machine was found running".to_owned();
                self.mark(record, &Change::MachineFound { reason }, &actor)
                    .await
            }
            (Action::CompleteCreate { .. }, Some(record)) => {
                self.mark(record, &Change::CreateSucceeded, &actor).await
            }
            (Action::UndoCreate { .. }, Some(record)) => self.undo_abandoned(record, actor).await,
            (Action::RedoDestroy { .. }, Some(record)) => {
                let Some(operation) = &record.operation else {
                    return Ok(());
                };
                let adopted = self.adopt(record, operation, &actor).await?;
                self.destroy_on_a_task(adopted, actor)
            }
            (Action::Expire { .. }, Some(record)) => {
                let reason = format!(
                    "it was not used for {} s",
                    record.timeout_sec.unwrap_or_default()
                );
                let begun = self.begin_on(record, &reason, &actor).await?;
                self.destroy_on_a_task(begun, actor)
            }
            (Action::CleanUp { id, generation, .. }, Some(record)) => {
                self.clean_up(*id, *generation, Some(record.version))
            }
            (Action::DestroyUnknown { id, generation }, None) => {
                self.clean_up(*id, *generation, None)
            }
            // A plan names only records that it was given, and unknown machines have none.
            (_, _) => Ok(()),
        }
    }

    async fn mark(
        &self,
        record: &SandboxRecord,
        change: &Change,
        actor: &Actor,
    ) -> Result<(), Error> {
        let written = self.try_change(record, change, actor).await;
        written.map(drop).map_err(errors::from_store)
    }

    fn destroy_on_a_task<F>(
        self: &Arc<Self>,
        begun: Option<(super::destroy::Begun, F)>,
        actor: Actor,
    ) -> Result<(), Error> {
        let Some((begun, _)) = begun else {
            return Ok(());
        };
        let inner = Arc::clone(self);
        self.tasks
            .spawn(async move { inner.drive_destroy(begun, actor).await })
    }

    async fn undo_abandoned(
        self: &Arc<Self>,
        record: &SandboxRecord,
        actor: Actor,
    ) -> Result<(), Error> {
        let Some(operation) = &record.operation else {
            return Ok(());
        };
        let Some((pilot, _)) = self.flights.begin(operation.id) else {
            return Ok(());
        };
        let change = Change::ExtendLease {
            lease_until: self.lease_end(),
            generation_min: 0,
        };
        let written = self.try_change(record, &change, &actor).await;
        let Some(record) = written.map_err(errors::from_store)? else {
            return Ok(());
        };
        let inner = Arc::clone(self);
        self.tasks
            .spawn(async move { inner.finish_abandoned(record, pilot, actor).await })
    }

    async fn finish_abandoned(&self, record: SandboxRecord, pilot: Pilot, actor: Actor) {
        let error =
            Error::Unavailable("the platform stopped while the sandbox was being made".to_owned());
        let lease = Lease::new(self, actor, pilot.id(), record);
        let outcome = self.undo_create(lease, error).await;
        pilot.land(outcome);
    }

    /// Frees what the host has of a sandbox, if the store still says of it what it said when this
    /// was planned.
    fn clean_up(
        self: &Arc<Self>,
        id: SandboxId,
        generation: u64,
        version: Option<u64>,
    ) -> Result<(), Error> {
        let Some(broom) = self.cleaning.begin(id) else {
            return Ok(());
        };
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let _broom = broom;
            match inner.store.sandbox(id).await {
                Ok(record) if record.as_ref().map(|record| record.version) == version => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(sandbox = %id, %error, "remains not freed yet");
                    return;
                }
            }
            match inner.order_destroy(id, generation).await {
                Ok(()) => tracing::info!(sandbox = %id, "remains freed"),
                Err(HostError::StaleGeneration { .. }) => {}
                Err(error) => tracing::warn!(sandbox = %id, %error, "remains not freed yet"),
            }
        })
    }
}
