//! What a client can ask for about template builds.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    build::{
        BuildDetails, BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildRecord, LogCursor,
        SubmitBuild,
    },
    error::Error,
    id::BuildId,
};

/// What a client can ask for about template builds; a part of every [`Api`](super::Api).
///
/// # Errors
/// All calls give [`Error::Forbidden`] for anyone but an administrator, and
/// [`Error::BuildNotFound`] for an unknown build.
#[async_trait]
pub trait BuildsApi: Send + Sync {
    /// Asks for a build. It is queued when this returns, and goes on when the caller goes away.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], naming the field; [`Error::TemplateNotFound`] for its base.
    async fn submit_build(&self, request: SubmitBuild) -> Result<BuildRecord, Error>;

    /// One build, with the steps of its last attempt and what they printed.
    async fn build(&self, id: BuildId) -> Result<BuildDetails, Error>;

    /// A page of builds, without their logs.
    async fn builds(&self, filter: BuildFilter, page: BuildPageRequest)
    -> Result<BuildPage, Error>;

    /// Ends a build that waits or runs. Done twice it succeeds twice.
    ///
    /// # Errors
    /// [`Error::BuildEnded`] where it has succeeded or failed already.
    async fn cancel_build(&self, id: BuildId) -> Result<BuildRecord, Error>;

    /// What follows a place in a build's log, waiting for something to come for as long as `wait`.
    async fn build_log(
        &self,
        id: BuildId,
        after: LogCursor,
        wait: Duration,
    ) -> Result<BuildLog, Error>;

    /// Keeps files for `COPY` and returns the name under which a build asks for them: the SHA-256 of
    /// the upload. It is a tar archive, plain or compressed with gzip, of at most
    /// [`CONTEXT_MAX_BYTES`](crate::build::CONTEXT_MAX_BYTES). What no build asks for is kept for a
    /// day.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] where it is no such archive, or too large.
    async fn upload_context(&self, data: Bytes) -> Result<String, Error>;
}
