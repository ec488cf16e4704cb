//! Plain records for the contract tests.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    audit::{Actor, AuditEntry},
    clock::Timestamp,
    id::{AuditId, OperationId, PLATFORM_TEAM_ID, SandboxId, TeamId, TemplateId},
    operation::{OperationKind, OperationRecord, OperationStatus},
    sandbox::{OnTimeout, PageRequest, SandboxFilter, SandboxRecord, SandboxState},
    size::MachineSize,
    store::{SandboxWrite, Store, TemplateChange, TemplateWrite},
    template::{MINIMAL_TEMPLATE_ID, TemplateKind, TemplateRecord, TemplateState},
};

pub(super) const TEAM: TeamId = PLATFORM_TEAM_ID;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(1_700_000_000_123_456 + second * 1_000_000).unwrap()
}

pub(super) fn sandbox_id(number: u128) -> SandboxId {
    SandboxId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn template_id(number: u128) -> TemplateId {
    TemplateId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn team(number: u128) -> TeamId {
    TeamId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn record(number: u128) -> SandboxRecord {
    SandboxRecord {
        id: sandbox_id(number),
        team_id: TEAM,
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
pub(super) fn template(number: u128) -> TemplateRecord {
    TemplateRecord {
        id: template_id(number),
        team_id: TEAM,
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

pub(super) fn change(change: TemplateChange) -> TemplateWrite {
    TemplateWrite {
        change,
        operation: None,
        audit: None,
    }
}

pub(super) async fn insert_template(store: &dyn Store, record: TemplateRecord) {
    let write = change(TemplateChange::Insert(record));
    store.write_template(write).await.unwrap();
}

/// The record as its next write has it.
pub(super) fn rewritten(record: &TemplateRecord, state: TemplateState) -> TemplateRecord {
    let mut next = record.clone();
    next.version += 1;
    next.state = state;
    next
}

pub(super) fn operation(number: u128, sandbox: u128, second: i64) -> OperationRecord {
    OperationRecord {
        id: OperationId::from_uuid(Uuid::from_u128(number)),
        sandbox_id: Some(sandbox_id(sandbox)),
        template_id: None,
        kind: OperationKind::Create,
        status: OperationStatus::Running,
        started_at: at(second),
        finished_at: None,
    }
}

pub(super) fn audit(number: u128, resource: &str, second: i64) -> AuditEntry {
    AuditEntry {
        id: AuditId::from_uuid(Uuid::from_u128(number)),
        at: at(second),
        actor: Actor::system("test"),
        resource: resource.to_owned(),
        action: "sandbox.create".to_owned(),
        outcome: "pending".to_owned(),
        reason: format!("entry {number}"),
    }
}

pub(super) fn write(record: SandboxRecord) -> SandboxWrite {
    SandboxWrite {
        record,
        template: None,
        operations: Vec::new(),
        audit: None,
    }
}

pub(super) async fn insert(store: &dyn Store, record: SandboxRecord) {
    store.insert_sandbox(write(record)).await.unwrap();
}

pub(super) async fn stored(store: &dyn Store, number: u128) -> SandboxRecord {
    store.sandbox(sandbox_id(number)).await.unwrap().unwrap()
}

pub(super) fn bumped(record: &SandboxRecord, state: SandboxState) -> SandboxRecord {
    let mut next = record.clone();
    next.version += 1;
    next.state = state;
    next
}

pub(super) async fn listed(
    store: &dyn Store,
    filter: &SandboxFilter,
    limit: u32,
) -> Vec<Vec<SandboxId>> {
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .list_sandboxes(filter, PageRequest { after, limit })
            .await
            .unwrap();
        assert!(page.items.len() <= limit as usize);
        assert!(page.items.iter().all(|record| filter.matches(record)));
        pages.push(page.items.iter().map(|record| record.id).collect());
        match page.next {
            Some(next) => {
                assert_eq!(page.items.last().map(|record| record.id), Some(next));
                after = Some(next);
            }
            None => return pages,
        }
    }
}
