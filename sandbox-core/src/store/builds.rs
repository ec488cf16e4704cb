//! Where template builds are kept: records, steps, logs and contexts.

use async_trait::async_trait;
use bytes::Bytes;

use super::{StoreError, TemplateWrite};
use crate::{
    audit::AuditEntry,
    build::{
        BuildFilter, BuildPage, BuildPageRequest, BuildRecord, BuildStep, LogCursor, LogEntry,
    },
    clock::Timestamp,
    id::{BuildId, TeamId},
};

/// A write of one build, with what changes together with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildWrite {
    /// The record as it shall be. Its `version` is one above the version that must be there now, or 1
    /// for a new one.
    pub record: BuildRecord,
    /// Steps to insert or replace in the same transaction.
    pub steps: Vec<BuildStep>,
    /// Templates that are written in the same transaction, in this order.
    pub templates: Vec<TemplateWrite>,
    /// The audit entry; absent for writes that change no state.
    pub audit: Option<AuditEntry>,
}

/// Where template builds are kept; a part of every [`Store`](super::Store).
#[async_trait]
pub trait BuildStore: Send + Sync {
    /// Inserts a new build (version 1).
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when the ID, or the idempotency key within the team, is taken.
    async fn insert_build(&self, write: BuildWrite) -> Result<(), StoreError>;

    /// Replaces a build's record if the stored version is `write.record.version - 1`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it isn't, or the record is gone, and likewise for its templates';
    /// [`StoreError::Duplicate`] when a template's name is taken.
    async fn update_build(&self, write: BuildWrite) -> Result<(), StoreError>;

    /// One build.
    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, StoreError>;

    /// The build that a request with this key asked for.
    async fn build_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<BuildRecord>, StoreError>;

    /// A page of builds, ordered by ID, from the end where the filter says so.
    async fn list_builds(
        &self,
        filter: &BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, StoreError>;

    /// The steps of one attempt at a build, in order.
    async fn build_steps(&self, id: BuildId, attempt: u32) -> Result<Vec<BuildStep>, StoreError>;

    /// Adds pieces to a build's log. One whose cursor is there already is left as it is, so that this
    /// can be done again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the build is gone.
    async fn append_build_log(&self, id: BuildId, entries: Vec<LogEntry>)
    -> Result<(), StoreError>;

    /// Pieces of a build's log behind `after`, in order: as many as fit in `max_bytes` of data, and
    /// one at least where there is one.
    async fn build_log(
        &self,
        id: BuildId,
        after: LogCursor,
        max_bytes: u32,
    ) -> Result<Vec<LogEntry>, StoreError>;

    /// Keeps a build context under the name of its content. One that is there already is as if it had
    /// been kept now.
    async fn put_context(&self, name: &str, data: Bytes, at: Timestamp) -> Result<(), StoreError>;

    /// A build context.
    async fn context(&self, name: &str) -> Result<Option<Bytes>, StoreError>;

    /// Whether a build context is there.
    async fn has_context(&self, name: &str) -> Result<bool, StoreError>;

    /// Removes contexts that were kept before `before` and that no pending or running build names, and
    /// returns how many there were.
    async fn remove_contexts_before(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Removes builds that ended before `before`, with their steps and logs, and returns how many
    /// there were.
    async fn remove_builds_finished_before(&self, before: Timestamp) -> Result<u64, StoreError>;
}
