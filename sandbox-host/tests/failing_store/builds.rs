//! Template builds in a store that fails.

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    build::{
        BuildFilter, BuildPage, BuildPageRequest, BuildRecord, BuildStep, LogCursor, LogEntry,
    },
    clock::Timestamp,
    id::{BuildId, TeamId},
    store::{BuildStore, BuildWrite, StoreError},
};

use super::FailingStore;

#[async_trait]
impl BuildStore for FailingStore {
    async fn insert_build(&self, write: BuildWrite) -> Result<(), StoreError> {
        self.write(self.records.insert_build(write)).await
    }

    async fn update_build(&self, write: BuildWrite) -> Result<(), StoreError> {
        self.write(self.records.update_build(write)).await
    }

    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, StoreError> {
        self.read(self.records.build(id)).await
    }

    async fn build_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<BuildRecord>, StoreError> {
        self.read(self.records.build_by_idempotency_key(team, key))
            .await
    }

    async fn list_builds(
        &self,
        filter: &BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, StoreError> {
        self.read(self.records.list_builds(filter, page)).await
    }

    async fn build_steps(&self, id: BuildId, attempt: u32) -> Result<Vec<BuildStep>, StoreError> {
        self.read(self.records.build_steps(id, attempt)).await
    }

    async fn append_build_log(
        &self,
        id: BuildId,
        entries: Vec<LogEntry>,
    ) -> Result<(), StoreError> {
        self.write(self.records.append_build_log(id, entries)).await
    }

    async fn build_log(
        &self,
        id: BuildId,
        after: LogCursor,
        max_bytes: u32,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.read(self.records.build_log(id, after, max_bytes))
            .await
    }

    async fn put_context(&self, name: &str, data: Bytes, at: Timestamp) -> Result<(), StoreError> {
        self.write(self.records.put_context(name, data, at)).await
    }

    async fn context(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.read(self.records.context(name)).await
    }

    async fn has_context(&self, name: &str) -> Result<bool, StoreError> {
        self.read(self.records.has_context(name)).await
    }

    async fn remove_contexts_before(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.beside(self.records.remove_contexts_before(before))
            .await
    }

    async fn remove_builds_finished_before(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.beside(self.records.remove_builds_finished_before(before))
            .await
    }
}
