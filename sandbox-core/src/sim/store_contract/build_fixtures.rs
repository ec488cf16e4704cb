//! Plain builds for the contract tests.

use uuid::Uuid;

use super::fixtures::{TEAM, at, template_id};
use crate::{
    audit::{Actor, AuditEntry},
    build::{
        BuildPhase, BuildRecord, BuildStatus, BuildStep, LogCursor, LogEntry, LogStream, Recipe,
        Step,
    },
    id::BuildId,
    size::MachineSize,
    store::{BuildStore, BuildWrite, TemplateWrite},
    template::MINIMAL_TEMPLATE_ID,
};

pub(super) fn build_id(number: u128) -> BuildId {
    BuildId::from_uuid(Uuid::from_u128(number))
}

/// A build that waits, of a template that is named after its number.
pub(super) fn build(number: u128) -> BuildRecord {
    let command = "make".to_owned();
    BuildRecord {
        id: build_id(number),
        team_id: TEAM,
        name: format!("t{number}").parse().unwrap(),
        base_template: "minimal".parse().unwrap(),
        base_id: MINIMAL_TEMPLATE_ID,
        recipe: Recipe {
            steps: vec![Step::Run {
                command,
                timeout_sec: None,
            }],
        },
        context: None,
        healthcheck: None,
        size: MachineSize::default(),
        no_cache: false,
        status: BuildStatus::Pending,
        current_step: 0,
        total_steps: 3,
        attempt: 0,
        handed_back: 0,
        lease_until: None,
        sandbox_id: None,
        template_id: None,
        failure: None,
        actor: Actor::app(),
        idempotency_key: None,
        version: 1,
        created_at: at(0),
        started_at: None,
        finished_at: None,
        updated_at: at(0),
    }
}

/// The record as its next write has it.
pub(super) fn advanced(record: &BuildRecord, status: BuildStatus) -> BuildRecord {
    let mut next = record.clone();
    next.version += 1;
    next.status = status;
    next
}

/// A build's last record: it has made the template of this number.
pub(super) fn succeeded(record: &BuildRecord, template: u128, second: i64) -> BuildRecord {
    BuildRecord {
        template_id: Some(template_id(template)),
        finished_at: Some(at(second)),
        ..advanced(record, BuildStatus::Success)
    }
}

pub(super) fn build_write(record: BuildRecord) -> BuildWrite {
    BuildWrite {
        record,
        steps: Vec::new(),
        templates: Vec::new(),
        audit: None,
    }
}

/// A build's write with a step and an audit entry, and these templates.
pub(super) fn with_all(
    record: BuildRecord,
    audit: AuditEntry,
    templates: Vec<TemplateWrite>,
) -> BuildWrite {
    BuildWrite {
        steps: vec![step(&record, 1, 1)],
        templates,
        audit: Some(audit),
        record,
    }
}

pub(super) async fn insert_build<S: BuildStore + ?Sized>(store: &S, record: BuildRecord) {
    store.insert_build(build_write(record)).await.unwrap();
}

pub(super) async fn stored_build<S: BuildStore + ?Sized>(store: &S, number: u128) -> BuildRecord {
    store.build(build_id(number)).await.unwrap().unwrap()
}

/// A step at work.
pub(super) fn step(build: &BuildRecord, attempt: u32, step: u32) -> BuildStep {
    BuildStep {
        build_id: build.id,
        attempt,
        step,
        phase: BuildPhase::Recipe,
        cmd: format!("echo {step}"),
        exit_code: None,
        ok: None,
        elapsed_ms: 0,
        cached: false,
        dropped_bytes: 0,
    }
}

/// A piece of the first attempt's log, with this much data.
pub(super) fn piece(number: u64, size_bytes: usize) -> LogEntry {
    LogEntry {
        cursor: LogCursor::new(1, number),
        step: 1,
        stream: LogStream::Stdout,
        data: vec![number as u8; size_bytes],
        at: at(number as i64),
    }
}
