//! What may be done to a record: events with their data, and how they read in the audit log.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    error::Error,
    id::OperationId,
    lifecycle::Event,
    operation::{OperationKind, OperationStatus},
    sandbox::SandboxState,
    store::TemplateWrite,
    template::TemplateRecord,
};

/// A change, with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// [`Event::CreateSucceeded`].
    CreateSucceeded,
    /// [`Event::CreateFailed`].
    CreateFailed {
        /// Why it failed.
        error: Error,
        /// Why its remains could not be removed.
        cleanup: String,
    },
    /// [`Event::CreateUndone`].
    CreateUndone {
        /// Why it failed.
        error: Error,
    },
    /// [`Event::BeginPause`].
    BeginPause {
        /// The ID of the operation that begins.
        operation_id: OperationId,
        /// Its first lease.
        lease_until: Timestamp,
        /// Why, for people.
        reason: String,
    },
    /// [`Event::BeginResume`].
    BeginResume {
        /// The ID of the operation that begins.
        operation_id: OperationId,
        /// Its first lease.
        lease_until: Timestamp,
    },
    /// [`Event::BeginSnapshot`].
    BeginSnapshot {
        /// The ID of the operation that begins.
        operation_id: OperationId,
        /// Its first lease.
        lease_until: Timestamp,
        /// The template's record, with its name taken, in the same write.
        template: Box<TemplateRecord>,
    },
    /// [`Event::EndedRunning`], [`Event::EndedPaused`], [`Event::EndedStopped`] or
    /// [`Event::EndedMissing`].
    Ended {
        /// How its machine stands, by the host's word.
        standing: Standing,
        /// What became of the operation.
        status: OperationStatus,
        /// What becomes of the template in the same write.
        template: Option<Box<TemplateWrite>>,
    },
    /// [`Event::BeginDestroy`].
    BeginDestroy {
        /// The ID of the operation that begins.
        operation_id: OperationId,
        /// Its first lease.
        lease_until: Timestamp,
        /// Why, for people.
        reason: String,
    },
    /// [`Event::DestroySucceeded`].
    DestroySucceeded,
    /// [`Event::MachineEnded`].
    MachineEnded {
        /// The host's reason.
        reason: String,
    },
    /// [`Event::MachineFound`].
    MachineFound {
        /// Why, for people.
        reason: String,
    },
    /// [`Event::PausedFound`].
    PausedFound {
        /// Why, for people.
        reason: String,
    },
    /// [`Event::HostSilent`].
    HostSilent {
        /// Since when, for people.
        reason: String,
    },
    /// [`Event::ExtendLease`].
    ExtendLease {
        /// The new end of the lease.
        lease_until: Timestamp,
        /// The least generation of the orders that follow; the record's own where it is higher.
        generation_min: u64,
    },
    /// [`Event::Use`].
    Use,
}

/// How a machine stands, by its host's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub enum Standing {
    /// It runs.
    Running,
    /// Its memory and disk are kept.
    Paused,
    /// It has ended, or is not there.
    Stopped {
        /// Why, for people.
        reason: String,
    },
    /// Its host does not say, and has said nothing for too long.
    Unknown {
        /// Since when, for people.
        reason: String,
    },
}

impl Standing {
    /// The state of a record whose machine stands so.
    #[must_use]
    pub const fn state(&self) -> SandboxState {
        match self {
            Self::Running => SandboxState::Running,
            Self::Paused => SandboxState::Paused,
            Self::Stopped { .. } => SandboxState::Stopped,
            Self::Unknown { .. } => SandboxState::Missing,
        }
    }

    /// The end of an operation that left its machine so.
    #[must_use]
    pub const fn end(&self) -> Event {
        match self {
            Self::Running => Event::EndedRunning,
            Self::Paused => Event::EndedPaused,
            Self::Stopped { .. } => Event::EndedStopped,
            Self::Unknown { .. } => Event::EndedMissing,
        }
    }

    /// How an operation has ended that left its machine so, without a word of its own: it has
    /// succeeded where this is what it was for. A template is never made by that alone.
    #[must_use]
    pub fn status_of(&self, kind: OperationKind, error: Error) -> OperationStatus {
        match (kind, self) {
            (OperationKind::Pause, Self::Paused) | (OperationKind::Resume, Self::Running) => {
                OperationStatus::Succeeded
            }
            _ => OperationStatus::Failed { error },
        }
    }
}

