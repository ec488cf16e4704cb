//! Each call of core's [`Host`] as a message.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::BytesMut;
use sandbox_core::{
    guest::Guest,
    host::{
        Host, HostCreate, HostError, HostImage, HostImport, HostInfo, HostOrder, HostReport,
        HostSnapshot, ImageDeletion,
    },
    id::{SandboxId, TemplateId},
};
use tarpc::{client::RpcError, context::Context};

use super::{
    RemoteHost,
    guest::RemoteGuest,
    line::{Again, Connection, Failure},
};

/// Orders take the time that they take: a host that has gone shows by its silence.
const ORDER_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// For what is answered at once.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How long a question for the host's health waits for a connection.
const HELLO_PATIENCE: Duration = Duration::from_millis(500);
/// No wait that a caller names is taken to be longer.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// How often a report is asked for anew because its rest was no longer there.
const REPORTS_MAX: u32 = 3;

impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(words) | Failure::Lost(words) => Self::Unavailable(words),
            Failure::NoAnswer(limit) => Self::Unavailable(format!("no answer in {limit:?}")),
            Failure::Busy => Self::Unavailable("the host has too much to do".to_owned()),
            Failure::TooLarge(words) | Failure::Unanswerable(words) => Self::Internal(words),
        }
    }
}

impl RemoteHost {
    /// An order or a question: asked again after a lost connection.
    async fn ask<T, F>(
        &self,
        limit: Duration,
        send: impl Fn(Arc<Connection>, Context) -> F,
    ) -> Result<T, HostError>
    where
        F: Future<Output = Result<Result<T, HostError>, RpcError>>,
    {
        let shared = &self.shared;
        let call = shared
            .line
            .call(Again::Always, shared.patience, limit, send);
        call.await?
    }

    /// A report as of one moment, put together of its pieces.
    async fn report(&self) -> Result<HostReport, HostError> {
        let (connection, first) = self
            .ask(CALL_LIMIT, |connection, context| async move {
                let first = connection.client.list_sandboxes(context).await?;
                Ok(first.map(|first| (connection, first)))
            })
            .await?;
        let whole_bytes = usize::try_from(first.total_bytes).unwrap_or(usize::MAX);
        let mut whole = BytesMut::from(first.data);
        while whole.len() < whole_bytes {
            let offset = whole.len() as u64;
            let piece = self
                .ask(CALL_LIMIT, |connection, context| async move {
                    let client = &connection.client;
                    client
                        .list_sandboxes_more(context, first.report, offset)
                        .await
                })
                .await?;
            if piece.data.is_empty() {
                return Err(HostError::Internal("the report was cut off".to_owned()));
            }
            whole.extend_from_slice(&piece.data);
        }
        let mut report: HostReport = rmp_serde::from_slice(&whole)
            .map_err(|error| HostError::Internal(format!("reading the report: {error}")))?;
        report.sequence = connection.numbers.told(report.sequence);
        Ok(report)
    }
}

#[async_trait]
impl Host for RemoteHost {
    async fn hello(&self) -> Result<HostInfo, HostError> {
        let shared = &self.shared;
        let patience = shared.patience.min(HELLO_PATIENCE);
        let send = |connection: Arc<Connection>, context| async move {
            connection.client.host_info(context).await
        };
        let call = shared.line.call(Again::Always, patience, CALL_LIMIT, send);
        call.await?
    }

    async fn create_sandbox(&self, order: HostCreate) -> Result<(), HostError> {
        self.ask(ORDER_LIMIT, |connection, context| {
            let order = order.clone();
            async move { connection.client.create_sandbox(context, order).await }
        })
        .await
    }

    async fn destroy_sandbox(&self, id: SandboxId, generation: u64) -> Result<(), HostError> {
        self.ask(ORDER_LIMIT, |connection, context| async move {
            let client = &connection.client;
            client.destroy_sandbox(context, id, generation).await
        })
        .await
    }

    async fn pause_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        self.ask(ORDER_LIMIT, |connection, context| async move {
            connection.client.pause_sandbox(context, order).await
        })
        .await
    }

    async fn resume_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        self.ask(ORDER_LIMIT, |connection, context| async move {
            connection.client.resume_sandbox(context, order).await
        })
        .await
    }

    async fn create_snapshot(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        self.ask(ORDER_LIMIT, |connection, context| {
            let order = order.clone();
            async move { connection.client.create_snapshot(context, order).await }
        })
        .await
    }

    async fn flatten_rootfs(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        self.ask(ORDER_LIMIT, |connection, context| {
            let order = order.clone();
            async move { connection.client.flatten_rootfs(context, order).await }
        })
        .await
    }

    async fn import_image(&self, order: HostImport) -> Result<HostImage, HostError> {
        self.ask(ORDER_LIMIT, |connection, context| {
            let order = order.clone();
            async move { connection.client.import_image(context, order).await }
        })
        .await
    }

    async fn delete_snapshot(&self, image: TemplateId) -> Result<ImageDeletion, HostError> {
        self.ask(ORDER_LIMIT, |connection, context| async move {
            connection.client.delete_snapshot(context, image).await
        })
        .await
    }

    async fn list_sandboxes(&self) -> Result<HostReport, HostError> {
        let mut attempts = 1;
        loop {
            match self.report().await {
                // Its rest was no longer there: the host was started anew, or others asked a lot.
                Err(HostError::Unavailable(_)) if attempts < REPORTS_MAX => attempts += 1,
                other => return other,
            }
        }
    }

    async fn changed(&self, seen: u64, wait: Duration) -> Result<u64, HostError> {
        let wait = wait.min(WAIT_MAX);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.ask(wait + CALL_LIMIT, |connection, context| async move {
            // What an earlier process of the host told is behind all that this one has to tell.
            let (seen, wait_ms) = match connection.numbers.untold(seen) {
                Some(seen) => (seen, wait_ms),
                None => (0, 0),
            };
            let newest = connection.client.changed(context, seen, wait_ms).await?;
            Ok(newest.map(|newest| connection.numbers.told(newest)))
        })
        .await
    }

    fn guest(&self, id: SandboxId) -> Arc<dyn Guest> {
        Arc::new(RemoteGuest::new(Arc::clone(&self.shared), id))
    }
}
