//! Template builds as one client sees them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    api::BuildsApi,
    build::{
        BuildDetails, BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildRecord, LogCursor,
        SubmitBuild,
    },
    engine::EngineApi,
    error::Error,
    id::BuildId,
};

#[async_trait]
impl BuildsApi for EngineApi {
    async fn submit_build(&self, request: SubmitBuild) -> Result<BuildRecord, Error> {
        self.engine().submit_build(self.caller(), request).await
    }

    async fn build(&self, id: BuildId) -> Result<BuildDetails, Error> {
        self.engine().build_details(self.caller(), id).await
    }

    async fn builds(
        &self,
        filter: BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, Error> {
        self.engine().list_builds(self.caller(), filter, page).await
    }

    async fn cancel_build(&self, id: BuildId) -> Result<BuildRecord, Error> {
        self.engine().cancel_build(self.caller(), id).await
    }

    async fn build_log(
        &self,
        id: BuildId,
        after: LogCursor,
        wait: Duration,
    ) -> Result<BuildLog, Error> {
        self.engine()
            .follow_build(self.caller(), id, after, wait)
            .await
    }

    async fn upload_context(&self, data: Bytes) -> Result<String, Error> {
        self.engine().upload_context(self.caller(), data).await
    }
}
