//! Compare-and-set, uniqueness and races.

use std::sync::Arc;

use uuid::Uuid;

use super::fixtures::*;
use crate::{
    id::TeamId,
    sandbox::{SandboxFilter, SandboxState},
    store::{SandboxWrite, Store, StoreError},
};

/// Compare-and-set, when the comparison holds.
pub async fn an_update_replaces_the_record_at_its_version(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    let next = bumped(&record(1), SandboxState::Running);
    store.update_sandbox(write(next.clone())).await.unwrap();
    assert_eq!(stored(&*store, 1).await, next);
    let last = bumped(&next, SandboxState::Stopped);
    store.update_sandbox(write(last.clone())).await.unwrap();
    assert_eq!(stored(&*store, 1).await, last);
}

/// Compare-and-set, when it does not: neither record nor operation nor audit entry is written.
pub async fn an_update_at_another_version_conflicts_and_changes_nothing(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    for version in [0, 1, 3, 4, u64::from(u32::MAX)] {
        let mut wrong = record(1);
        wrong.version = version;
        wrong.state = SandboxState::Error;
        let result = store
            .update_sandbox(SandboxWrite {
                template: None,
                record: wrong,
                operations: vec![operation(9, 1, 0)],
                audit: Some(audit(9, "sb-x", 0)),
            })
            .await;
        assert!(
            matches!(result, Err(StoreError::Conflict)),
            "version {version} gave {result:?}"
        );
    }
    assert_eq!(stored(&*store, 1).await, record(1));
    let written = store.operation(operation(9, 1, 0).id).await.unwrap();
    assert_eq!(written, None);
    assert_eq!(store.audit_of("sb-x", 10).await.unwrap(), Vec::new());
}

/// What was removed can't be updated, and is not brought back by it.
pub async fn an_update_of_a_gone_record_conflicts(store: Arc<dyn Store>) {
    let next = bumped(&record(1), SandboxState::Running);
    let result = store.update_sandbox(write(next.clone())).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    insert(&*store, record(1)).await;
    store
        .remove_sandbox(sandbox_id(1), 1, None, audit(1, "sb-1", 0))
        .await
        .unwrap();
    let result = store.update_sandbox(write(next)).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), None);
}

/// Two decisions on one version: the first is taken, the second is told.
pub async fn of_two_writers_one_wins(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    let first = bumped(&record(1), SandboxState::Running);
    let second = bumped(&record(1), SandboxState::Error);
    store.update_sandbox(write(first.clone())).await.unwrap();
    let lost = store.update_sandbox(write(second)).await;
    assert!(matches!(lost, Err(StoreError::Conflict)), "{lost:?}");
    assert_eq!(stored(&*store, 1).await, first);
}

/// A writer that decided on version 1 comes when version 3 is there.
pub async fn trap_2_a_slow_writer_never_brings_an_old_state_back(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    let slow = bumped(&record(1), SandboxState::Running);
    let running = bumped(&record(1), SandboxState::Running);
    let stopped = bumped(&running, SandboxState::Stopped);
    store.update_sandbox(write(running)).await.unwrap();
    store.update_sandbox(write(stopped.clone())).await.unwrap();
    let late = store.update_sandbox(write(slow)).await;
    assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
    assert_eq!(stored(&*store, 1).await, stopped);
}

/// An ID is used once.
pub async fn a_second_insert_of_an_id_is_a_duplicate_and_changes_nothing(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    let mut other = record(1);
    other.state = SandboxState::Error;
    let result = store
        .insert_sandbox(SandboxWrite {
            template: None,
            record: other,
            operations: vec![operation(9, 1, 0)],
            audit: Some(audit(9, "sb-x", 0)),
        })
        .await;
    assert!(matches!(result, Err(StoreError::Duplicate)), "{result:?}");
    assert_eq!(stored(&*store, 1).await, record(1));
    let written = store.operation(operation(9, 1, 0).id).await.unwrap();
    assert_eq!(written, None);
    assert_eq!(store.audit_of("sb-x", 10).await.unwrap(), Vec::new());
}

