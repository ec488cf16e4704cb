//! Making a template of a sandbox.
//!
//! ```text
//!  record ──► paused, +snapshot, template making ──► host: image ──► template ready, operation done
//!                │ name taken                            │ error         │ can't be written
//!                ▼                                       ▼               ▼
//!          TemplateExists                    template hidden, operation failed ──► image freed
//! ```
//!
//! The sandbox's record, its operation and the template's record change in one write each time: no
//! template is ready without its operation's success, and none stays that nobody makes.

use std::sync::Arc;

use crate::{
    audit::Actor,
    build::LayerKey,
    engine::{
        Engine, Inner, errors,
        flights::{Outcome, Pilot},
        lease::{Lease, Unfinished},
        premark::{Marked, Start},
    },
    error::Error,
    host::{HostError, HostImage, HostSnapshot},
    id::{OperationId, SandboxId, TeamId, TemplateId},
    lifecycle::{
        Change, NewTemplate, Standing, abandon_template, publish_template, template_birth,
    },
    name::TemplateName,
    operation::{Operation, OperationKind, OperationStatus},
    planted::{self, Bug, planted},
    sandbox::{SandboxRecord, SandboxState},
    store::{TemplateChange, TemplateWrite},
    template::{TemplateKind, TemplateRecord},
};

/// A request for a template of a sandbox that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewSnapshot {
    /// Of which sandbox.
    pub(super) sandbox_id: SandboxId,
    /// The template's ID.
    pub(super) template_id: TemplateId,
    /// Who will own it.
    pub(super) team_id: TeamId,
    /// Its name.
    pub(super) name: TemplateName,
    /// With memory, or the disk alone.
    pub(super) kind: TemplateKind,
    /// Whether a sandbox that ran runs on.
    pub(super) resume: bool,
    /// Of a template build's, what goes into it.
    pub(super) layer: Option<LayerKey>,
}

impl Engine {
    /// Makes a template of a sandbox; see [`Api::snapshot`](crate::api::Api::snapshot).
    pub(super) async fn snapshot(
        &self,
        new: NewSnapshot,
        actor: &Actor,
    ) -> Result<TemplateRecord, Error> {
        self.inner.snapshot(new, actor).await
    }

    /// Like [`snapshot`](Self::snapshot), without waiting.
    pub(super) async fn begin_snapshot(
        &self,
        new: NewSnapshot,
        actor: &Actor,
    ) -> Result<OperationId, Error> {
        let sandbox = new.sandbox_id;
        match self.inner.start_snapshot(new, actor).await? {
            Start::Wait(operation, _) | Start::Poll(operation) => Ok(operation),
            // No template was ever there before it was asked for.
            Start::Done(_) => Err(Error::Conflict(sandbox)),
        }
    }
}

impl Inner {
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        new: NewSnapshot,
        actor: &Actor,
    ) -> Result<TemplateRecord, Error> {
        let inner = self;
        let (sandbox, template, name) = (new.sandbox_id, new.template_id, new.name.clone());
        let start = inner.start_snapshot(new, actor).await?;
        let bound = inner.config.snapshot_timeout;
        inner.outcome_of(sandbox, start, bound).await?;
        let made = inner.store.template(template).await;
        made.map_err(errors::from_store)?
            .ok_or_else(|| Error::TemplateNotFound(name.to_string()))
    }

    async fn start_snapshot(
        self: &Arc<Self>,
        new: NewSnapshot,
        actor: &Actor,
    ) -> Result<Start, Error> {
        let operation_id = OperationId::from_uuid(self.clock.new_uuid());
        let asked = new.clone();
        self.start_marked(
            new.sandbox_id,
            operation_id,
            Some(new.name.to_string()),
            actor,
            move |inner, record| {
                let template = inner.unmade(&asked, record, operation_id);
                Change::BeginSnapshot {
                    operation_id,
                    lease_until: inner.lease_end(),
                    template: Box::new(template),
                }
            },
            move |inner, marked, pilot, actor| async move {
                inner.drive_snapshot(&new, marked, &pilot, actor).await
            },
        )
        .await
    }

    /// The template's first record.
    fn unmade(
        &self,
        new: &NewSnapshot,
        origin: &SandboxRecord,
        operation_id: OperationId,
    ) -> TemplateRecord {
        // The write of the mark fills in its own times.
        let at = self.now();
        let operation = Operation {
            id: operation_id,
            kind: OperationKind::Snapshot,
            started_at: at,
            lease_until: at,
        };
        let new = NewTemplate {
            id: new.template_id,
            team_id: new.team_id,
            name: new.name.clone(),
            kind: new.kind,
            size: origin.size,
            origin: Some(origin.id),
            layer: new.layer,
            host_id: origin.host_id.unwrap_or(self.host_id),
        };
        template_birth(new, operation, at)
    }

    async fn drive_snapshot(
        &self,
        new: &NewSnapshot,
        marked: Marked,
        pilot: &Pilot,
        actor: Actor,
    ) -> Outcome {
        let order = HostSnapshot {
            order: marked.order(),
            image: new.template_id,
            resume: new.resume && marked.before == SandboxState::Running,
        };
        let Some(template) = marked.template else {
            return Err(Error::Internal("the mark has no template".to_owned()));
        };
        let snapshot = Snapshotting {
            inner: self,
            template,
            lease: Lease::new(self, actor.clone(), pilot.id(), marked.record),
            actor,
            pilot,
        };
        snapshot.run(order).await
    }
}

