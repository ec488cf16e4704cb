//! What the reconciler orders.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    id::{BuildId, SandboxId, TemplateId},
    lifecycle::Standing,
};

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
    /// The machine is paused.
    MarkPaused {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// The host has been silent for too long: nobody knows how the machine stands.
    MarkMissing {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
        /// Since when, for people.
        reason: String,
    },
    /// A pause, resume or snapshot without an owner ends with the state that the host shows.
    SettleOperation {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
        /// How the machine stands.
        standing: Standing,
    },
    /// A template that nobody makes any more: it is hidden, so that nobody can publish it, and then
    /// freed like a deleted one.
    GiveUpTemplate {
        /// Which template.
        id: TemplateId,
        /// Planned on this version.
        version: u64,
    },
    /// A hidden template without users: what the host has of it goes, then the record.
    FreeTemplate {
        /// Which template.
        id: TemplateId,
        /// Planned on this version.
        version: u64,
    },
    /// The host frees an image that no template names, if there is still none.
    DeleteUnknownImage {
        /// Which image.
        image: TemplateId,
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
    /// The deadline has passed, and its creator chose that it is paused then.
    PauseUnused {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// Its build does not work in it any more: a destroy begins.
    EndBuildSandbox {
        /// Which sandbox.
        id: SandboxId,
        /// Planned on this version.
        version: u64,
    },
    /// Nobody is at work on the build any more, or begins it: it is begun again, or has failed.
    EndBuild {
        /// Which build.
        id: BuildId,
        /// Planned on this version.
        version: u64,
    },
    /// No build has used the result of a step for long: it is hidden, and then freed.
    ForgetLayer {
        /// Which template.
        id: TemplateId,
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

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// A sandbox, or a machine that no record knows.
    Sandbox(SandboxId),
    /// A template, or an image that none names.
    Template(TemplateId),
    /// A template build.
    Build(BuildId),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox(id) => id.fmt(f),
            Self::Template(id) => id.fmt(f),
            Self::Build(id) => id.fmt(f),
        }
    }
}

impl Action {
    /// What it is about.
    #[must_use]
    pub const fn about(&self) -> About {
        match self {
            Self::MarkStopped { id, .. }
            | Self::MarkRunning { id, .. }
            | Self::CompleteCreate { id, .. }
            | Self::UndoCreate { id, .. }
            | Self::RedoDestroy { id, .. }
            | Self::Expire { id, .. }
            | Self::PauseUnused { id, .. }
            | Self::CleanUp { id, .. }
            | Self::MarkPaused { id, .. }
            | Self::MarkMissing { id, .. }
            | Self::SettleOperation { id, .. }
            | Self::EndBuildSandbox { id, .. }
            | Self::DestroyUnknown { id, .. } => About::Sandbox(*id),
            Self::GiveUpTemplate { id, .. }
            | Self::FreeTemplate { id, .. }
            | Self::ForgetLayer { id, .. }
            | Self::DeleteUnknownImage { image: id } => About::Template(*id),
            Self::EndBuild { id, .. } => About::Build(*id),
        }
    }

    /// Whether the record takes on what the host shows of the machine.
    pub(super) const fn believes_the_host(&self) -> bool {
        match self {
            Self::MarkStopped { .. }
            | Self::MarkRunning { .. }
            | Self::MarkPaused { .. }
            | Self::CompleteCreate { .. }
            | Self::SettleOperation { .. } => true,
            // What they order waits on the host for its turn, or ends what is at work there.
            Self::MarkMissing { .. }
            | Self::GiveUpTemplate { .. }
            | Self::FreeTemplate { .. }
            | Self::DeleteUnknownImage { .. }
            | Self::UndoCreate { .. }
            | Self::RedoDestroy { .. }
            | Self::Expire { .. }
            | Self::PauseUnused { .. }
            | Self::EndBuildSandbox { .. }
            | Self::EndBuild { .. }
            | Self::ForgetLayer { .. }
            | Self::CleanUp { .. }
            | Self::DestroyUnknown { .. } => false,
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
            | Self::PauseUnused { version, .. }
            | Self::MarkPaused { version, .. }
            | Self::MarkMissing { version, .. }
            | Self::SettleOperation { version, .. }
            | Self::GiveUpTemplate { version, .. }
            | Self::FreeTemplate { version, .. }
            | Self::EndBuildSandbox { version, .. }
            | Self::EndBuild { version, .. }
            | Self::ForgetLayer { version, .. }
            | Self::CleanUp { version, .. } => Some(*version),
            Self::DestroyUnknown { .. } | Self::DeleteUnknownImage { .. } => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MarkStopped { reason, .. } => write!(f, "mark stopped ({reason})"),
            Self::MarkRunning { .. } => f.write_str("mark running"),
            Self::MarkPaused { .. } => f.write_str("mark paused"),
            Self::MarkMissing { reason, .. } => write!(f, "mark missing ({reason})"),
            Self::SettleOperation { standing, .. } => match standing {
                Standing::Running => f.write_str("end the operation, running"),
                Standing::Paused => f.write_str("end the operation, paused"),
                Standing::Stopped { reason } => write!(f, "end the operation, stopped ({reason})"),
                Standing::Unknown { reason } => write!(f, "end the operation, missing ({reason})"),
            },
            Self::GiveUpTemplate { .. } => f.write_str("give up the template"),
            Self::FreeTemplate { .. } => f.write_str("free the template"),
            Self::DeleteUnknownImage { .. } => f.write_str("delete the unknown image"),
            Self::CompleteCreate { .. } => f.write_str("complete the create"),
            Self::UndoCreate { .. } => f.write_str("undo the create"),
            Self::RedoDestroy { .. } => f.write_str("destroy again"),
            Self::Expire { .. } => f.write_str("expire"),
            Self::EndBuildSandbox { .. } => f.write_str("destroy, its build is over"),
            Self::EndBuild { .. } => f.write_str("begin the build again, or end it"),
            Self::ForgetLayer { .. } => f.write_str("forget the layer"),
            Self::PauseUnused { .. } => f.write_str("pause, unused"),
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
