//! From a legal change to the write that makes it.

use chrono::TimeDelta;

use crate::{
    audit::{Actor, AuditEntry},
    clock::Timestamp,
    error::Error,
    id::AuditId,
    lifecycle::{Change, Denied, Event, Rule, Standing, Then, birth::deadline, rule},
    operation::{Operation, OperationKind, OperationRecord, OperationStatus},
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    store::{SandboxWrite, TemplateChange, TemplateWrite},
    template::TemplateRecord,
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

impl Stamp {
    /// The same, no earlier than what was written before: the clock of whoever wrote that may be
    /// ahead of this one, and what is done later must not look as if it came before.
    pub(super) fn after(self, written: Timestamp) -> Self {
        if self.at >= written {
            return self;
        }
        let next = written.checked_add_signed(TimeDelta::microseconds(1));
        Self {
            at: next.unwrap_or(written),
            ..self
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
/// [`Denied`] where the table says so, and for a use, a pause or a snapshot after the deadline.
pub fn transition(
    record: &SandboxRecord,
    change: &Change,
    stamp: Stamp,
) -> Result<Transition, Denied> {
    let stamp = stamp.after(record.updated_at);
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
        // What its owner has let run out, nobody saves by using it now.
        Rule::Become(..)
            if ends_with_lifetime(event, record.on_timeout)
                && record.expires_at.is_some_and(|at| at <= stamp.at) =>
        {
            Err(Denied::new(record, event, "its lifetime has ended"))
        }
        Rule::Become(state, then) => Ok(Transition::Write(Box::new(write(
            record, change, state, then, stamp,
        )))),
    }
}

/// Whether this can't be done any more once the lifetime has ended. A pause can where that is what
/// the end of the lifetime is to bring.
const fn ends_with_lifetime(event: Event, on_timeout: OnTimeout) -> bool {
    match event {
        Event::Use | Event::BeginSnapshot => true,
        Event::BeginPause => matches!(on_timeout, OnTimeout::Destroy),
        _ => false,
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
        // Time counts while it runs.
        Change::Ended {
            standing: Standing::Paused,
            ..
        }
        | Change::PausedFound { .. } => next.expires_at = None,
        // What has ended is kept, where nothing is ever destroyed for want of use.
        Change::Ended {
            standing: Standing::Stopped { .. },
            ..
        }
        | Change::MachineEnded { .. }
            if record.on_timeout == OnTimeout::Pause =>
        {
            next.expires_at = None;
        }
        Change::Use
        | Change::Ended {
            standing: Standing::Running,
            ..
        } => next.expires_at = deadline(record.timeout_sec, at),
        Change::MachineFound { .. } => {
            let anew = deadline(record.timeout_sec, at);
            next.started_at = next.started_at.or(Some(at));
            next.expires_at = match record.state {
                // Nobody could use it in the meantime.
                SandboxState::Missing => anew,
                _ => next.expires_at.or(anew),
            };
        }
        _ => {}
    }
    let outcome = match then {
        Then::Begin(OperationKind::Destroy) => "destroying",
        Then::Begin(OperationKind::Pause) => "pausing",
        Then::Begin(OperationKind::Resume) => "resuming",
        Then::Begin(OperationKind::Snapshot) => "snapshotting",
        _ => state.as_str(),
    };
    let template = template_write(change, &next);
    if let Some(template) = &template {
        for operation in &mut operations {
            operation.template_id = Some(template.change.id());
        }
    }
    let kind = record.operation.as_ref().map(|operation| operation.kind);
    let audit = change.action(kind).map(|_| {
        next.reason = change.reason();
        audit(record, change, outcome, stamp)
    });
    SandboxWrite {
        record: next,
        operations,
        template,
        audit,
    }
}

/// The template's part. The operation is the sandbox's to write.
fn template_write(change: &Change, next: &SandboxRecord) -> Option<TemplateWrite> {
    let written = match change {
        Change::BeginSnapshot { template, .. } => TemplateWrite {
            change: TemplateChange::Insert(TemplateRecord {
                operation: next.operation.clone(),
                created_at: next.updated_at,
                updated_at: next.updated_at,
                ..(**template).clone()
            }),
            operation: None,
            audit: None,
        },
        Change::Ended { template, .. } => template.as_deref()?.clone(),
        _ => return None,
    };
    Some(TemplateWrite {
        operation: None,
        ..written
    })
}

fn begun(change: &Change, kind: OperationKind, at: Timestamp) -> Option<Operation> {
    match change {
        Change::BeginDestroy {
            operation_id,
            lease_until,
            ..
        }
        | Change::BeginPause {
            operation_id,
            lease_until,
            ..
        }
        | Change::BeginResume {
            operation_id,
            lease_until,
        }
        | Change::BeginSnapshot {
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
        sandbox_id: Some(record.id),
        template_id: None,
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
        sandbox_id: Some(record.id),
        template_id: None,
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
        action: change
            .action(record.operation.as_ref().map(|operation| operation.kind))
            .unwrap_or("sandbox.change")
            .to_owned(),
        outcome: outcome.to_owned(),
        reason: change.reason(),
    }
}