/// A snapshot that this engine owns.
struct Snapshotting<'a> {
    inner: &'a Inner,
    actor: Actor,
    lease: Lease<'a>,
    /// As it was written with the mark. Nobody writes it while the operation is in flight.
    template: TemplateRecord,
    pilot: &'a Pilot,
}

impl Snapshotting<'_> {
    async fn run(mut self, order: HostSnapshot) -> Outcome {
        let (inner, pilot, kind) = (self.inner, self.pilot, self.template.kind);
        let given = inner.order(pilot, inner.config.snapshot_timeout, || {
            inner.give_snapshot(kind, order)
        });
        match self.lease.keep(given).await {
            Ok(image) => match self.standing(order.resume).await {
                Some(standing) => self.publish(&image, standing).await,
                None => Err(Error::Unavailable(
                    "the image was made, and the host does not say how the sandbox stands; it is \
                     settled later"
                        .to_owned(),
                )),
            },
            Err(_) if planted(Bug::PublishedWithoutImage) => {
                let image = planted::no_image(&self.template);
                self.publish(&image, Standing::Paused).await
            }
            Err(error) => {
                tracing::warn!(%error, "the host made no image");
                let (standing, status) = inner
                    .ended_by_report(&mut self.lease, OperationKind::Snapshot, pilot, error)
                    .await?;
                match status {
                    OperationStatus::Failed { error } => self.fail(standing, error).await,
                    // Never by the machine's standing alone.
                    _ => Err(Error::Conflict(order.order.id)),
                }
            }
        }
    }

    /// How the machine stands after the image was made: never by guess. To call a machine paused
    /// that runs would be told to whoever asks to pause it. `None` where its host has not said it
    /// for as long as a snapshot may take: then the reconciler ends the operation.
    async fn standing(&mut self, resume: bool) -> Option<Standing> {
        if !resume {
            return Some(Standing::Paused);
        }
        let record = self.lease.record.clone();
        let (inner, pilot) = (self.inner, self.pilot);
        let asking = async {
            loop {
                let standing = inner.truth(&record, pilot).await;
                if standing.is_some() || pilot.is_cut() {
                    return standing;
                }
            }
        };
        let asked = async {
            tokio::select! {
                biased;
                standing = asking => standing,
                () = inner.clock.sleep(inner.config.snapshot_timeout) => None,
            }
        };
        self.lease.keep(asked).await
    }

    async fn publish(mut self, image: &HostImage, standing: Standing) -> Outcome {
        let published = publish_template(&self.template, image, self.inner.stamp(&self.actor));
        let ended = Change::Ended {
            standing: standing.clone(),
            status: OperationStatus::Succeeded,
            template: Some(Box::new(published)),
        };
        match self.lease.finish(ended).await {
            Ok(record) => Ok(record),
            Err(Unfinished::EndedElsewhere(OperationStatus::Failed { error })) => {
                self.discard(error).await
            }
            // Whether it was written is not known. Only the operation's failure, by
            // compare-and-set, makes it certain that the image is nobody's.
            Err(unfinished) => {
                let id = self.lease.record.id;
                self.fail(standing, unfinished.into_error(id)).await
            }
        }
    }

    /// Ends the operation as failed and hides the template in the same write; then frees the image.
    async fn fail(mut self, standing: Standing, error: Error) -> Outcome {
        let hiding = abandon_template(&self.template, &error, self.inner.stamp(&self.actor));
        let hidden = written(&hiding);
        let ended = Change::Ended {
            standing,
            status: OperationStatus::Failed {
                error: error.clone(),
            },
            template: Some(Box::new(hiding)),
        };
        match self.lease.finish(ended).await {
            Ok(_) => {
                self.free(hidden).await;
                Err(error)
            }
            Err(Unfinished::EndedElsewhere(OperationStatus::Failed { error })) => {
                self.discard(error).await
            }
            // It was written all the same.
            Err(Unfinished::EndedElsewhere(OperationStatus::Succeeded)) => {
                self.inner.record(self.lease.record.id).await
            }
            // Left in flight: the reconciler's, when the lease runs out.
            Err(unfinished) => {
                tracing::warn!(?unfinished, "failed snapshot not recorded");
                Err(error)
            }
        }
    }

    /// Someone else has ended the operation; the template that nobody makes any more is hidden.
    async fn discard(self, error: Error) -> Outcome {
        let hiding = abandon_template(&self.template, &error, self.inner.stamp(&self.actor));
        let hidden = written(&hiding);
        match self.inner.store.write_template(hiding).await {
            Ok(()) => self.free(hidden).await,
            // The reconciler has done it, or does it.
            Err(problem) => {
                tracing::debug!(template = %self.template.id, %problem, "not hidden here");
                self.inner.nudge.notify_one();
            }
        }
        Err(error)
    }

    async fn free(&self, hidden: Option<TemplateRecord>) {
        let Some(hidden) = hidden else {
            return;
        };
        if let Err(error) = self.inner.free_hidden(&hidden, &self.actor).await {
            tracing::warn!(template = %hidden.id, %error, "files not freed yet");
            self.inner.nudge.notify_one();
        }
    }
}

/// The record that a write leaves.
fn written(write: &TemplateWrite) -> Option<TemplateRecord> {
    match &write.change {
        TemplateChange::Insert(record) | TemplateChange::Update(record) => Some(record.clone()),
        TemplateChange::Remove(..) => None,
    }
}

impl Inner {
    async fn give_snapshot(
        &self,
        kind: TemplateKind,
        order: HostSnapshot,
    ) -> Result<HostImage, HostError> {
        match kind {
            TemplateKind::Snapshot => self.host.create_snapshot(order).await,
            TemplateKind::Image => self.host.flatten_rootfs(order).await,
        }
    }
}
