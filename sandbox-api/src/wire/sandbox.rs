//! Sandboxes on the wire.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sandbox_core::{
    error::reason_told,
    operation::{Operation, OperationKind},
    sandbox::{self, CreateSandbox, SandboxRecord, SandboxState},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::{
    schema::{environment, labels},
    whole,
};

/// A new sandbox. Everything has a default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    /// What to start from; `minimal` where absent.
    #[schema(example = "minimal", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    template: Option<String>,
    /// Virtual CPUs; 1 where absent.
    #[schema(minimum = 1, maximum = 64)]
    #[serde(default, deserialize_with = "whole::optional")]
    vcpus: Option<u32>,
    /// Memory in MiB (2^20 bytes); 512 where absent.
    #[schema(minimum = 128, maximum = 1_048_576)]
    #[serde(default, deserialize_with = "whole::optional")]
    memory_mb: Option<u32>,
    /// Disk in MiB (2^20 bytes); 5120 where absent.
    #[schema(minimum = 64, maximum = 4_194_304)]
    #[serde(default, deserialize_with = "whole::optional")]
    disk_size_mb: Option<u32>,
    /// Seconds without use after which the sandbox is destroyed or paused; never where absent.
    #[schema(minimum = 1, maximum = 315_360_000_u64)]
    #[serde(default, deserialize_with = "whole::optional")]
    timeout_sec: Option<u64>,
    /// Which of the two; it is destroyed where absent.
    on_timeout: Option<OnTimeout>,
    /// Your own labels, to find the sandbox by.
    #[schema(schema_with = labels)]
    metadata: Option<BTreeMap<String, String>>,
    /// Environment variables of every process in it.
    #[schema(schema_with = environment)]
    env: Option<BTreeMap<String, String>>,
}

impl CreateBody {
    pub(crate) fn into_request(self, idempotency_key: Option<String>) -> CreateSandbox {
        CreateSandbox {
            template: self.template,
            vcpus: self.vcpus,
            memory_mb: self.memory_mb,
            disk_size_mb: self.disk_size_mb,
            timeout_sec: self.timeout_sec,
            on_timeout: self.on_timeout.map(Into::into),
            metadata: self.metadata.unwrap_or_default(),
            env: self.env.unwrap_or_default(),
            idempotency_key,
        }
    }
}

/// What becomes of a sandbox that was not used for `timeout_sec`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnTimeout {
    /// It is destroyed.
    Destroy,
    /// It is paused, if it runs, and never destroyed for want of use.
    Pause,
}

impl From<sandbox::OnTimeout> for OnTimeout {
    fn from(then: sandbox::OnTimeout) -> Self {
        match then {
            sandbox::OnTimeout::Destroy => Self::Destroy,
            sandbox::OnTimeout::Pause => Self::Pause,
        }
    }
}

impl From<OnTimeout> for sandbox::OnTimeout {
    fn from(then: OnTimeout) -> Self {
        match then {
            OnTimeout::Destroy => Self::Destroy,
            OnTimeout::Pause => Self::Pause,
        }
    }
}

/// Where a sandbox stands in its life.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Recorded, and not yet running.
    Pending,
    /// Its machine runs.
    Running,
    /// Its memory and disk are kept; nothing runs.
    Paused,
    /// Its machine has ended; the disk is kept.
    Stopped,
    /// It could not be made to run.
    Error,
    /// Its host is silent.
    Missing,
}

impl From<SandboxState> for State {
    fn from(state: SandboxState) -> Self {
        match state {
            SandboxState::Pending => Self::Pending,
            SandboxState::Running => Self::Running,
            SandboxState::Paused => Self::Paused,
            SandboxState::Stopped => Self::Stopped,
            SandboxState::Error => Self::Error,
            SandboxState::Missing => Self::Missing,
        }
    }
}

impl From<State> for SandboxState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Running => Self::Running,
            State::Paused => Self::Paused,
            State::Stopped => Self::Stopped,
            State::Error => Self::Error,
            State::Missing => Self::Missing,
        }
    }
}

/// What an operation does.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Makes a sandbox run for the first time.
    Create,
    /// Removes a sandbox and all it holds.
    Destroy,
    /// Saves a sandbox's memory and disk and ends its process.
    Pause,
    /// Has a paused sandbox go on.
    Resume,
    /// Makes a template of a sandbox.
    Snapshot,
    /// Makes a template from elsewhere.
    Import,
}

impl From<OperationKind> for Kind {
    fn from(kind: OperationKind) -> Self {
        match kind {
            OperationKind::Create => Self::Create,
            OperationKind::Destroy => Self::Destroy,
            OperationKind::Pause => Self::Pause,
            OperationKind::Resume => Self::Resume,
            OperationKind::Snapshot => Self::Snapshot,
            OperationKind::Import => Self::Import,
        }
    }
}

/// What is being done with a sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InFlight {
    /// The operation's ID: `GET /v1/operations/{id}` has its outcome.
    #[schema(example = "op-0190163d-8694-739b-aea5-966c26f8ad91")]
    id: String,
    /// What it does.
    kind: Kind,
    /// When it began.
    started_at: DateTime<Utc>,
}

impl From<Operation> for InFlight {
    fn from(operation: Operation) -> Self {
        Self {
            id: operation.id.to_string(),
            kind: operation.kind.into(),
            started_at: operation.started_at,
        }
    }
}

/// A sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sandbox {
    /// Its ID.
    #[schema(example = "sb-0190163d-8694-739b-aea5-966c26f8ad91")]
    id: String,
    /// Where it stands.
    state: State,
    /// Why it stands there, for people.
    reason: String,
    /// What is being done with it; null where nothing is.
    #[schema(required = true)]
    operation: Option<InFlight>,
    /// What it was started from.
    template: String,
    /// Virtual CPUs.
    vcpus: u32,
    /// Memory in MiB.
    memory_mb: u32,
    /// Disk in MiB.
    disk_size_mb: u32,
    /// Seconds without use after which it is destroyed or paused; null for never.
    #[schema(required = true)]
    timeout_sec: Option<u64>,
    /// Which of the two.
    on_timeout: OnTimeout,
    /// Your own labels.
    metadata: BTreeMap<String, String>,
    /// Who owns it.
    team_id: String,
    /// The host that it is on.
    #[schema(required = true)]
    host_id: Option<String>,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When it began to run.
    #[schema(required = true)]
    started_at: Option<DateTime<Utc>>,
    /// When it is destroyed or paused unless it is used before.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    /// When this record last changed.
    updated_at: DateTime<Utc>,
}

impl From<SandboxRecord> for Sandbox {
    fn from(record: SandboxRecord) -> Self {
        Self {
            id: record.id.to_string(),
            state: record.state.into(),
            reason: reason_told(record.state, &record.reason).to_owned(),
            operation: record.operation.map(InFlight::from),
            template: record.template.to_string(),
            vcpus: record.size.vcpus,
            memory_mb: record.size.memory_mb,
            disk_size_mb: record.size.disk_size_mb,
            timeout_sec: record.timeout_sec,
            on_timeout: record.on_timeout.into(),
            metadata: record.metadata,
            team_id: record.team_id.to_string(),
            host_id: record.host_id.map(|id| id.to_string()),
            created_at: record.created_at,
            started_at: record.started_at,
            expires_at: record.expires_at,
            updated_at: record.updated_at,
        }
    }
}
