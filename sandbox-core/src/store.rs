//! Where records are kept.
//!
//! Every method is one transaction: after a crash it has happened whole or not at all. Writes of a
//! sandbox are compare-and-set on its version; the caller decides, the store only compares. The
//! same contract test runs over every implementation.

mod builds;

use async_trait::async_trait;

use crate::{
    audit::AuditEntry,
    clock::Timestamp,
    host::HostSeen,
    id::{HostId, OperationId, SandboxId, TeamId, TemplateId},
    operation::OperationRecord,
    sandbox::{Page, PageRequest, SandboxFilter, SandboxRecord, SandboxState},
    template::{TemplateFilter, TemplatePage, TemplatePageRequest, TemplateRecord},
};

pub use builds::{BuildStore, BuildWrite};

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record was written by someone else since it was read, or is gone.
    #[error("the record was changed by someone else")]
    Conflict,
    /// A record with this ID, this idempotency key or this name is there already.
    #[error("a record with this ID, idempotency key or name exists")]
    Duplicate,
    /// The disk that holds the store is full.
    #[error("no space is left for the store: {0}")]
    Full(String),
    /// The store does not answer for now.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored can't be read as a record, or the store refused a statement.
    #[error("the store failed: {0}")]
    Internal(String),
}

/// A write of one sandbox, with the operation that begins or ends with it and its audit entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxWrite {
    /// The record as it shall be. Its `version` is one above the version that must be there now.
    pub record: SandboxRecord,
    /// Operations to insert or replace in the same transaction: the one that begins or ends with
    /// this write, and one that it cuts short.
    pub operations: Vec<OperationRecord>,
    /// A template that begins, is published or given up with this write.
    pub template: Option<TemplateWrite>,
    /// The audit entry; absent for writes that change no state, such as a renewed lease.
    pub audit: Option<AuditEntry>,
}

/// A write of one template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateWrite {
    /// What becomes of the record.
    pub change: TemplateChange,
    /// The operation that begins or ends with it. Absent where a sandbox's write carries it.
    pub operation: Option<OperationRecord>,
    /// The audit entry; absent for writes that change no state.
    pub audit: Option<AuditEntry>,
}

/// What becomes of a template's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateChange {
    /// It is inserted (version 1).
    Insert(TemplateRecord),
    /// It is replaced, if the stored version is one below.
    Update(TemplateRecord),
    /// It is removed, if the stored version is this.
    Remove(TemplateId, u64),
}

impl TemplateChange {
    /// Which template it is about.
    #[must_use]
    pub const fn id(&self) -> TemplateId {
        match self {
            Self::Insert(record) | Self::Update(record) => record.id,
            Self::Remove(id, _) => *id,
        }
    }
}

/// Where records are kept.
#[async_trait]
pub trait Store: BuildStore {
    /// Inserts a new sandbox (version 1).
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when the ID, or the idempotency key within the team, is taken, or
    /// its template's name; [`StoreError::Conflict`] as [`Store::write_template`] says.
    async fn insert_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError>;

    /// Replaces a sandbox's record if the stored version is `write.record.version - 1`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it isn't, or the record is gone, and likewise for its template's;
    /// [`StoreError::Duplicate`] when its template's name is taken.
    async fn update_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError>;

    /// Removes a sandbox's record if the stored version is `version`; the operation and the audit
    /// entry stay.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it isn't, or the record is gone.
    async fn remove_sandbox(
        &self,
        id: SandboxId,
        version: u64,
        operation: Option<OperationRecord>,
        audit: AuditEntry,
    ) -> Result<(), StoreError>;

    /// One sandbox.
    async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError>;

    /// The sandbox that a request with this key made.
    async fn sandbox_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<SandboxRecord>, StoreError>;

    /// A page of sandboxes, ordered by ID.
    async fn list_sandboxes(
        &self,
        filter: &SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxRecord>, StoreError>;

    /// Writes one template.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when an inserted ID is taken, or a written name within the team by
    /// another template, unless one of the two is being deleted. [`StoreError::Conflict`] when the stored version is
    /// another, or the record is gone.
    async fn write_template(&self, write: TemplateWrite) -> Result<(), StoreError>;

    /// One template.
    async fn template(&self, id: TemplateId) -> Result<Option<TemplateRecord>, StoreError>;

    /// A page of templates, ordered by ID.
    async fn list_templates(
        &self,
        filter: &TemplateFilter,
        page: TemplatePageRequest,
    ) -> Result<TemplatePage, StoreError>;

    /// How many sandboxes there are in each state, for those states in which there are any. A store
    /// that can count does; this reads them all.
    async fn count_sandboxes(&self) -> Result<Vec<(SandboxState, u64)>, StoreError> {
        let mut counts = SandboxState::ALL.map(|state| (state, 0));
        let mut page = PageRequest {
            limit: PageRequest::LIMIT_MAX,
            after: None,
        };
        loop {
            let read = self.list_sandboxes(&SandboxFilter::default(), page).await?;
            for record in &read.items {
                for (state, count) in &mut counts {
                    *count += u64::from(*state == record.state);
                }
            }
            page.after = read.next;
            if page.after.is_none() {
                return Ok(counts.into_iter().filter(|(_, count)| *count > 0).collect());
            }
        }
    }

    /// One operation.
    async fn operation(&self, id: OperationId) -> Result<Option<OperationRecord>, StoreError>;

    /// The newest operation on a sandbox, also when the sandbox is gone.
    async fn last_operation_on(&self, id: SandboxId)
    -> Result<Option<OperationRecord>, StoreError>;

    /// Notes that a host was heard; what was noted of it before is replaced.
    async fn note_host(&self, seen: HostSeen) -> Result<(), StoreError>;

    /// When a host was last heard by anyone.
    async fn host(&self, id: HostId) -> Result<Option<HostSeen>, StoreError>;

    /// Removes operations that ended before `before`, and returns how many there were.
    async fn remove_operations_finished_before(&self, before: Timestamp)
    -> Result<u64, StoreError>;

    /// Audit entries about a resource, by its written ID, oldest first, at most `limit`.
    async fn audit_of(&self, resource: &str, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
}
