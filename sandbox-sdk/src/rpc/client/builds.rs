//! Template builds at the other side.
//!
//! ```text
//!  context: piece, piece, … ──► keep ──► its name
//!     ▲        │ the connection was lost: the other side has nothing of it any more
//!     └────────┘
//! ```

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    api::BuildsApi,
    build::{
        BuildDetails, BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildRecord, LogCursor,
        LogStream, SubmitBuild,
    },
    error::Error,
    id::BuildId,
};
use uuid::Uuid;

use super::{
    Again, Remote,
    api::{CALL_LIMIT, SLOW_CALL_LIMIT, WAIT_MAX},
};
use crate::rpc::protocol::BUILDS;

/// The most of a context in one message, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;
/// How often an upload begins anew.
const UPLOADS_MAX: u32 = 5;

#[async_trait]
impl BuildsApi for Remote {
    async fn submit_build(&self, mut request: SubmitBuild) -> Result<BuildRecord, Error> {
        self.need(BUILDS).await?;
        // A key of our own for a request that has none: a build whose answer is lost is found again.
        let given = request.idempotency_key.take();
        let key = given.unwrap_or_else(|| format!("auto-{}", Uuid::now_v7()));
        self.call(Again::Always, CALL_LIMIT, |client, context| {
            let (request, key) = (request.clone(), key.clone());
            async move { client.submit_build(context, request, key).await }
        })
        .await
    }

    async fn build(&self, id: BuildId) -> Result<BuildDetails, Error> {
        self.need(BUILDS).await?;
        let told = self
            .call(Again::Always, CALL_LIMIT, |client, context| async move {
                client.build(context, id).await
            })
            .await?;
        let mut build = told.build;
        if told.without_output {
            self.fill_in_output(&mut build).await?;
        }
        Ok(build)
    }

    async fn builds(
        &self,
        filter: BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, Error> {
        self.need(BUILDS).await?;
        self.call(Again::Always, CALL_LIMIT, |client, context| {
            let filter = filter.clone();
            async move { client.builds(context, filter, page).await }
        })
        .await
    }

    async fn cancel_build(&self, id: BuildId) -> Result<BuildRecord, Error> {
        self.need(BUILDS).await?;
        self.call(Again::Always, CALL_LIMIT, |client, context| async move {
            client.cancel_build(context, id).await
        })
        .await
    }

    async fn build_log(
        &self,
        id: BuildId,
        after: LogCursor,
        wait: Duration,
    ) -> Result<BuildLog, Error> {
        self.need(BUILDS).await?;
        let wait = wait.min(WAIT_MAX);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.call(
            Again::Always,
            wait + CALL_LIMIT,
            |client, context| async move { client.build_log(context, id, after, wait_ms).await },
        )
        .await
    }

    async fn upload_context(&self, data: Bytes) -> Result<String, Error> {
        self.need(BUILDS).await?;
        for _ in 0..UPLOADS_MAX {
            if let Some(name) = self.upload_once(&data).await? {
                return Ok(name);
            }
        }
        Err(Error::Unavailable(
            "the connection is lost each time before the context is uploaded".to_owned(),
        ))
    }
}

impl Remote {
    /// Nothing where the connection was lost in the middle.
    async fn upload_once(&self, data: &Bytes) -> Result<Option<String>, Error> {
        let upload = Uuid::now_v7();
        let mut offset = 0;
        loop {
            let piece = data.slice(offset..data.len().min(offset + PIECE_BYTES));
            let end = offset + piece.len();
            let there = self
                .call(Again::Always, CALL_LIMIT, |client, context| {
                    let piece = piece.clone();
                    async move {
                        client
                            .context_piece(context, upload, offset as u64, piece)
                            .await
                    }
                })
                .await?;
            if there != end as u64 {
                return Ok(None);
            }
            offset = end;
            if offset == data.len() {
                break;
            }
        }
        let size = data.len() as u64;
        self.call(
            Again::Always,
            SLOW_CALL_LIMIT,
            |client, context| async move { client.keep_context(context, upload, size).await },
        )
        .await
    }

    /// Puts in what the steps printed, from the log.
    async fn fill_in_output(&self, build: &mut BuildDetails) -> Result<(), Error> {
        let attempt = u64::from(build.record.attempt);
        let steps = build.steps.iter().enumerate();
        let places: HashMap<u32, usize> = steps.map(|(at, step)| (step.step.step, at)).collect();
        let mut after = LogCursor::new(build.record.attempt, 0);
        loop {
            let log = self
                .build_log(build.record.id, after, Duration::ZERO)
                .await?;
            let Some(last) = log.entries.last() else {
                return Ok(());
            };
            after = last.cursor;
            for entry in log.entries {
                let place = places.get(&entry.step);
                let place = place.filter(|_| entry.cursor.attempt() == attempt);
                if let Some(step) = place.and_then(|at| build.steps.get_mut(*at)) {
                    match entry.stream {
                        LogStream::Stdout => step.stdout.extend_from_slice(&entry.data),
                        LogStream::Stderr | LogStream::Note => {
                            step.stderr.extend_from_slice(&entry.data);
                        }
                    }
                }
            }
        }
    }
}
