//! Making a template from elsewhere.
//!
//! ```text
//!  authorize ──► insert (making, its name taken, +import) ──► host.import_image ──► ready
//!                      │ name taken                                │ error
//!                      ▼                                           ▼
//!                  TemplateExists            hidden, operation failed ──► host: image deleted ──► removed
//!                                            (or the reconciler's, when the lease runs out)
//! ```

use std::{future::Future, pin::pin, sync::Arc};

use tokio::sync::oneshot;
use tracing::Instrument;

use crate::{
    audit::Actor,
    authorize::{Action, Resource},
    caller::Caller,
    engine::{Engine, Inner, errors, rights, validate},
    error::Error,
    host::{HostError, HostImage, HostImport},
    id::{OperationId, TemplateId},
    lifecycle::{
        NewTemplate, Stamp, abandon_template, begin_template, extend_template_lease,
        publish_template, template_birth,
    },
    operation::{Operation, OperationKind, OperationStatus},
    size::MachineSize,
    store::{StoreError, TemplateChange, TemplateWrite},
    template::{ImportSource, ImportTemplate, TemplateKind, TemplateRecord},
};

/// Repetitions of a write that lost to another one, or whose reply was lost.
const WRITE_ATTEMPTS: u32 = 6;

/// A request that has been found good.
struct Order {
    new: NewTemplate,
    source: ImportSource,
    /// Whether the disk's size was asked for; otherwise it is made to fit the content.
    disk_asked: bool,
}

/// An import at work.
struct Importing {
    operation: OperationId,
    outcome: oneshot::Receiver<Result<TemplateRecord, Error>>,
}

impl Engine {
    /// Makes a template from elsewhere; see [`Api`](crate::api::Api::import_template).
    pub(super) async fn import_template(
        &self,
        caller: &Caller,
        request: ImportTemplate,
    ) -> Result<TemplateRecord, Error> {
        let importing = self.start_import(caller, request).await?;
        importing.outcome.await.unwrap_or_else(|_| {
            Err(Error::Unavailable(
                "the platform stopped before this was done; it is settled later".to_owned(),
            ))
        })
    }

    /// Like [`import_template`](Self::import_template), without waiting.
    pub(super) async fn begin_import(
        &self,
        caller: &Caller,
        request: ImportTemplate,
    ) -> Result<OperationId, Error> {
        Ok(self.start_import(caller, request).await?.operation)
    }

    async fn start_import(
        &self,
        caller: &Caller,
        request: ImportTemplate,
    ) -> Result<Importing, Error> {
        let inner = Arc::clone(&self.inner);
        rights::on_platform(caller, Action::Use, Resource::HostFiles)?;
        let name = validate::new_name(&request.name)?;
        validate::source(&request.source)?;
        let size = validate::size(
            MachineSize::default(),
            request.vcpus,
            request.memory_mb,
            request.disk_size_mb,
        )?;
        inner.may_name(caller, caller.team_id, &name).await?;
        let order = Order {
            new: NewTemplate {
                id: TemplateId::from_uuid(inner.clock.new_uuid()),
                team_id: caller.team_id,
                name,
                kind: TemplateKind::Image,
                size,
                origin: None,
                layer: None,
                host_id: inner.host_id,
            },
            source: request.source,
            disk_asked: request.disk_size_mb.is_some(),
        };
        let (sender, receiver) = oneshot::channel();
        let actor = caller.actor.clone();
        self.inner
            .tasks
            .spawn(async move { inner.run_import(order, actor, sender).await })?;
        receiver.await.unwrap_or_else(|_| {
            Err(Error::Unavailable(
                "the platform is shutting down".to_owned(),
            ))
        })
    }
}

impl Inner {
    /// The whole import, on a task of its own.
    async fn run_import(
        &self,
        order: Order,
        actor: Actor,
        started: oneshot::Sender<Result<Importing, Error>>,
    ) {
        let operation = Operation {
            id: OperationId::from_uuid(self.clock.new_uuid()),
            kind: OperationKind::Import,
            started_at: self.now(),
            lease_until: self.lease_end(),
        };
        // Whoever reads the operation in the store finds that it is at work here.
        let Some((pilot, _)) = self.flights.begin(operation.id) else {
            let taken = Error::Internal("a new ID was taken already".to_owned());
            let _ = started.send(Err(taken));
            return;
        };
        let record = template_birth(order.new, operation.clone(), self.now());
        if let Err(error) = self.insert_template(&record, &actor).await {
            let _ = started.send(Err(error));
            return;
        }
        let (sender, outcome) = oneshot::channel();
        // The caller may have gone away. The template is made all the same.
        let _ = started.send(Ok(Importing {
            operation: operation.id,
            outcome,
        }));
        let span = tracing::info_span!(
            "operation",
            operation_id = %operation.id,
            kind = operation.kind.as_str(),
            template = %record.id,
        );
        let import = Import {
            inner: self,
            actor,
            operation,
            record,
        };
        let outcome = import
            .run(order.source, order.disk_asked)
            .instrument(span)
            .await;
        // Until here this engine was at it.
        drop(pilot);
        let _ = sender.send(outcome);
    }

