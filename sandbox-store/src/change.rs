//! A change of the store as data, and how applying it can fail.
//!
//! One [`Change`] is one transaction. Being data it can be applied again, which is how a write that
//! met a full disk is retried.

use std::fmt;

use bytes::Bytes;
#[cfg(feature = "sqlite")]
use sandbox_core::store::TemplateChange;
use sandbox_core::{
    audit::AuditEntry,
    build::LogEntry,
    clock::Timestamp,
    host::HostSeen,
    id::{BuildId, SandboxId},
    operation::OperationRecord,
    store::{BuildWrite, SandboxWrite, StoreError, TemplateWrite},
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
    /// Something of template builds.
    Build(BuildChange),
    /// A host was heard.
    NoteHost(HostSeen),
    /// Operations that ended before this go.
    RemoveOperations { finished_before: Timestamp },
}

/// Everything that writes template builds.
#[derive(Debug)]
pub(crate) enum BuildChange {
    /// A new build.
    Insert(BuildWrite),
    /// A build's next version, with the templates that change with it.
    Update(BuildWrite),
    /// A build's log goes on.
    Log { id: BuildId, entries: Vec<LogEntry> },
    /// A context comes, or is kept for longer.
    PutContext {
        name: String,
        data: ContextBytes,
        at: Timestamp,
    },
    /// Contexts that were kept before this go, unless a build waits for them.
    RemoveContexts { kept_before: Timestamp },
    /// Builds that ended before this go.
    RemoveBuilds { finished_before: Timestamp },
}

/// A context's bytes: many, and a client's own. No log or message ever has them.
pub(crate) struct ContextBytes(pub(crate) Bytes);

impl ContextBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ContextBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(feature = "sqlite")]
impl Change {
    /// Whether the change only adds to what is stored. Everything else is needed to manage what is
    /// there already, and must work on a full disk too.
    pub(crate) fn only_adds(&self) -> bool {
        match self {
            Self::Insert(_) => true,
            // A sandbox that is to become a template is as well off without one.
            Self::Update(write) => write.template.iter().any(adds),
            Self::Template(template) => adds(template),
            Self::Build(change) => match change {
                BuildChange::Insert(_)
                | BuildChange::Log { .. }
                | BuildChange::PutContext { .. } => true,
                BuildChange::Update(write) => write.templates.iter().any(adds),
                BuildChange::RemoveContexts { .. } | BuildChange::RemoveBuilds { .. } => false,
            },
            Self::Remove { .. } | Self::RemoveOperations { .. } | Self::NoteHost(_) => false,
        }
    }

    /// What must be free besides what is held back before this is tried, in bytes: for what is large
    /// once in the log, and once more in the database.
    pub(crate) fn room_bytes(&self) -> u64 {
        match self {
            Self::Build(BuildChange::PutContext { data, .. }) => 2 * data.as_slice().len() as u64,
            _ => 0,
        }
    }
}

#[cfg(feature = "sqlite")]
const fn adds(write: &TemplateWrite) -> bool {
    matches!(write.change, TemplateChange::Insert(_))
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
