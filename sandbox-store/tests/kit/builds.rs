//! Builds for tests.

use sandbox_core::{
    audit::Actor,
    build::{BuildRecord, BuildStatus, LogCursor, LogEntry, LogStream, Recipe, Step},
    id::{BuildId, PLATFORM_TEAM_ID},
    size::MachineSize,
    store::BuildWrite,
    template::MINIMAL_TEMPLATE_ID,
};
use uuid::Uuid;

use crate::kit::at;

/// A build that waits, of a template that is named after its number.
pub(crate) fn build(number: u128) -> BuildRecord {
    BuildRecord {
        id: BuildId::from_uuid(Uuid::from_u128(number)),
        team_id: PLATFORM_TEAM_ID,
        name: format!("t{number}").parse().unwrap(),
        base_template: "minimal".parse().unwrap(),
        base_id: MINIMAL_TEMPLATE_ID,
        recipe: Recipe {
            steps: vec![Step::Run {
                command: "make".to_owned(),
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

pub(crate) fn build_write(record: BuildRecord) -> BuildWrite {
    BuildWrite {
        record,
        steps: Vec::new(),
        templates: Vec::new(),
        audit: None,
    }
}

/// A piece of the first attempt's log, with this much data.
pub(crate) fn piece(number: u64, size_bytes: usize) -> LogEntry {
    LogEntry {
        cursor: LogCursor::new(1, number),
        step: 1,
        stream: LogStream::Stdout,
        data: vec![number as u8; size_bytes],
        at: at(0),
    }
}

/// Bytes that nothing makes smaller; always the same.
pub(crate) fn noise(size_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}
