//! The store as an engine of a simulated world reaches it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};

use super::{
    World,
    network::Line,
    steps::{self, Step},
};
use crate::{
    audit::AuditEntry,
    clock::Timestamp,
    host::HostSeen,
    id::{HostId, OperationId, SandboxId, TeamId, TemplateId},
    operation::OperationRecord,
    sandbox::{Page, PageRequest, SandboxFilter, SandboxRecord},
    sim::MemoryStore,
    store::{SandboxWrite, Store, StoreError, TemplateWrite},
    template::{TemplateFilter, TemplatePage, TemplatePageRequest, TemplateRecord},
};

pub(super) struct StoreLink(pub(super) Line);

fn lost(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

impl StoreLink {
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(Arc<MemoryStore>) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.0
            .ask(read(Arc::clone(&self.0.world.store)), lost)
            .await
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        step: Step,
        whom: u128,
        write: impl Fn(Arc<World>) -> BoxFuture<'static, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let world = Arc::clone(&self.0.world);
        let act = move || {
            let done = write(Arc::clone(&world));
            let world = Arc::clone(&world);
            async move {
                match world.store_is_full() {
                    true => Err(StoreError::Full("injected".to_owned())),
                    false => done.await,
                }
            }
            .boxed()
        };
        self.0.order(step, whom, act, lost).await
    }
}

#[async_trait]
impl Store for StoreLink {
    async fn insert_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
        let (whom, plane) = (write.record.id.uuid().as_u128(), self.0.plane);
        self.write(steps::insert(&write), whom, move |world| {
            let write = write.clone();
            async move {
                world.store.insert_sandbox(write.clone()).await?;
                world.inserted(&write, plane);
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn update_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
        let (whom, plane) = (write.record.id.uuid().as_u128(), self.0.plane);
        let step = steps::update(&write, self.0.world.recorded(write.record.id).as_ref());
        self.write(step, whom, move |world| {
            let write = write.clone();
            async move {
                world.store.update_sandbox(write.clone()).await?;
                world.updated(&write, plane);
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn remove_sandbox(
        &self,
        id: SandboxId,
        version: u64,
        operation: Option<OperationRecord>,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        let kind = operation.as_ref().map(|operation| operation.kind);
        let plane = self.0.plane;
        self.write(steps::remove(kind), id.uuid().as_u128(), move |world| {
            let (operation, audit) = (operation.clone(), audit.clone());
            async move {
                let entry = audit.clone();
                world
                    .store
                    .remove_sandbox(id, version, operation, audit)
                    .await?;
                world.removed(id, version, &entry, plane);
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
        self.read(|store| async move { store.sandbox(id).await }.boxed())
            .await
    }

    async fn sandbox_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let key = key.to_owned();
        self.read(move |store| {
            async move { store.sandbox_by_idempotency_key(team, &key).await }.boxed()
        })
        .await
    }

    async fn list_sandboxes(
        &self,
        filter: &SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, StoreError> {
        let filter = filter.clone();
        self.read(move |store| async move { store.list_sandboxes(&filter, page).await }.boxed())
            .await
    }

    async fn write_template(&self, write: TemplateWrite) -> Result<(), StoreError> {
        let whom = write.change.id().uuid().as_u128();
        self.write(steps::template(&write), whom, move |world| {
            let write = write.clone();
            async move {
                world.store.write_template(write.clone()).await?;
                world.template_written(&write);
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn template(&self, id: TemplateId) -> Result<Option<TemplateRecord>, StoreError> {
        self.read(|store| async move { store.template(id).await }.boxed())
            .await
    }

    async fn list_templates(
        &self,
        filter: &TemplateFilter,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, StoreError> {
        let filter = filter.clone();
        self.read(move |store| async move { store.list_templates(&filter, page).await }.boxed())
            .await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<OperationRecord>, StoreError> {
        self.read(|store| async move { store.operation(id).await }.boxed())
            .await
    }

    async fn last_operation_on(
        &self,
        id: SandboxId,
    ) -> Result<Option<OperationRecord>, StoreError> {
        self.read(|store| async move { store.last_operation_on(id).await }.boxed())
            .await
    }

    async fn note_host(&self, seen: HostSeen) -> Result<(), StoreError> {
        let whom = u128::from(seen.report.sequence);
        self.write(steps::NOTE_HOST, whom, move |world| {
            async move { world.store.note_host(seen).await }.boxed()
        })
        .await
    }

    async fn host(&self, id: HostId) -> Result<Option<HostSeen>, StoreError> {
        self.read(move |store| async move { store.host(id).await }.boxed())
            .await
    }

    async fn remove_operations_finished_before(
        &self,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write(steps::SWEEP, 0, move |world| {
            async move { world.store.remove_operations_finished_before(before).await }.boxed()
        })
        .await
    }

    async fn audit_of(&self, resource: &str, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let resource = resource.to_owned();
        self.read(move |store| async move { store.audit_of(&resource, limit).await }.boxed())
            .await
    }
}