    async fn insert_template(&self, record: &TemplateRecord, actor: &Actor) -> Result<(), Error> {
        let write = begin_template(record.clone(), self.stamp(actor));
        match self.store.write_template(write).await {
            Ok(()) => Ok(()),
            Err(StoreError::Duplicate) => Err(Error::TemplateExists(record.name.to_string())),
            // The reply may have been lost with the record written: then go on.
            Err(error) => match self.store.template(record.id).await {
                Ok(Some(stored)) if stored == *record => Ok(()),
                _ => Err(errors::from_store(error)),
            },
        }
    }
}

/// An import that this engine owns.
struct Import<'a> {
    inner: &'a Inner,
    actor: Actor,
    operation: Operation,
    record: TemplateRecord,
}

impl Import<'_> {
    async fn run(
        mut self,
        source: ImportSource,
        disk_asked: bool,
    ) -> Result<TemplateRecord, Error> {
        let inner = self.inner;
        let order = HostImport {
            image: self.record.id,
            source,
        };
        let made = self.keep(inner.order_import(order)).await;
        let made = made.map_err(errors::from_host);
        let fitted = made.and_then(|image| {
            let size = fitting(self.record.size, image.size.disk_size_mb, disk_asked)?;
            Ok((image, size))
        });
        match fitted {
            Ok((image, size)) => {
                self.record.size = size;
                self.publish(&image).await
            }
            Err(error) => self.give_up(error).await,
        }
    }

    /// Does work while renewing the lease. A lease that is lost meanwhile shows at the end.
    async fn keep<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let renew_every = self.inner.config.lease / 3;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.inner.clock.sleep(renew_every) => {
                    if let Err(error) = self.renew().await {
                        tracing::warn!(template = %self.record.id, %error, "lease not renewed");
                    }
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), StoreError> {
        let (end, now) = (self.inner.lease_end(), self.inner.now());
        let write = extend_template_lease(&self.record, end, now);
        let next = updated(&write);
        match self.inner.store.write_template(write).await {
            Ok(()) => {
                self.record = next.unwrap_or_else(|| self.record.clone());
                Ok(())
            }
            Err(error) => {
                // The reply may have been lost with the write done.
                if let Some(stored) = self.inner.store.template(self.record.id).await?
                    && self.is_ours(&stored)
                {
                    self.record = TemplateRecord {
                        size: self.record.size,
                        ..stored
                    };
                }
                Err(error)
            }
        }
    }

    fn is_ours(&self, record: &TemplateRecord) -> bool {
        let operation = record.operation.as_ref();
        operation.is_some_and(|operation| operation.id == self.operation.id)
    }

    async fn publish(mut self, image: &HostImage) -> Result<TemplateRecord, Error> {
        match self
            .finish(|record, stamp| publish_template(record, image, stamp))
            .await
        {
            Ok(published) => Ok(published),
            Err(error) => {
                // Someone gave it up, and whoever did may have been there before the image was. A
                // record that is there still, on a store that does not answer, is the reconciler's.
                self.delete_image_of_nobody().await;
                Err(error)
            }
        }
    }

    /// Ends the operation as failed and hides the template in the same write; then frees what the
    /// host may have of it.
    async fn give_up(mut self, error: Error) -> Result<TemplateRecord, Error> {
        let hidden = self
            .finish(|record, stamp| abandon_template(record, &error, stamp))
            .await;
        let freed = match &hidden {
            Ok(hidden) => self.inner.free_hidden(hidden, &self.actor).await,
            Err(unfinished) => Err(unfinished.clone()),
        };
        if let Err(unfinished) = freed {
            let template = self.record.id;
            tracing::warn!(%template, error = %unfinished, "left to the reconciler");
        }
        Err(error)
    }

    async fn delete_image_of_nobody(&self) {
        let image = self.record.id;
        if let Ok(None) = self.inner.store.template(image).await
            && let Err(error) = self.inner.order_delete_image(image).await
        {
            tracing::warn!(template = %image, %error, "files not freed yet; the reconciler does it");
        }
    }

    /// Writes the operation's end once, and returns the record as it is then.
    async fn finish(
        &mut self,
        write: impl Fn(&TemplateRecord, Stamp) -> TemplateWrite,
    ) -> Result<TemplateRecord, Error> {
        let mut pause = self.inner.config.backoff;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let ending = write(&self.record, self.inner.stamp(&self.actor));
            let next = updated(&ending).unwrap_or_else(|| self.record.clone());
            let status = ending.operation.as_ref().map(|ended| ended.status.clone());
            let error = match self.inner.store.write_template(ending).await {
                Ok(()) => return Ok(self.ended(next, status)),
                Err(error) => error,
            };
            match self.inner.store.template(self.record.id).await {
                Ok(Some(stored)) if self.is_ours(&stored) => {
                    self.record = TemplateRecord {
                        size: self.record.size,
                        ..stored
                    };
                }
                // The reply was lost: what was to be written stands there.
                Ok(Some(stored)) if stored == next => return Ok(self.ended(stored, status)),
                Ok(_) => return self.ended_elsewhere(next, status.as_ref()).await,
                Err(unread) => {
                    tracing::warn!(error = %unread, "template not read; trying again");
                }
            }
            if attempt >= WRITE_ATTEMPTS {
                return Err(errors::from_store(error));
            }
            self.inner.clock.sleep(pause).await;
            pause *= 2;
        }
    }

    fn ended(&self, record: TemplateRecord, status: Option<OperationStatus>) -> TemplateRecord {
        if let Some(status) = status {
            let now = self.inner.now();
            self.inner.observer.ended(&self.operation, &status, now);
        }
        record
    }

    /// How the operation ended, which is no longer this engine's.
    async fn ended_elsewhere(
        &self,
        next: TemplateRecord,
        wanted: Option<&OperationStatus>,
    ) -> Result<TemplateRecord, Error> {
        let found = self.inner.store.operation(self.operation.id).await;
        let found = found.map_err(errors::from_store)?;
        match found.map(|operation| operation.status) {
            // A reply was lost, or the template was deleted as soon as it was there.
            Some(status) if Some(&status) == wanted => Ok(self.ended(next, Some(status))),
            Some(OperationStatus::Failed { error }) => Err(error),
            _ => Err(Error::Unavailable(format!(
                "the template `{}` was changed by another part of the platform",
                next.name
            ))),
        }
    }
}

