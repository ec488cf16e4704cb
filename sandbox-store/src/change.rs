//! A change of the store as data, and how applying it can fail.
//!
//! One [`Change`] is one transaction. Being data it can be applied again, which is how a write that
//! met a full disk is retried.

use sandbox_core::{
    audit::AuditEntry,
    clock::Timestamp,
    id::SandboxId,
    operation::OperationRecord,
    store::{SandboxWrite, StoreError},
};

/// Everything that writes.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new sandbox.
    Insert(SandboxWrite),
    /// A sandbox's next version.
    Update(SandboxWrite),
    /// A sandbox goes; its operation and audit entry stay.
    Remove {
        id: SandboxId,
        version: u64,
        operation: Option<OperationRecord>,
        audit: AuditEntry,
    },
    /// Operations that ended before this go.
    RemoveOperations { finished_before: Timestamp },
}

#[cfg(feature = "sqlite")]
impl Change {
    /// Whether the change only adds to what is stored. Everything else is needed to manage what is
    /// there already, and must work on a full disk too.
    pub(crate) const fn only_adds(&self) -> bool {
        matches!(self, Self::Insert(_))
    }
}

/// How a change or a query failed, before the backend has looked at what the database said.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The database refused.
    Database(diesel::result::Error),
    /// The body itself knows the answer.
    Answer(StoreError),
}

impl From<diesel::result::Error> for Failure {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Answer(error)
    }
}
