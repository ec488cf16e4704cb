//! Where records are kept.
//!
//! Every method is one transaction: after a crash it has happened whole or not at all. Writes of a
//! sandbox are compare-and-set on its version; the caller decides, the store only compares. The
//! same contract test runs over every implementation.

use async_trait::async_trait;

use crate::{
    audit::AuditEntry,
    clock::Timestamp,
    id::{OperationId, SandboxId, TeamId},
    operation::OperationRecord,
    sandbox::{Page, PageRequest, SandboxFilter, SandboxRecord},
};

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record was written by someone else since it was read, or is gone.
    #[error("the record was changed by someone else")]
    Conflict,
    /// A record with this ID, or this idempotency key, is there already.
    #[error("a record with this ID or idempotency key exists")]
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
    /// The audit entry; absent for writes that change no state, such as a renewed lease.
    pub audit: Option<AuditEntry>,
}

/// Where records are kept.
#[async_trait]
pub trait Store: Send + Sync {
    /// Inserts a new sandbox (version 1).
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when the ID, or the idempotency key within the team, is taken.
    async fn insert_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError>;

    /// Replaces a sandbox's record if the stored version is `write.record.version - 1`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it isn't, or the record is gone.
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

    /// One operation.
    async fn operation(&self, id: OperationId) -> Result<Option<OperationRecord>, StoreError>;

    /// The newest operation on a sandbox, also when the sandbox is gone.
    async fn last_operation_on(&self, id: SandboxId)
    -> Result<Option<OperationRecord>, StoreError>;

    /// Removes operations that ended before `before`, and returns how many there were.
    async fn remove_operations_finished_before(&self, before: Timestamp)
    -> Result<u64, StoreError>;

    /// Audit entries about a resource, by its written ID, oldest first, at most `limit`.
    async fn audit_of(&self, resource: &str, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
}
