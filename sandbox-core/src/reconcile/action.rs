//! What the reconciler orders.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::SandboxId;

/// One repair. `version` is the record's at planning; at any other the action is void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// The machine is not there or has ended: the record says so from now on.
    MarkStopped {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
        /// Why, for people.
        reason: String,
    },
    /// The machine runs after all.
    MarkRunning {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// A create without an owner reached its end on the host.
    CompleteCreate {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// A create without an owner did not: what the host has of it goes, then the record.
    UndoCreate {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// A destroy without an owner is done again.
    RedoDestroy {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// The deadline has passed: a destroy begins.
    Expire {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// The host frees what it has of a sandbox whose record stays.
    CleanUp {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
        /// The record's generation.
        generation: u64,
    },
    /// The host frees a machine that no record knows, if there is still none.
    DestroyUnknown {
        /// Which sandbox.
        id: SandboxId,
        /// The machine's generation.
        generation: u64,
    },
}

impl Action {
    /// Which sandbox it is about.
    #[must_use]
    pub const fn id(&self) -> SandboxId {
        match self {
            Self::MarkStopped { id, .. }
            | Self::MarkRunning { id, .. }
            | Self::CompleteCreate { id, .. }
            | Self::UndoCreate { id, .. }
            | Self::RedoDestroy { id, .. }
            | Self::Expire { id, .. }
            | Self::CleanUp { id, .. }
            | Self::DestroyUnknown { id, .. } => *id,
        }
    }

    /// The version that it was planned on; absent where there was no record.
    #[must_use]
    pub const fn version(&self) -> Option<u64> {
        match self {
            Self::MarkStopped { version, .. }
            | Self::MarkRunning { version, .. }
            | Self::CompleteCreate { version, .. }
            | Self::UndoCreate { version, .. }
            | Self::RedoDestroy { version, .. }
            | Self::Expire { version, .. }
            | Self::CleanUp { version, .. } => Some(*version),
            Self::DestroyUnknown { .. } => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MarkStopped { reason, .. } => write!(f, "mark stopped ({reason})"),
            Self::MarkRunning { .. } => f.write_str("mark running"),
            Self::CompleteCreate { .. } => f.write_str("complete the create"),
            Self::UndoCreate { .. } => f.write_str("undo the create"),
            Self::RedoDestroy { .. } => f.write_str("destroy again"),
            Self::Expire { .. } => f.write_str("expire"),
            Self::CleanUp { generation, .. } => {
                write!(
                    f,
                    "free what the host has of it up to generation {generation}"
                )
            }
            Self::DestroyUnknown { generation, .. } => {
                write!(f, "destroy the unknown machine of generation {generation}")
            }
        }
    }
}
