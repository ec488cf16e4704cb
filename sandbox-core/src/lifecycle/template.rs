//! A template's life: the writes that make, publish, give up, hide and forget one.

use crate::{
    audit::AuditEntry,
    build::LayerKey,
    clock::Timestamp,
    error::Error,
    host::HostImage,
    id::{HostId, PLATFORM_TEAM_ID, SandboxId, TeamId, TemplateId},
    lifecycle::Stamp,
    name::TemplateName,
    operation::{Operation, OperationRecord, OperationStatus},
    size::MachineSize,
    store::{TemplateChange, TemplateWrite},
    template::{MINIMAL_TEMPLATE_ID, TemplateKind, TemplateRecord, TemplateState},
};

/// A template that is to be made, checked and named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTemplate {
    /// Its ID.
    pub id: TemplateId,
    /// Who owns it.
    pub team_id: TeamId,
    /// Its name.
    pub name: TemplateName,
    /// What it will hold.
    pub kind: TemplateKind,
    /// What a sandbox of it gets that asks for nothing else.
    pub size: MachineSize,
    /// The sandbox that it is taken from.
    pub origin: Option<SandboxId>,
    /// Of one that a template build makes, what goes into it. It is a layer then, until the build is
    /// published.
    pub layer: Option<LayerKey>,
    /// The host that makes it.
    pub host_id: HostId,
}

/// The first record of a template: its name is taken, nothing of it is there yet.
#[must_use]
pub fn template_birth(new: NewTemplate, operation: Operation, at: Timestamp) -> TemplateRecord {
    TemplateRecord {
        id: new.id,
        team_id: new.team_id,
        name: new.name,
        kind: new.kind,
        state: TemplateState::Making,
        operation: Some(operation),
        version: 1,
        size: new.size,
        disk_bytes: 0,
        memory_bytes: 0,
        origin: new.origin,
        layer: new.layer,
        host_id: Some(new.host_id),
        created_at: at,
        updated_at: at,
    }
}

/// The write that records the template that every host makes by itself.
#[must_use]
pub fn minimal_template(stamp: Stamp) -> TemplateWrite {
    let record = TemplateRecord {
        id: MINIMAL_TEMPLATE_ID,
        team_id: PLATFORM_TEAM_ID,
        name: TemplateName::default(),
        kind: TemplateKind::Image,
        state: TemplateState::Ready,
        operation: None,
        version: 1,
        size: MachineSize::default(),
        disk_bytes: 0,
        memory_bytes: 0,
        origin: None,
        layer: None,
        host_id: None,
        created_at: stamp.at,
        updated_at: stamp.at,
    };
    TemplateWrite {
        operation: None,
        audit: Some(audit(
            &record,
            "template.create",
            TemplateState::Ready.as_str(),
            "every host makes it at need",
            stamp,
        )),
        change: TemplateChange::Insert(record),
    }
}

/// The write that notes what a host says of a template's physical size; absent where that is known.
#[must_use]
pub fn measure_template(
    record: &TemplateRecord,
    image: &HostImage,
    at: Timestamp,
) -> Option<TemplateWrite> {
    let measured = (image.disk_bytes, image.memory_bytes);
    if measured == (record.disk_bytes, record.memory_bytes) {
        return None;
    }
    let mut next = following(record, at);
    (next.disk_bytes, next.memory_bytes) = measured;
    Some(TemplateWrite {
        change: TemplateChange::Update(next),
        operation: None,
        audit: None,
    })
}

/// The write that inserts a template which an operation of its own makes.
#[must_use]
pub fn begin_template(record: TemplateRecord, stamp: Stamp) -> TemplateWrite {
    let operation = record
        .operation
        .as_ref()
        .map(|operation| of(&record, operation, OperationStatus::Running, None));
    TemplateWrite {
        operation,
        audit: Some(audit(
            &record,
            "template.create",
            "making",
            "it was asked for",
            stamp,
        )),
        change: TemplateChange::Insert(record),
    }
}

/// The write that makes a template visible, with what the host said of it.
#[must_use]
pub fn publish_template(record: &TemplateRecord, image: &HostImage, stamp: Stamp) -> TemplateWrite {
    let stamp = stamp.after(record.updated_at);
    let mut next = following(record, stamp.at);
    next.state = match record.layer {
        Some(_) => TemplateState::Layer,
        None => TemplateState::Ready,
    };
    next.disk_bytes = image.disk_bytes;
    next.memory_bytes = image.memory_bytes;
    match record.kind {
        TemplateKind::Snapshot => next.size = image.size,
        // What was full to the brim needs a little more to start from.
        TemplateKind::Image => {
            let needed_mb = image.size.disk_size_mb;
            next.size.disk_size_mb = next.size.disk_size_mb.max(needed_mb);
        }
    }
    let operation = next.operation.take().map(|operation| {
        of(
            record,
            &operation,
            OperationStatus::Succeeded,
            Some(stamp.at),
        )
    });
    TemplateWrite {
        operation,
        audit: Some(audit(
            record,
            "template.create",
            next.state.as_str(),
            "its files are there",
            stamp,
        )),
        change: TemplateChange::Update(next),
    }
}

