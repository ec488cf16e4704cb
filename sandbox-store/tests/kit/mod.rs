//! Records for tests.

use std::collections::BTreeMap;

use sandbox_core::{
    audit::{Actor, AuditEntry},
    clock::Timestamp,
    id::{AuditId, OperationId, PLATFORM_TEAM_ID, SandboxId, TemplateId},
    operation::{OperationKind, OperationRecord, OperationStatus},
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    size::MachineSize,
    store::{SandboxWrite, TemplateChange, TemplateWrite},
    template::{MINIMAL_TEMPLATE_ID, TemplateKind, TemplateRecord, TemplateState},
};
use uuid::Uuid;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(1_700_000_000_000_000 + second * 1_000_000).unwrap()
}

pub(crate) fn sandbox_id(number: u128) -> SandboxId {
    SandboxId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn record(number: u128) -> SandboxRecord {
    SandboxRecord {
        id: sandbox_id(number),
        team_id: PLATFORM_TEAM_ID,
        state: SandboxState::Pending,
        reason: "asked for".to_owned(),
        operation: None,
        version: 1,
        generation: 1,
        template: "minimal".parse().unwrap(),
        template_id: MINIMAL_TEMPLATE_ID,
        size: MachineSize::default(),
        timeout_sec: None,
        on_timeout: OnTimeout::Destroy,
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        host_id: None,
        idempotency_key: None,
        build_id: None,
        created_at: at(0),
        started_at: None,
        expires_at: None,
        updated_at: at(0),
    }
}

/// A template that sandboxes can start from, named after its number.
pub(crate) fn template(number: u128) -> TemplateRecord {
    TemplateRecord {
        id: TemplateId::from_uuid(Uuid::from_u128(number)),
        team_id: PLATFORM_TEAM_ID,
        name: format!("t{number}").parse().unwrap(),
        kind: TemplateKind::Image,
        state: TemplateState::Ready,
        operation: None,
        version: 1,
        size: MachineSize::default(),
        disk_bytes: 1,
        memory_bytes: 0,
        origin: None,
        layer: None,
        host_id: None,
        created_at: at(0),
        updated_at: at(0),
    }
}

pub(crate) fn template_write(change: TemplateChange) -> TemplateWrite {
    TemplateWrite {
        change,
        operation: None,
        audit: None,
    }
}

pub(crate) fn next(record: &SandboxRecord, state: SandboxState) -> SandboxRecord {
    let mut next = record.clone();
    next.version += 1;
    next.state = state;
    next
}

pub(crate) fn operation(number: u128, sandbox: u128) -> OperationRecord {
    OperationRecord {
        id: OperationId::from_uuid(Uuid::from_u128(number)),
        sandbox_id: Some(sandbox_id(sandbox)),
        template_id: None,
        kind: OperationKind::Create,
        status: OperationStatus::Running,
        started_at: at(0),
        finished_at: None,
    }
}

pub(crate) fn audit(number: u128, resource: &str) -> AuditEntry {
    AuditEntry {
        id: AuditId::from_uuid(Uuid::from_u128(number)),
        at: at(0),
        actor: Actor::system("test"),
        resource: resource.to_owned(),
        action: "sandbox.create".to_owned(),
        outcome: "pending".to_owned(),
        reason: "because".to_owned(),
    }
}

/// A write with an operation and an audit entry of its own number.
pub(crate) fn write(record: SandboxRecord, number: u128) -> SandboxWrite {
    let resource = record.id.to_string();
    SandboxWrite {
        template: None,
        operations: vec![operation(number, record.id.uuid().as_u128())],
        audit: Some(audit(number, &resource)),
        record,
    }
}
