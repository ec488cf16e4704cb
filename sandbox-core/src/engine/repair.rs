//! Carries out what the reconciler planned, and chooses nothing: each action is void unless the
//! record still has the version that it was planned on.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::Instrument;

use crate::{
    audit::Actor,
    build::BuildRecord,
    engine::{Inner, errors, flights::Pilot, lease::Lease, observe::operation_span},
    error::Error,
    host::HostError,
    id::{SandboxId, TemplateId},
    lifecycle::{Change, Standing, abandon_template, hide_template},
    planted::{Bug, planted},
    reconcile::Action,
    sandbox::SandboxRecord,
    store::StoreError,
    template::TemplateRecord,
};

/// What can be left on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Remains {
    Of(SandboxId),
    Image(TemplateId),
}

/// What is being freed right now.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    at_work: Arc<Mutex<HashSet<Remains>>>,
}

/// One clean-up at work.
struct Broom {
    remains: Remains,
    at_work: Arc<Mutex<HashSet<Remains>>>,
}

/// The record that an action was planned on, if there was one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Planned<'a> {
    /// About what no record knows.
    Nothing,
    /// About a sandbox.
    Sandbox(&'a SandboxRecord),
    /// About a template.
    Template(&'a TemplateRecord),
    /// About a template build.
    Build(&'a BuildRecord),
}

impl Cleaning {
    /// `None` when it is being done already.
    fn begin(&self, remains: Remains) -> Option<Broom> {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        at_work.insert(remains).then(|| Broom {
            remains,
            at_work: Arc::clone(&self.at_work),
        })
    }
}

impl Drop for Broom {
    fn drop(&mut self) {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        at_work.remove(&self.remains);
    }
}

impl Inner {
    /// Carries an action out, or begins to where it takes long.
    pub(super) async fn repair(
        self: &Arc<Self>,
        action: &Action,
        planned: Planned<'_>,
    ) -> Result<(), Error> {
        match planned {
            Planned::Sandbox(record) => self.repair_sandbox(action, record).await,
            Planned::Template(record) => self.repair_template(action, record).await,
            Planned::Build(record) => self.end_build(record).await,
            Planned::Nothing => match action {
                Action::DestroyUnknown { id, generation } => self.clean_up(*id, *generation, None),
                Action::DeleteUnknownImage { image } => self.delete_unknown_image(*image),
                // A plan names only records that it was given.
                _ => Ok(()),
            },
        }
    }

    async fn repair_sandbox(
        self: &Arc<Self>,
        action: &Action,
        record: &SandboxRecord,
    ) -> Result<(), Error> {
        let actor = Actor::system("reconciler");
        match action {
            Action::MarkStopped { reason, .. } => {
                let reason = reason.clone();
                self.mark(record, &Change::MachineEnded { reason }, &actor)
                    .await
            }
            Action::MarkRunning { .. } => {
                let reason = "its machine was found running".to_owned();
                self.mark(record, &Change::MachineFound { reason }, &actor)
                    .await
            }
            Action::MarkPaused { .. } => {
                let reason = "its machine was found paused".to_owned();
                self.mark(record, &Change::PausedFound { reason }, &actor)
                    .await
            }
            Action::MarkMissing { reason, .. } => {
                let reason = reason.clone();
                self.mark(record, &Change::HostSilent { reason }, &actor)
                    .await
            }
            Action::SettleOperation { standing, .. } => {
                self.settle_operation(record, standing.clone(), &actor)
                    .await
            }
            Action::CompleteCreate { .. } => {
                self.mark(record, &Change::CreateSucceeded, &actor).await
            }
            Action::UndoCreate { .. } => self.undo_abandoned(record, actor).await,
            Action::RedoDestroy { .. } => {
                let Some(operation) = &record.operation else {
                    return Ok(());
                };
                let adopted = self.adopt(record, operation, &actor).await?;
                self.destroy_on_a_task(adopted, actor)
            }
            Action::Expire { .. } => {
                let begun = self.begin_on(record, &unused(record), &actor).await?;
                self.destroy_on_a_task(begun, actor)
            }
            Action::EndBuildSandbox { .. } => {
                let begun = self.begin_on(record, "its build is over", &actor).await?;
                self.destroy_on_a_task(begun, actor)
            }
            Action::PauseUnused { .. } => self.pause_unused(record, unused(record), actor).await,
            Action::CleanUp { id, generation, .. } => {
                self.clean_up(*id, *generation, Some(record.version))
            }
            // About what is no sandbox with a record.
            Action::GiveUpTemplate { .. }
            | Action::FreeTemplate { .. }
            | Action::DeleteUnknownImage { .. }
            | Action::EndBuild { .. }
            | Action::ForgetLayer { .. }
            | Action::DestroyUnknown { .. } => Ok(()),
        }
    }

    async fn repair_template(
        self: &Arc<Self>,
        action: &Action,
        record: &TemplateRecord,
    ) -> Result<(), Error> {
        let actor = Actor::system("reconciler");
        match action {
            Action::GiveUpTemplate { .. } => {
                let error = abandoned("the template was being made");
                let write = abandon_template(record, &error, self.stamp(&actor));
                match self.store.write_template(write).await {
                    Ok(()) => {
                        self.nudge.notify_one();
                        Ok(())
                    }
                    Err(StoreError::Conflict) => Ok(()),
                    Err(error) => Err(errors::from_store(error)),
                }
            }
            Action::ForgetLayer { .. } => match hide_template(record, self.stamp(&actor)) {
                Ok(Some(write)) => match self.store.write_template(write).await {
                    Ok(()) => {
                        self.nudge.notify_one();
                        Ok(())
                    }
                    Err(StoreError::Conflict) => Ok(()),
                    Err(error) => Err(errors::from_store(error)),
                },
                Ok(None) | Err(_) => Ok(()),
            },
            Action::FreeTemplate { id, .. } => {
                let Some(broom) = self.cleaning.begin(Remains::Image(*id)) else {
                    return Ok(());
                };
                let (inner, record) = (Arc::clone(self), record.clone());
                self.tasks.spawn(async move {
                    let _broom = broom;
                    if let Err(error) = inner.free_hidden(&record, &actor).await {
                        tracing::warn!(template = %record.id, %error, "files not freed yet");
                    }
                })
            }
            _ => Ok(()),
        }
    }

    /// Ends an operation that nobody has at work, as its machine stands.
    async fn settle_operation(
        &self,
        record: &SandboxRecord,
        standing: Standing,
        actor: &Actor,
    ) -> Result<(), Error> {
        let Some(operation) = &record.operation else {
            return Ok(());
        };
        let error = abandoned("it was being done");
        let status = standing.status_of(operation.kind, error);
        let change = Change::Ended {
            standing,
            status: status.clone(),
            // Its maker is gone with the operation: the next round gives it up.
            template: None,
        };
        let written = self.try_change(record, &change, actor).await;
        if written.map_err(errors::from_store)?.is_some() {
            let span = operation_span(record);
            span.in_scope(|| self.observer.ended(operation, &status, self.now()));
            self.nudge.notify_one();
        }
        Ok(())
    }

    /// Frees an image that no template names, if there is still none.
    fn delete_unknown_image(self: &Arc<Self>, image: TemplateId) -> Result<(), Error> {
        let Some(broom) = self.cleaning.begin(Remains::Image(image)) else {
            return Ok(());
        };
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let _broom = broom;
            match inner.store.template(image).await {
                Ok(None) => {}
                Ok(Some(_)) => return,
                Err(error) => {
                    tracing::warn!(template = %image, %error, "unknown image not freed yet");
                    return;
                }
            }
            match inner.order_delete_image(image).await {
                Ok(done) => tracing::info!(template = %image, ?done, "unknown image freed"),
                Err(error) => {
                    tracing::warn!(template = %image, %error, "unknown image not freed yet");
                }
            }
        })
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
        // The owner may be at work all the same, with a clock or a store that is slow. From here on
        // its orders are refused, and it can't call the create done: what is undone stays undone.
        let change = Change::ExtendLease {
            lease_until: self.lease_end(),
            generation_min: record.generation.saturating_add(1),
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
        let error = abandoned("the sandbox was being made");
        let span = operation_span(&record);
        let lease = Lease::new(self, actor, pilot.id(), record);
        let outcome = self.undo_create(lease, error).instrument(span).await;
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
        let Some(broom) = self.cleaning.begin(Remains::Of(id)) else {
            return Ok(());
        };
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let _broom = broom;
            match inner.store.sandbox(id).await {
                Ok(record) if record.as_ref().map(|record| record.version) == version => {}
                Ok(_) if planted(Bug::OrphanWithoutGrace) => {}
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

/// Why a lifetime has ended.
fn unused(record: &SandboxRecord) -> String {
    let lifetime_sec = record.timeout_sec.unwrap_or_default();
    format!("it was not used for {lifetime_sec} s")
}

/// Why an operation that nobody has at work any more has failed.
fn abandoned(what: &str) -> Error {
    Error::Unavailable(format!("the platform stopped while {what}"))
}