impl Change {
    /// The change without its data.
    #[must_use]
    pub const fn event(&self) -> Event {
        match self {
            Self::CreateSucceeded => Event::CreateSucceeded,
            Self::CreateFailed { .. } => Event::CreateFailed,
            Self::CreateUndone { .. } => Event::CreateUndone,
            Self::BeginPause { .. } => Event::BeginPause,
            Self::BeginResume { .. } => Event::BeginResume,
            Self::BeginSnapshot { .. } => Event::BeginSnapshot,
            Self::Ended { standing, .. } => standing.end(),
            Self::BeginDestroy { .. } => Event::BeginDestroy,
            Self::DestroySucceeded => Event::DestroySucceeded,
            Self::MachineEnded { .. } => Event::MachineEnded,
            Self::MachineFound { .. } => Event::MachineFound,
            Self::PausedFound { .. } => Event::PausedFound,
            Self::HostSilent { .. } => Event::HostSilent,
            Self::ExtendLease { .. } => Event::ExtendLease,
            Self::Use => Event::Use,
        }
    }

    /// What the audit log calls it; absent for changes that alter no state.
    pub(super) const fn action(&self, kind: Option<OperationKind>) -> Option<&'static str> {
        match self {
            Self::BeginPause { .. } => Some("sandbox.pause"),
            Self::BeginResume { .. } => Some("sandbox.resume"),
            Self::BeginSnapshot { .. } => Some("sandbox.snapshot"),
            Self::Ended { .. } => Some(match kind {
                Some(OperationKind::Pause) => "sandbox.pause",
                Some(OperationKind::Resume) => "sandbox.resume",
                _ => "sandbox.snapshot",
            }),
            Self::PausedFound { .. } => Some("sandbox.recover"),
            Self::CreateSucceeded | Self::CreateFailed { .. } | Self::CreateUndone { .. } => {
                Some("sandbox.create")
            }
            Self::BeginDestroy { .. } | Self::DestroySucceeded => Some("sandbox.destroy"),
            Self::MachineEnded { .. } => Some("sandbox.stop"),
            Self::MachineFound { .. } => Some("sandbox.recover"),
            Self::HostSilent { .. } => Some("sandbox.miss"),
            Self::ExtendLease { .. } | Self::Use => None,
        }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::CreateSucceeded => "its machine runs".to_owned(),
            Self::CreateFailed { error, cleanup } => {
                format!("{error}; what is left of it could not be removed yet: {cleanup}")
            }
            Self::CreateUndone { error } => error.to_string(),
            Self::BeginResume { .. } => "it is being resumed".to_owned(),
            Self::BeginSnapshot { template, .. } => {
                format!("the template `{}` is being made of it", template.name)
            }
            Self::Ended {
                standing, status, ..
            } => ended_because(standing, status),
            Self::DestroySucceeded => "its host holds nothing of it any more".to_owned(),
            Self::BeginPause { reason, .. }
            | Self::BeginDestroy { reason, .. }
            | Self::MachineEnded { reason }
            | Self::MachineFound { reason }
            | Self::PausedFound { reason }
            | Self::HostSilent { reason } => reason.clone(),
            Self::ExtendLease { .. } | Self::Use => String::new(),
        }
    }

    /// How the operation that this change ends has ended.
    pub(crate) fn status(&self) -> OperationStatus {
        match self {
            Self::CreateFailed { error, .. } | Self::CreateUndone { error } => {
                OperationStatus::Failed {
                    error: error.clone(),
                }
            }
            Self::Ended { status, .. } => status.clone(),
            _ => OperationStatus::Succeeded,
        }
    }
}

fn ended_because(standing: &Standing, status: &OperationStatus) -> String {
    let stands = match standing {
        Standing::Running => "it runs",
        Standing::Paused => "its memory and disk are kept",
        Standing::Stopped { reason } | Standing::Unknown { reason } => reason,
    };
    match status {
        OperationStatus::Failed { error } => format!("{stands}; it failed: {error}"),
        _ => stands.to_owned(),
    }
}
