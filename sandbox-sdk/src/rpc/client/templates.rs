//! What takes long at the other side and goes on there, whatever becomes of this connection.
//!
//! ```text
//!  pause ──► nothing yet, asked again under the same request ID ... ──► the sandbox
//!
//!  begin ──► operation ──wait──► running ──wait──► ... ──► succeeded ──► the template
//!               │                                    └──► failed, with its error
//!               └─ its ID outlives the control plane's process: a lost one is waited for
//! ```

use sandbox_core::{
    api::Api,
    error::Error,
    id::{OperationId, SandboxId},
    operation::OperationStatus,
    sandbox::SandboxRecord,
    template::{ImportTemplate, SnapshotRequest, TemplateRecord},
};
use uuid::Uuid;

use super::{Again, Remote, api::CALL_LIMIT};
use crate::rpc::protocol::SNAPSHOTS;

/// Which way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Pause,
    Resume,
}

impl Remote {
    pub(super) async fn turn(&self, turn: Turn, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.need(SNAPSHOTS).await?;
        let request = Uuid::now_v7();
        loop {
            // Another process than the one that began it finds the sandbox so, or on its way.
            let turned = self.call(Again::Always, CALL_LIMIT, |client, context| async move {
                match turn {
                    Turn::Pause => client.pause(context, request, id).await,
                    Turn::Resume => client.resume(context, request, id).await,
                }
            });
            if let Some(record) = turned.await? {
                return Ok(record);
            }
        }
    }

    pub(super) async fn begin_to_snapshot(
        &self,
        snapshot: SnapshotRequest,
    ) -> Result<OperationId, Error> {
        self.need(SNAPSHOTS).await?;
        let request = Uuid::now_v7();
        self.call(Again::SameInstance, CALL_LIMIT, |client, context| {
            let snapshot = snapshot.clone();
            async move { client.begin_snapshot(context, request, snapshot).await }
        })
        .await
    }

    pub(super) async fn begin_to_import(
        &self,
        import: ImportTemplate,
    ) -> Result<OperationId, Error> {
        self.need(SNAPSHOTS).await?;
        let request = Uuid::now_v7();
        self.call(Again::SameInstance, CALL_LIMIT, |client, context| {
            let import = import.clone();
            async move { client.begin_import(context, request, import).await }
        })
        .await
    }

    /// The template that an operation makes, once it is made.
    pub(super) async fn made_by(&self, id: OperationId) -> Result<TemplateRecord, Error> {
        loop {
            let waited = self.call(Again::Always, CALL_LIMIT, |client, context| async move {
                client.wait_operation(context, id).await
            });
            let operation = waited.await.map_err(|error| match error {
                Error::Unavailable(words) => {
                    Error::Unavailable(format!("{words}; its outcome will be under {id}"))
                }
                other => other,
            })?;
            match operation.status {
                OperationStatus::Running => {}
                OperationStatus::Failed { error } => return Err(error),
                OperationStatus::Succeeded => {
                    let made = operation.template_id.ok_or_else(|| {
                        Error::Internal(format!("{id} has made something that is no template"))
                    })?;
                    return self.template(&made.to_string()).await;
                }
            }
        }
    }
}
