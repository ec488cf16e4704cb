//! A change of the store as data, and how applying it can fail.
//!
//! One [`Change`] is one transaction. Being data it can be applied again, which is how a write that
//! met a full disk is retried.

#[cfg(feature = "sqlite")]
use sandbox_core::store::TemplateChange;
use sandbox_core::{
    audit::AuditEntry,
    clock::Timestamp,
    host::HostSeen,
    id::SandboxId,
    operation::OperationRecord,
    store::{SandboxWrite, StoreError, TemplateWrite},
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
    /// A template comes, changes or goes.
    Template(TemplateWrite),
    /// A host was heard.
    NoteHost(HostSeen),
    /// Operations that ended before this go.
    RemoveOperations { finished_before: Timestamp },
}

#[cfg(feature = "sqlite")]
impl Change {
    /// Whether the change only adds to what is stored. Everything else is needed to manage what is
    /// there already, and must work on a full disk too.
    pub(crate) const fn only_adds(&self) -> bool {
        let template = match self {
            Self::Insert(_) => return true,
            // A sandbox that is to become a template is as well off without one.
            Self::Update(write) => match &write.template {
                Some(template) => template,
                None => return false,
            },
            Self::Template(template) => template,
            Self::Remove { .. } | Self::RemoveOperations { .. } | Self::NoteHost(_) => {
                return false;
            }
        };
        matches!(template.change, TemplateChange::Insert(_))
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
