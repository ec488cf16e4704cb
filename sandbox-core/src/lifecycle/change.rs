//! From a legal change to the write that makes it.

use crate::{
    audit::{Actor, AuditEntry},
    clock::Timestamp,
    error::Error,
    id::{AuditId, OperationId},
    lifecycle::{Denied, Event, Rule, Then, birth::deadline, rule},
    operation::{Operation, OperationKind, OperationRecord, OperationStatus},
    sandbox::{SandboxRecord, SandboxState},
    store::SandboxWrite,
};

/// Who changes a record, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: Timestamp,
    /// The ID of the audit entry, if there will be one.
    pub audit_id: AuditId,
}

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

impl Change {
    /// The change without its data.
    #[must_use]
    pub const fn event(&self) -> Event {
        match self {
            Self::CreateSucceeded => Event::CreateSucceeded,
            Self::CreateFailed { .. } => Event::CreateFailed,
            Self::CreateUndone { .. } => Event::CreateUndone,
            Self::BeginDestroy { .. } => Event::BeginDestroy,
            Self::DestroySucceeded => Event::DestroySucceeded,
            Self::MachineEnded { .. } => Event::MachineEnded,
            Self::MachineFound { .. } => Event::MachineFound,
            Self::HostSilent { .. } => Event::HostSilent,
            Self::ExtendLease { .. } => Event::ExtendLease,
            Self::Use => Event::Use,
        }
    }

    /// What the audit log calls it; absent for changes that alter no state.
    const fn action(&self) -> Option<&'static str> {
        match self {
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

    fn reason(&self) -> String {
        match self {
            Self::CreateSucceeded => "its machine runs".to_owned(),
            Self::CreateFailed { error, cleanup } => {
                format!("{error}; what is left of it could not be removed yet: {cleanup}")
            }
            Self::CreateUndone { error } => error.to_string(),
            Self::DestroySucceeded => "its host holds nothing of it any more".to_owned(),
            Self::BeginDestroy { reason, .. }
            | Self::MachineEnded { reason }
            | Self::MachineFound { reason }
            | Self::HostSilent { reason } => reason.clone(),
            Self::ExtendLease { .. } | Self::Use => String::new(),
        }
    }

    /// How the operation that this change ends has ended.
    fn status(&self) -> OperationStatus {
        match self {
            Self::CreateFailed { error, .. } | Self::CreateUndone { error } => {
                OperationStatus::Failed {
                    error: error.clone(),
                }
            }
            _ => OperationStatus::Succeeded,
        }
    }
}

/// What is to be done with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Write the record anew.
    Write(Box<SandboxWrite>),
    /// Remove the record at its version.
    Remove(Box<Removal>),
    /// Nothing: so it stands already.
    Already(&'static str),
}

/// What goes with the removal of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The operation that ends with it.
    pub operation: Option<OperationRecord>,
    /// The audit entry of the removal.
    pub audit: AuditEntry,
}

/// Turns a change of a record, as it was read, into the write that makes it.
///
/// # Errors
/// [`Denied`] where the table says so, and for a use after the deadline.
pub fn transition(
    record: &SandboxRecord,
    change: &Change,
    stamp: Stamp,
) -> Result<Transition, Denied> {
    let event = change.event();
    let kind = record.operation.as_ref().map(|operation| operation.kind);
    match rule(record.state, kind, event) {
        Rule::Deny(reason) => Err(Denied::new(record, event, reason)),
        Rule::Already(reason) => Ok(Transition::Already(reason)),
        Rule::Remove => Ok(Transition::Remove(Box::new(Removal {
            operation: record
                .operation
                .as_ref()
                .map(|operation| ended(record, operation, change.status(), stamp.at)),
            audit: audit(record, change, "removed", stamp),
        }))),
        Rule::Become(..)
            if event == Event::Use && record.expires_at.is_some_and(|at| at <= stamp.at) =>
        {
            Err(Denied::new(record, event, "its lifetime has ended"))
        }
        Rule::Become(state, then) => Ok(Transition::Write(Box::new(write(
            record, change, state, then, stamp,
        )))),
    }
}

fn write(
    record: &SandboxRecord,
    change: &Change,
    state: SandboxState,
    then: Then,
    stamp: Stamp,
) -> SandboxWrite {
    let at = stamp.at;
    let mut next = record.clone();
    next.version += 1;
    next.state = state;
    next.updated_at = at;
    let mut operations = Vec::new();
    match then {
        Then::Keep => {}
        Then::End => {
            let operation = next.operation.take();
            operations.extend(operation.map(|done| ended(record, &done, change.status(), at)));
        }
        Then::Begin(kind) => {
            let operation = next.operation.take();
            operations.extend(operation.map(|cut| ended(record, &cut, cut_short(record), at)));
            next.operation = begun(change, kind, at);
            operations.extend(
                next.operation
                    .as_ref()
                    .map(|begun| running(record, begun, at)),
            );
        }
    }
    match change {
        Change::CreateSucceeded => {
            next.started_at = Some(at);
            next.expires_at = deadline(record.timeout_sec, at);
        }
        // From here on the host refuses all orders for the machine that was there.
        Change::BeginDestroy { .. } => next.generation += 1,
        Change::ExtendLease {
            lease_until,
            generation_min,
        } => {
            next.generation = next.generation.max(*generation_min);
            if let Some(operation) = &mut next.operation {
                operation.lease_until = *lease_until;
            }
        }
        Change::Use => next.expires_at = deadline(record.timeout_sec, at),
        Change::MachineFound { .. } => {
            next.started_at = next.started_at.or(Some(at));
        }
        _ => {}
    }
    let outcome = match then {
        Then::Begin(OperationKind::Destroy) => "destroying",
        _ => state.as_str(),
    };
    let audit = change.action().map(|_| {
        next.reason = change.reason();
        audit(record, change, outcome, stamp)
    });
    SandboxWrite {
        record: next,
        operations,
        audit,
    }
}

fn begun(change: &Change, kind: OperationKind, at: Timestamp) -> Option<Operation> {
    match change {
        Change::BeginDestroy {
            operation_id,
            lease_until,
            ..
        } => Some(Operation {
            id: *operation_id,
            kind,
            started_at: at,
            lease_until: *lease_until,
        }),
        _ => None,
    }
}

fn running(record: &SandboxRecord, operation: &Operation, at: Timestamp) -> OperationRecord {
    OperationRecord {
        id: operation.id,
        sandbox_id: record.id,
        kind: operation.kind,
        status: OperationStatus::Running,
        started_at: at,
        finished_at: None,
    }
}

fn ended(
    record: &SandboxRecord,
    operation: &Operation,
    status: OperationStatus,
    at: Timestamp,
) -> OperationRecord {
    OperationRecord {
        id: operation.id,
        sandbox_id: record.id,
        kind: operation.kind,
        status,
        started_at: operation.started_at,
        finished_at: Some(at),
    }
}

fn cut_short(record: &SandboxRecord) -> OperationStatus {
    OperationStatus::Failed {
        error: Error::InvalidState {
            id: record.id,
            state: record.state,
            reason: "it was destroyed before this was done".to_owned(),
        },
    }
}

fn audit(record: &SandboxRecord, change: &Change, outcome: &str, stamp: Stamp) -> AuditEntry {
    AuditEntry {
        id: stamp.audit_id,
        at: stamp.at,
        actor: stamp.actor,
        resource: record.id.to_string(),
        action: change.action().unwrap_or("sandbox.change").to_owned(),
        outcome: outcome.to_owned(),
        reason: change.reason(),
    }
}