/// The write that gives up a template that could not be made, and with it its name, where its host
/// is known to hold nothing of it.
#[must_use]
pub fn give_up_template(record: &TemplateRecord, error: &Error, stamp: Stamp) -> TemplateWrite {
    let stamp = stamp.after(record.updated_at);
    let status = OperationStatus::Failed {
        error: error.clone(),
    };
    TemplateWrite {
        operation: record
            .operation
            .as_ref()
            .map(|operation| of(record, operation, status, Some(stamp.at))),
        audit: Some(audit(
            record,
            "template.create",
            "removed",
            &error.to_string(),
            stamp,
        )),
        change: TemplateChange::Remove(record.id, record.version),
    }
}

/// The write that hides a template which nobody makes any more and frees its name. Its maker can't
/// publish it after that; what the host may have of it goes like a deleted template's files. The
/// operation that makes a template of a sandbox ends with that sandbox's write, and only once.
#[must_use]
pub fn abandon_template(record: &TemplateRecord, error: &Error, stamp: Stamp) -> TemplateWrite {
    let stamp = stamp.after(record.updated_at);
    let mut next = following(record, stamp.at);
    next.state = TemplateState::Deleting;
    let status = OperationStatus::Failed {
        error: error.clone(),
    };
    let operation = next.operation.take();
    TemplateWrite {
        operation: operation
            .filter(|_| record.origin.is_none())
            .map(|operation| of(record, &operation, status, Some(stamp.at))),
        audit: Some(audit(
            record,
            "template.create",
            TemplateState::Deleting.as_str(),
            &error.to_string(),
            stamp,
        )),
        change: TemplateChange::Update(next),
    }
}

/// The write that moves the lease of the operation that makes a template.
#[must_use]
pub fn extend_template_lease(
    record: &TemplateRecord,
    lease_until: Timestamp,
    at: Timestamp,
) -> TemplateWrite {
    let mut next = following(record, at);
    if let Some(operation) = &mut next.operation {
        operation.lease_until = lease_until;
    }
    TemplateWrite {
        change: TemplateChange::Update(next),
        operation: None,
        audit: None,
    }
}

/// The write that hides a template and frees its name; absent where it is hidden already.
///
/// # Errors
/// A reason, where it is still being made.
pub fn hide_template(
    record: &TemplateRecord,
    stamp: Stamp,
) -> Result<Option<TemplateWrite>, &'static str> {
    match record.state {
        TemplateState::Deleting => Ok(None),
        TemplateState::Making => Err("it is being made"),
        TemplateState::Ready | TemplateState::Layer => {
            let stamp = stamp.after(record.updated_at);
            let mut next = following(record, stamp.at);
            next.state = TemplateState::Deleting;
            Ok(Some(TemplateWrite {
                operation: None,
                audit: Some(audit(
                    record,
                    "template.delete",
                    TemplateState::Deleting.as_str(),
                    "it was asked for",
                    stamp,
                )),
                change: TemplateChange::Update(next),
            }))
        }
    }
}

/// The write that makes a layer a template that everyone who may sees, under this name.
#[must_use]
pub fn name_layer(
    record: &TemplateRecord,
    name: &TemplateName,
    team_id: TeamId,
    size: MachineSize,
    stamp: Stamp,
) -> TemplateWrite {
    let stamp = stamp.after(record.updated_at);
    let mut next = following(record, stamp.at);
    next.state = TemplateState::Ready;
    next.name = name.clone();
    next.team_id = team_id;
    if record.kind == TemplateKind::Image {
        let disk_size_mb = size.disk_size_mb.max(record.size.disk_size_mb);
        next.size = MachineSize {
            disk_size_mb,
            ..size
        };
    }
    TemplateWrite {
        operation: None,
        audit: Some(audit(
            &next,
            "template.publish",
            TemplateState::Ready.as_str(),
            "its build succeeded",
            stamp,
        )),
        change: TemplateChange::Update(next),
    }
}

/// The write that notes that a layer was used, so that it is kept for longer.
#[must_use]
pub fn touch_layer(record: &TemplateRecord, at: Timestamp) -> TemplateWrite {
    TemplateWrite {
        change: TemplateChange::Update(following(record, at.max(record.updated_at))),
        operation: None,
        audit: None,
    }
}

/// The write that forgets a template whose files are gone.
#[must_use]
pub fn forget_template(record: &TemplateRecord, stamp: Stamp) -> TemplateWrite {
    let stamp = stamp.after(record.updated_at);
    TemplateWrite {
        operation: None,
        audit: Some(audit(
            record,
            "template.delete",
            "removed",
            "no sandbox lies on it any more",
            stamp,
        )),
        change: TemplateChange::Remove(record.id, record.version),
    }
}

fn following(record: &TemplateRecord, at: Timestamp) -> TemplateRecord {
    let mut next = record.clone();
    next.version += 1;
    next.updated_at = at;
    next
}

fn of(
    record: &TemplateRecord,
    operation: &Operation,
    status: OperationStatus,
    finished_at: Option<Timestamp>,
) -> OperationRecord {
    OperationRecord {
        id: operation.id,
        sandbox_id: record.origin,
        template_id: Some(record.id),
        kind: operation.kind,
        status,
        started_at: operation.started_at,
        finished_at,
    }
}

fn audit(
    record: &TemplateRecord,
    action: &str,
    outcome: &str,
    reason: &str,
    stamp: Stamp,
) -> AuditEntry {
    AuditEntry {
        id: stamp.audit_id,
        at: stamp.at,
        actor: stamp.actor,
        resource: record.id.to_string(),
        action: action.to_owned(),
        outcome: outcome.to_owned(),
        reason: reason.to_owned(),
    }
}
