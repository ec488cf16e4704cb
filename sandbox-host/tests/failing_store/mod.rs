//! A store that fails at a write of the test's choice.

#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test's helper fails the test"
)]

mod builds;

use std::{future::Future, sync::Mutex};

use async_trait::async_trait;
use sandbox_core::{
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

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// From the write on nothing works any more, reading included.
    Gone,
    /// The write is done, and from then on nothing works any more.
    GoneBehind,
    /// The write is done, and its reply is lost.
    ReplyLost,
    /// From the write on nothing can be written.
    Full,
}

impl Failure {
    pub(crate) const ALL: [Self; 4] = [Self::Gone, Self::GoneBehind, Self::ReplyLost, Self::Full];
}

#[derive(Debug, Default)]
struct Plan {
    /// The failure, and how many writes go well before it.
    armed: Option<(Failure, u32)>,
    /// What goes on since it struck.
    struck: Option<Failure>,
}

#[derive(Debug, Default)]
pub(crate) struct FailingStore {
    records: MemoryStore,
    plan: Mutex<Plan>,
}

impl FailingStore {
    pub(crate) fn arm(&self, failure: Failure, after_writes: u32) {
        *self.plan.lock().unwrap() = Plan {
            armed: Some((failure, after_writes)),
            struck: None,
        };
    }

    /// Works again; whether it had failed.
    pub(crate) fn heal(&self) -> bool {
        let plan = std::mem::take(&mut *self.plan.lock().unwrap());
        plan.struck.is_some()
    }

    async fn read<T>(
        &self,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let struck = self.plan.lock().unwrap().struck;
        match struck {
            Some(Failure::Gone | Failure::GoneBehind) => Err(gone()),
            Some(Failure::ReplyLost | Failure::Full) | None => read.await,
        }
    }

    /// A write that belongs to no operation, and comes at any time.
    async fn beside<T>(
        &self,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let struck = self.plan.lock().unwrap().struck;
        match struck {
            Some(Failure::Full) => Err(full()),
            _ => self.read(write).await,
        }
    }

    async fn write<T>(
        &self,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (strikes, struck) = self.plan.lock().unwrap().next();
        match (strikes, struck) {
            (true, Some(Failure::GoneBehind | Failure::ReplyLost)) => {
                write.await?;
                Err(gone())
            }
            (false, Some(Failure::ReplyLost)) | (_, None) => write.await,
            (_, Some(Failure::Gone | Failure::GoneBehind)) => Err(gone()),
            (_, Some(Failure::Full)) => Err(full()),
        }
    }
}

impl Plan {
    /// Whether the failure strikes at this write, and which one is in force.
    fn next(&mut self) -> (bool, Option<Failure>) {
        let strikes = match &mut self.armed {
            Some((failure, 0)) => {
                self.struck = Some(*failure);
                self.armed = None;
                true
            }
            Some((_, left)) => {
                *left -= 1;
                false
            }
            None => false,
        };
        (strikes, self.struck)
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("a test has taken it away".to_owned())
}

fn full() -> StoreError {
    StoreError::Full("a test's disk".to_owned())
}

#[async_trait]
impl Store for FailingStore {
    async fn insert_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
        self.write(self.records.insert_sandbox(write)).await
    }

    async fn update_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
        self.write(self.records.update_sandbox(write)).await
    }

    async fn remove_sandbox(
        &self,
        id: SandboxId,
        version: u64,
        operation: Option<OperationRecord>,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        let removed = self.records.remove_sandbox(id, version, operation, audit);
        self.write(removed).await
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
        self.read(self.records.sandbox(id)).await
    }

    async fn sandbox_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let found = self.records.sandbox_by_idempotency_key(team, key);
        self.read(found).await
    }

    async fn list_sandboxes(
        &self,
        filter: &SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, StoreError> {
        self.read(self.records.list_sandboxes(filter, page)).await
    }

    async fn write_template(&self, write: TemplateWrite) -> Result<(), StoreError> {
        self.write(self.records.write_template(write)).await
    }

    async fn template(&self, id: TemplateId) -> Result<Option<TemplateRecord>, StoreError> {
        self.read(self.records.template(id)).await
    }

    async fn list_templates(
        &self,
        filter: &TemplateFilter,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, StoreError> {
        self.read(self.records.list_templates(filter, page)).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<OperationRecord>, StoreError> {
        self.read(self.records.operation(id)).await
    }

    async fn last_operation_on(
        &self,
        id: SandboxId,
    ) -> Result<Option<OperationRecord>, StoreError> {
        self.read(self.records.last_operation_on(id)).await
    }

    async fn note_host(&self, seen: HostSeen) -> Result<(), StoreError> {
        self.beside(self.records.note_host(seen)).await
    }

    async fn host(&self, id: HostId) -> Result<Option<HostSeen>, StoreError> {
        self.read(self.records.host(id)).await
    }

    async fn remove_operations_finished_before(
        &self,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let removed = self.records.remove_operations_finished_before(before);
        self.beside(removed).await
    }

    async fn audit_of(&self, resource: &str, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(self.records.audit_of(resource, limit)).await
    }
}
