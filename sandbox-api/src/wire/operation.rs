//! Operations on the wire.

use chrono::{DateTime, Utc};
use sandbox_core::operation::{OperationRecord, OperationStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::{ErrorDetail, reported},
    wire::sandbox::Kind,
};

/// How an operation stands.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = OperationStatus)]
pub(crate) enum Status {
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Ended without doing what was asked.
    Failed,
}

/// An operation with its outcome.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Operation {
    /// Its ID.
    #[schema(example = "op-0190163d-8694-739b-aea5-966c26f8ad91")]
    id: String,
    /// The sandbox that it works on; null where it works on none.
    #[schema(required = true)]
    sandbox_id: Option<String>,
    /// The template that it makes; null where it makes none.
    #[schema(required = true)]
    template_id: Option<String>,
    /// What it does.
    kind: Kind,
    /// How it stands.
    status: Status,
    /// Why it failed; null where it did not.
    #[schema(required = true)]
    error: Option<ErrorDetail>,
    /// When it began.
    started_at: DateTime<Utc>,
    /// When it ended.
    #[schema(required = true)]
    finished_at: Option<DateTime<Utc>>,
}

impl From<OperationRecord> for Operation {
    fn from(record: OperationRecord) -> Self {
        let (status, error) = match record.status {
            OperationStatus::Running => (Status::Running, None),
            OperationStatus::Succeeded => (Status::Succeeded, None),
            OperationStatus::Failed { error } => (Status::Failed, Some(reported(&error))),
        };
        Self {
            id: record.id.to_string(),
            sandbox_id: record.sandbox_id.map(|id| id.to_string()),
            template_id: record.template_id.map(|id| id.to_string()),
            kind: record.kind.into(),
            status,
            error,
            started_at: record.started_at,
            finished_at: record.finished_at,
        }
    }
}