/// One key, one sandbox; teams do not share keys; no key is no key.
pub async fn r10_an_idempotency_key_is_taken_once_per_team(store: Arc<dyn Store>) {
    let keyed = |number, key: Option<&str>, team: u128| {
        let mut record = record(number);
        record.idempotency_key = key.map(str::to_owned);
        record.team_id = TeamId::from_uuid(Uuid::from_u128(team));
        record
    };
    insert(&*store, keyed(1, Some("k"), 0)).await;
    let again = store.insert_sandbox(write(keyed(2, Some("k"), 0))).await;
    assert!(matches!(again, Err(StoreError::Duplicate)), "{again:?}");
    assert_eq!(store.sandbox(sandbox_id(2)).await.unwrap(), None);
    insert(&*store, keyed(3, Some("k"), 1)).await;
    insert(&*store, keyed(4, Some("K"), 0)).await;
    insert(&*store, keyed(5, None, 0)).await;
    insert(&*store, keyed(6, None, 0)).await;
    for (team, number) in [(0, 1), (1, 3)] {
        let team = TeamId::from_uuid(Uuid::from_u128(team));
        let found = store.sandbox_by_idempotency_key(team, "k").await.unwrap();
        assert_eq!(found.unwrap().id, sandbox_id(number));
    }
}

/// A create that failed and was removed can be tried again under its key.
pub async fn r10_a_removed_record_frees_its_idempotency_key(store: Arc<dyn Store>) {
    let mut first = record(1);
    first.idempotency_key = Some("k".to_owned());
    insert(&*store, first).await;
    store
        .remove_sandbox(sandbox_id(1), 1, None, audit(1, "sb-1", 0))
        .await
        .unwrap();
    let mut second = record(2);
    second.idempotency_key = Some("k".to_owned());
    insert(&*store, second).await;
    let found = store.sandbox_by_idempotency_key(TEAM, "k").await.unwrap();
    assert_eq!(found.unwrap().id, sandbox_id(2));
}

/// Removal is compare-and-set too.
pub async fn a_removal_at_another_version_conflicts_and_changes_nothing(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    for version in [0, 2] {
        let result = store
            .remove_sandbox(
                sandbox_id(1),
                version,
                Some(operation(9, 1, 0)),
                audit(9, "sb-x", 0),
            )
            .await;
        assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    }
    let gone = store
        .remove_sandbox(sandbox_id(2), 1, None, audit(8, "sb-x", 0))
        .await;
    assert!(matches!(gone, Err(StoreError::Conflict)), "{gone:?}");
    assert_eq!(stored(&*store, 1).await, record(1));
    let written = store.operation(operation(9, 1, 0).id).await.unwrap();
    assert_eq!(written, None);
    assert_eq!(store.audit_of("sb-x", 10).await.unwrap(), Vec::new());
}

/// Eight tasks each add ten to a counter kept in the record: nothing is lost.
pub async fn r7_eight_writers_on_one_record_get_each_version_once(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const WRITES: u64 = 10;
    insert(&*store, record(1)).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::task::spawn(async move {
                let mut won = Vec::new();
                while won.len() < WRITES as usize {
                    let current = stored(&*store, 1).await;
                    let mut next = bumped(&current, SandboxState::Running);
                    next.generation += 1;
                    let version = next.version;
                    match store.update_sandbox(write(next)).await {
                        Ok(()) => won.push(version),
                        Err(StoreError::Conflict) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.extend(task.await.unwrap());
    }
    versions.sort_unstable();
    let expected: Vec<u64> = (2..2 + TASKS * WRITES).collect();
    assert_eq!(versions, expected);
    let last = stored(&*store, 1).await;
    assert_eq!(last.version, 1 + TASKS * WRITES);
    assert_eq!(last.generation, 1 + TASKS * WRITES);
}

/// Eight tasks insert under one key at once.
pub async fn eight_inserters_of_one_key_make_one_record(store: Arc<dyn Store>) {
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let store = Arc::clone(&store);
            let mut record = record(number);
            record.idempotency_key = Some("k".to_owned());
            tokio::task::spawn(async move { store.insert_sandbox(write(record)).await })
        })
        .collect();
    let mut inserted = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => inserted += 1,
            Err(StoreError::Duplicate) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(inserted, 1);
    let all = listed(&*store, &SandboxFilter::default(), 100).await;
    assert_eq!(all.concat().len(), 1);
}
