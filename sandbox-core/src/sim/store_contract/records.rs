//! What is written is what is read.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::fixtures::*;
use crate::{
    clock::Timestamp,
    error::Error,
    id::{HostId, OperationId, TeamId},
    operation::{Operation, OperationKind, OperationStatus},
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    size::MachineSize,
    store::{SandboxWrite, Store},
};

/// A record with every field set to something that is not its default.
fn full(number: u128) -> SandboxRecord {
    let mut full = record(number);
    full.team_id = TeamId::from_uuid(Uuid::from_u128(77));
    full.operation = Some(Operation {
        id: OperationId::from_uuid(Uuid::from_u128(number + 1000)),
        kind: OperationKind::Destroy,
        started_at: at(3),
        lease_until: at(33),
    });
    full.generation = 7;
    full.template = "python-3.12".parse().unwrap();
    full.size = MachineSize {
        vcpus: 64,
        memory_mb: 1024 * 1024,
        disk_size_mb: 4 * 1024 * 1024,
    };
    full.timeout_sec = Some(31_536_000);
    full.on_timeout = OnTimeout::Pause;
    full.metadata = BTreeMap::from([("owner".to_owned(), "me".to_owned())]);
    full.env = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
    full.host_id = Some(HostId::from_uuid(Uuid::from_u128(u128::MAX)));
    full.idempotency_key = Some(format!("key {number}"));
    full.started_at = Some(at(1));
    full.expires_at = Some(at(2));
    full.updated_at = at(4);
    full
}

/// What was inserted is what is read, field by field.
pub async fn an_inserted_record_comes_back_equal(store: Arc<dyn Store>) {
    let full = full(1);
    insert(&*store, full.clone()).await;
    assert_eq!(stored(&*store, 1).await, full);
    let by_key = store
        .sandbox_by_idempotency_key(full.team_id, "key 1")
        .await
        .unwrap();
    assert_eq!(by_key, Some(full));
}

/// Reading what is not there is no error.
pub async fn a_missing_record_is_none(store: Arc<dyn Store>) {
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), None);
    let by_key = store.sandbox_by_idempotency_key(TEAM, "nothing").await;
    assert_eq!(by_key.unwrap(), None);
    let unknown = OperationId::from_uuid(Uuid::from_u128(1));
    assert_eq!(store.operation(unknown).await.unwrap(), None);
    assert_eq!(store.last_operation_on(sandbox_id(1)).await.unwrap(), None);
    assert_eq!(store.audit_of("sb-none", 10).await.unwrap(), Vec::new());
}

/// Microseconds survive, and so does time before 1970.
pub async fn timestamps_keep_their_microseconds(store: Arc<dyn Store>) {
    let times = [
        Timestamp::from_timestamp_micros(1).unwrap(),
        Timestamp::from_timestamp_micros(999_999).unwrap(),
        Timestamp::from_timestamp_micros(-1).unwrap(),
        Timestamp::from_timestamp_micros(4_102_444_800_000_001).unwrap(),
    ];
    for (number, time) in (1..).zip(times) {
        let mut record = record(number);
        record.created_at = time;
        record.updated_at = time;
        record.started_at = Some(time);
        record.expires_at = Some(time);
        insert(&*store, record.clone()).await;
        assert_eq!(stored(&*store, number).await, record);
    }
}

/// Text is kept as it is: no trimming, no folding, no quoting.
pub async fn unicode_and_odd_text_come_back_equal(store: Arc<dyn Store>) {
    let mut record = record(1);
    for text in [
        "",
        " ",
        "ö 漢字 🦀",
        "a'b\"c\\d",
        "line\nline\ttab",
        "%_*?",
        "'; DROP TABLE sandboxes; --",
        "\u{200b}\u{feff}",
    ] {
        record.metadata.insert(text.to_owned(), text.to_owned());
        record.env.insert(format!("K{text}"), text.to_owned());
        record.reason.push_str(text);
    }
    record.idempotency_key = Some("ö 漢字 🦀 '\"".to_owned());
    insert(&*store, record.clone()).await;
    assert_eq!(stored(&*store, 1).await, record);
    let key = record.idempotency_key.clone().unwrap();
    let by_key = store.sandbox_by_idempotency_key(TEAM, &key).await;
    assert_eq!(by_key.unwrap(), Some(record));
}

/// An update can also take a value away.
pub async fn absent_options_stay_absent(store: Arc<dyn Store>) {
    let full = full(1);
    insert(&*store, full.clone()).await;
    let mut bare = bumped(&full, SandboxState::Stopped);
    bare.operation = None;
    bare.timeout_sec = None;
    bare.host_id = None;
    bare.started_at = None;
    bare.expires_at = None;
    bare.metadata.clear();
    bare.env.clear();
    store.update_sandbox(write(bare.clone())).await.unwrap();
    assert_eq!(stored(&*store, 1).await, bare);
}

/// Each state, with each kind of operation and each outcome.
pub async fn every_state_and_operation_comes_back_equal(store: Arc<dyn Store>) {
    let mut number = 0;
    let statuses = [
        OperationStatus::Running,
        OperationStatus::Succeeded,
        OperationStatus::Failed {
            error: Error::TemplateNotFound("nix".to_owned()),
        },
    ];
    for state in SandboxState::ALL {
        for kind in OperationKind::ALL {
            for status in &statuses {
                number += 1;
                let mut record = full(number);
                record.state = state;
                let mut operation = operation(number + 5000, number, 0);
                operation.kind = kind;
                operation.status = status.clone();
                if *status != OperationStatus::Running {
                    operation.finished_at = Some(at(9));
                }
                if let Some(in_flight) = &mut record.operation {
                    in_flight.kind = kind;
                }
                let write = SandboxWrite {
                    template: None,
                    record: record.clone(),
                    operations: vec![operation.clone()],
                    audit: None,
                };
                store.insert_sandbox(write).await.unwrap();
                assert_eq!(stored(&*store, number).await, record);
                let read = store.operation(operation.id).await.unwrap();
                assert_eq!(read, Some(operation));
            }
        }
    }
}
