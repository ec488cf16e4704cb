//! Template builds in the store, as an engine of a simulated world reaches them.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::FutureExt;

use super::{steps, store_link::StoreLink};
use crate::{
    build::{
        BuildFilter, BuildPage, BuildPageRequest, BuildRecord, BuildStep, LogCursor, LogEntry,
    },
    clock::Timestamp,
    id::{BuildId, TeamId},
    store::{BuildStore, BuildWrite, StoreError},
};

#[async_trait]
impl BuildStore for StoreLink {
    async fn insert_build(&self, write: BuildWrite) -> Result<(), StoreError> {
        let whom = write.record.id.uuid().as_u128();
        self.write(steps::BUILD_SUBMIT, whom, move |world| {
            let write = write.clone();
            async move { world.store.insert_build(write).await }.boxed()
        })
        .await
    }

    async fn update_build(&self, write: BuildWrite) -> Result<(), StoreError> {
        let whom = write.record.id.uuid().as_u128();
        self.write(steps::build(&write), whom, move |world| {
            let write = write.clone();
            async move { world.store.update_build(write).await }.boxed()
        })
        .await
    }

    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, StoreError> {
        self.read(move |store| async move { store.build(id).await }.boxed())
            .await
    }

    async fn build_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<BuildRecord>, StoreError> {
        let key = key.to_owned();
        self.read(move |store| {
            async move { store.build_by_idempotency_key(team, &key).await }.boxed()
        })
        .await
    }

    async fn list_builds(
        &self,
        filter: &BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, StoreError> {
        let filter = filter.clone();
        self.read(move |store| async move { store.list_builds(&filter, page).await }.boxed())
            .await
    }

    async fn build_steps(&self, id: BuildId, attempt: u32) -> Result<Vec<BuildStep>, StoreError> {
        self.read(move |store| async move { store.build_steps(id, attempt).await }.boxed())
            .await
    }

    async fn append_build_log(
        &self,
        id: BuildId,
        entries: Vec<LogEntry>,
    ) -> Result<(), StoreError> {
        let whom = id.uuid().as_u128();
        self.write(steps::BUILD_LOG, whom, move |world| {
            let entries = entries.clone();
            async move { world.store.append_build_log(id, entries).await }.boxed()
        })
        .await
    }

    async fn build_log(
        &self,
        id: BuildId,
        after: LogCursor,
        max_bytes: u32,
    ) -> Result<Vec<LogEntry>, StoreError> {
        self.read(move |store| async move { store.build_log(id, after, max_bytes).await }.boxed())
            .await
    }

    async fn put_context(&self, name: &str, data: Bytes, at: Timestamp) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(steps::BUILD_CONTEXT, 0, move |world| {
            let (name, data) = (name.clone(), data.clone());
            async move { world.store.put_context(&name, data, at).await }.boxed()
        })
        .await
    }

    async fn context(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let name = name.to_owned();
        self.read(move |store| async move { store.context(&name).await }.boxed())
            .await
    }

    async fn has_context(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.read(move |store| async move { store.has_context(&name).await }.boxed())
            .await
    }

    async fn remove_contexts_before(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(steps::SWEEP, 1, move |world| {
            async move { world.store.remove_contexts_before(before).await }.boxed()
        })
        .await
    }

    async fn remove_builds_finished_before(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(steps::SWEEP, 2, move |world| {
            async move { world.store.remove_builds_finished_before(before).await }.boxed()
        })
        .await
    }
}
