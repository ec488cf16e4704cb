//! Durable operations: work on a sandbox that outlives whoever asked for it.
//!
//! ```text
//!            begin                 finish
//!   (none) ────────► in flight ─────────────► succeeded
//!                        │                └─► failed (with an error)
//!                        └── lease runs out: the reconciler settles it
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    error::Error,
    id::{OperationId, SandboxId, TemplateId},
};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
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

impl OperationKind {
    /// All kinds, for tables and tests.
    pub const ALL: [Self; 6] = [
        Self::Create,
        Self::Destroy,
        Self::Pause,
        Self::Resume,
        Self::Snapshot,
        Self::Import,
    ];

    /// The kind's name, as stores keep it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Destroy => "destroy",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Snapshot => "snapshot",
            Self::Import => "import",
        }
    }
}

/// An operation in flight, as the sandbox's record carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its ID, under which its outcome is found.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// When it began.
    pub started_at: Timestamp,
    /// Until when its owner is believed to be at work. Renewed while it works; once past, anyone
    /// may settle the sandbox.
    pub lease_until: Timestamp,
}

/// How an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum OperationStatus {
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Ended without doing what was asked.
    Failed {
        /// Why.
        error: Error,
    },
}

/// An operation with its outcome, kept after it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Its ID.
    pub id: OperationId,
    /// The sandbox that it works on, if it does.
    pub sandbox_id: Option<SandboxId>,
    /// The template that it makes, if it does.
    #[serde(default)]
    pub template_id: Option<TemplateId>,
    /// What it does.
    pub kind: OperationKind,
    /// How it stands.
    pub status: OperationStatus,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}