/// The size that a sandbox of an image gets by default, so that it holds the content.
fn fitting(size: MachineSize, needed_mb: u32, disk_asked: bool) -> Result<MachineSize, Error> {
    if needed_mb > size.disk_size_mb && disk_asked {
        return Err(errors::from_host(HostError::DiskTooSmall {
            asked_mb: size.disk_size_mb,
            needed_mb,
        }));
    }
    Ok(MachineSize {
        disk_size_mb: size.disk_size_mb.max(needed_mb),
        ..size
    })
}

/// The record that a write leaves, if it leaves one.
fn updated(write: &TemplateWrite) -> Option<TemplateRecord> {
    match &write.change {
        TemplateChange::Insert(record) | TemplateChange::Update(record) => Some(record.clone()),
        TemplateChange::Remove(..) => None,
    }
}

impl Inner {
    /// Gives the order until it is done, is refused, or was repeated often enough.
    async fn order_import(&self, order: HostImport) -> Result<HostImage, HostError> {
        let attempts = async {
            let mut pause = self.config.backoff;
            let mut attempt = 1;
            loop {
                match self.host.import_image(order.clone()).await {
                    Err(error)
                        if errors::worth_repeating(&error)
                            && attempt < self.config.order_attempts =>
                    {
                        tracing::warn!(image = %order.image, %error, "not imported; trying again");
                    }
                    other => return other,
                }
                self.clock.sleep(pause).await;
                attempt += 1;
                pause *= 2;
            }
        };
        tokio::select! {
            biased;
            done = attempts => done,
            () = self.clock.sleep(self.config.import_timeout) => {
                let bound = self.config.import_timeout.as_secs();
                Err(HostError::Unavailable(format!("the import was not done after {bound} s")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_the_default_disk_grows_to_the_content_and_one_that_was_asked_for_does_not() {
        let size = MachineSize::default();
        assert_eq!(fitting(size, 100, true), Ok(size));
        assert_eq!(fitting(size, 5120, true), Ok(size));
        let grown = fitting(size, 6000, false).unwrap();
        assert_eq!(grown.disk_size_mb, 6000);
        assert_eq!((grown.vcpus, grown.memory_mb), (size.vcpus, size.memory_mb));
        let refused = fitting(size, 6000, true).unwrap_err();
        assert!(matches!(refused, Error::InvalidRequest(_)), "{refused:?}");
    }
}
