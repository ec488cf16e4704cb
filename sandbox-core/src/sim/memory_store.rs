//! A store in memory. One mutex is one transaction.

mod builds;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    audit::AuditEntry,
    build::{BuildRecord, BuildStep, LogCursor, LogEntry},
    clock::Timestamp,
    host::HostSeen,
    id::{BuildId, HostId, OperationId, SandboxId, TeamId, TemplateId},
    operation::{OperationRecord, OperationStatus},
    planted::{Bug, planted},
    sandbox::{Page, PageRequest, SandboxFilter, SandboxRecord},
    store::{SandboxWrite, Store, StoreError, TemplateChange, TemplateWrite},
    template::{TemplateFilter, TemplatePage, TemplatePageRequest, TemplateRecord, TemplateState},
};

/// A store in memory, for tests and simulation. Clones of an `Arc` of it are one store, so a new
/// engine over the same one is a restart of the control plane.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    sandboxes: BTreeMap<SandboxId, SandboxRecord>,
    templates: BTreeMap<TemplateId, TemplateRecord>,
    operations: BTreeMap<OperationId, OperationRecord>,
    builds: BTreeMap<BuildId, BuildRecord>,
    build_steps: BTreeMap<(BuildId, u32, u32), BuildStep>,
    build_log: BTreeMap<(BuildId, LogCursor), LogEntry>,
    contexts: BTreeMap<String, (Timestamp, Bytes)>,
    audit: Vec<AuditEntry>,
    hosts: BTreeMap<HostId, HostSeen>,
    transactions: u64,
    faults: Vec<Fault>,
    latency: Duration,
}

#[derive(Debug)]
enum Fault {
    BeforeWrite,
    AfterWrite,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls were made so far.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.lock().transactions
    }

    /// The next write fails and changes nothing.
    pub fn fail_next_write(&self) {
        self.lock().faults.push(Fault::BeforeWrite);
    }

    /// The next write happens, and its caller is told that the store is unavailable.
    pub fn lose_next_reply(&self) {
        self.lock().faults.push(Fault::AfterWrite);
    }

    /// Forgets the faults that have not struck yet.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// From now on each call takes this long before its transaction.
    pub fn slow_down(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// All operations, oldest first.
    #[must_use]
    pub fn all_operations(&self) -> Vec<OperationRecord> {
        self.lock().operations.values().cloned().collect()
    }

    /// All records, oldest first.
    #[must_use]
    pub fn all_sandboxes(&self) -> Vec<SandboxRecord> {
        self.lock().sandboxes.values().cloned().collect()
    }

    /// All templates in whatever state, oldest first.
    #[must_use]
    pub fn all_templates(&self) -> Vec<TemplateRecord> {
        self.lock().templates.values().cloned().collect()
    }

    /// All builds, oldest first.
    #[must_use]
    pub fn all_builds(&self) -> Vec<BuildRecord> {
        self.lock().builds.values().cloned().collect()
    }

    /// The audit log, oldest first.
    #[must_use]
    pub fn all_audit(&self) -> Vec<AuditEntry> {
        self.lock().audit.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic of another holder leaves no half-done change: changes come after all checks.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A real store never answers within the caller's turn.
    async fn travel(&self) {
        let latency = self.lock().latency;
        if latency.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(latency).await;
        }
    }

    async fn read<T>(&self, query: impl FnOnce(&Tables) -> T) -> T {
        self.travel().await;
        let mut tables = self.lock();
        tables.transactions += 1;
        query(&tables)
    }

    async fn write<T>(
        &self,
        change: impl FnOnce(&mut Tables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.travel().await;
        let mut tables = self.lock();
        tables.transactions += 1;
        match tables.faults.pop() {
            None => change(&mut tables),
            Some(Fault::BeforeWrite) => Err(StoreError::Unavailable("injected".to_owned())),
            Some(Fault::AfterWrite) => {
                change(&mut tables)?;
                Err(StoreError::Unavailable(
                    "injected, after the write".to_owned(),
                ))
            }
        }
    }
}

impl Tables {
    fn note(&mut self, operations: impl IntoIterator<Item = OperationRecord>) {
        for operation in operations {
            self.operations.insert(operation.id, operation);
        }
    }

    fn at_version(&self, id: SandboxId, version: u64) -> Result<(), StoreError> {
        match self.sandboxes.get(&id) {
            Some(record) if record.version == version => Ok(()),
            _ if planted(Bug::UnconditionalUpdate) => Ok(()),
            _ => Err(StoreError::Conflict),
        }
    }

    /// Whether a template may be written so. Writing it afterwards can't fail.
    fn check(&self, change: &TemplateChange) -> Result<(), StoreError> {
        let expected = match change {
            TemplateChange::Insert(record) if self.templates.contains_key(&record.id) => {
                return Err(StoreError::Duplicate);
            }
            TemplateChange::Insert(_) => None,
            TemplateChange::Update(record) => {
                let before = record.version.checked_sub(1);
                Some((record.id, before.ok_or(StoreError::Conflict)?))
            }
            TemplateChange::Remove(id, version) => Some((*id, *version)),
        };
        if let Some((id, version)) = expected {
            let there = self.templates.get(&id);
            if there.is_none_or(|record| record.version != version) {
                return Err(StoreError::Conflict);
            }
        }
        match change {
            TemplateChange::Insert(record) | TemplateChange::Update(record)
                if self.takes_name_of_another(record) =>
            {
                Err(StoreError::Duplicate)
            }
            _ => Ok(()),
        }
    }

    fn takes_name_of_another(&self, record: &TemplateRecord) -> bool {
        record.state != TemplateState::Deleting
            && self.templates.values().any(|other| {
                other.id != record.id
                    && other.state != TemplateState::Deleting
                    && (other.team_id, &other.name) == (record.team_id, &record.name)
            })
    }

    /// Writes what was [checked](Tables::check) before.
    fn put(&mut self, write: TemplateWrite) {
        self.put_record(write.change);
        self.note(write.operation);
        self.audit.extend(write.audit);
    }

    fn put_record(&mut self, change: TemplateChange) {
        match change {
            TemplateChange::Insert(record) | TemplateChange::Update(record) => {
                self.templates.insert(record.id, record);
            }
            TemplateChange::Remove(id, _) => {
                self.templates.remove(&id);
            }
        }
    }

    /// Writes what was checked before.
    fn put_sandbox(&mut self, write: SandboxWrite) {
        self.sandboxes.insert(write.record.id, write.record);
        self.note(write.operations);
        self.audit.extend(write.audit);
        if let Some(template) = write.template {
            self.put(template);
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn insert_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
        self.write(|tables| {
            let key = (write.record.team_id, write.record.idempotency_key.as_ref());
            let key_taken = key.1.is_some()
                && !planted(Bug::KeyIgnored)
                && tables
                    .sandboxes
                    .values()
                    .any(|other| (other.team_id, other.idempotency_key.as_ref()) == key);
            if key_taken || tables.sandboxes.contains_key(&write.record.id) {
                return Err(StoreError::Duplicate);
            }
            if let Some(template) = &write.template {
                tables.check(&template.change)?;
            }
            tables.put_sandbox(write);
            Ok(())
        })
        .await
    }

    async fn update_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
        self.write(|tables| {
            let expected = write.record.version.checked_sub(1);
            tables.at_version(write.record.id, expected.ok_or(StoreError::Conflict)?)?;
            if let Some(template) = &write.template {
                tables.check(&template.change)?;
            }
            tables.put_sandbox(write);
            Ok(())
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
        self.write(|tables| {
            tables.at_version(id, version)?;
            tables.sandboxes.remove(&id);
            tables.note(operation);
            tables.audit.push(audit);
            Ok(())
        })
        .await
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
        Ok(self.read(|tables| tables.sandboxes.get(&id).cloned()).await)
    }

    async fn sandbox_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        Ok(self
            .read(|tables| {
                tables
                    .sandboxes
                    .values()
                    .find(|record| {
                        record.team_id == team && record.idempotency_key.as_deref() == Some(key)
                    })
                    .cloned()
            })
            .await)
    }

    async fn list_sandboxes(
        &self,
        filter: &SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, StoreError> {
        Ok(self
            .read(|tables| {
                let limit = page.limit.clamp(1, PageRequest::LIMIT_MAX) as usize;
                let mut items: Vec<SandboxRecord> = tables
                    .sandboxes
                    .values()
                    .filter(|record| page.after.is_none_or(|after| record.id > after))
                    .filter(|record| filter.matches(record))
                    .take(limit + 1)
                    .cloned()
                    .collect();
                let more = items.len() > limit;
                items.truncate(limit);
                Page {
                    next: items.last().filter(|_| more).map(|record| record.id),
                    items,
                }
            })
            .await)
    }

    async fn write_template(&self, write: TemplateWrite) -> Result<(), StoreError> {
        self.write(|tables| {
            tables.check(&write.change)?;
            tables.put(write);
            Ok(())
        })
        .await
    }

    async fn template(&self, id: TemplateId) -> Result<Option<TemplateRecord>, StoreError> {
        Ok(self.read(|tables| tables.templates.get(&id).cloned()).await)
    }

    async fn list_templates(
        &self,
        filter: &TemplateFilter,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, StoreError> {
        Ok(self
            .read(|tables| {
                let limit = page.limit.clamp(1, PageRequest::LIMIT_MAX) as usize;
                let mut items: Vec<TemplateRecord> = tables
                    .templates
                    .values()
                    .filter(|record| page.after.is_none_or(|after| record.id > after))
                    .filter(|record| filter.matches(record))
                    .take(limit + 1)
                    .cloned()
                    .collect();
                let more = items.len() > limit;
                items.truncate(limit);
                TemplatePage {
                    next: items.last().filter(|_| more).map(|record| record.id),
                    items,
                }
            })
            .await)
    }

    async fn operation(&self, id: OperationId) -> Result<Option<OperationRecord>, StoreError> {
        Ok(self
            .read(|tables| tables.operations.get(&id).cloned())
            .await)
    }

    async fn last_operation_on(
        &self,
        id: SandboxId,
    ) -> Result<Option<OperationRecord>, StoreError> {
        Ok(self
            .read(|tables| {
                tables
                    .operations
                    .values()
                    .filter(|operation| operation.sandbox_id == Some(id))
                    .max_by_key(|operation| (operation.started_at, operation.id))
                    .cloned()
            })
            .await)
    }

    async fn note_host(&self, seen: HostSeen) -> Result<(), StoreError> {
        self.write(|tables| {
            tables.hosts.insert(seen.host_id, seen);
            Ok(())
        })
        .await
    }

    async fn host(&self, id: HostId) -> Result<Option<HostSeen>, StoreError> {
        Ok(self.read(|tables| tables.hosts.get(&id).copied()).await)
    }

    async fn remove_operations_finished_before(
        &self,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write(|tables| {
            let count = tables.operations.len();
            tables.operations.retain(|_, operation| {
                operation.status == OperationStatus::Running
                    || operation.finished_at.is_none_or(|at| at >= before)
            });
            Ok((count - tables.operations.len()) as u64)
        })
        .await
    }

    async fn audit_of(&self, resource: &str, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(self
            .read(|tables| {
                let mut entries: Vec<AuditEntry> = tables
                    .audit
                    .iter()
                    .filter(|entry| entry.resource == resource)
                    .cloned()
                    .collect();
                entries.sort_by_key(|entry| (entry.at, entry.id));
                entries.truncate(limit as usize);
                entries
            })
            .await)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn fresh() -> (Arc<dyn Store>, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    crate::store_contract!(fresh);
}
