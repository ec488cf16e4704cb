//! Operations and the audit log.

use std::sync::Arc;

use super::fixtures::*;
use crate::{
    audit::AuditEntry,
    error::Error,
    operation::{OperationKind, OperationStatus},
    sandbox::SandboxState,
    store::{SandboxWrite, Store},
};

/// What happened stays known when the record is gone.
pub async fn a_removal_keeps_operation_and_audit(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    let mut done = operation(2, 1, 0);
    done.kind = OperationKind::Destroy;
    done.status = OperationStatus::Succeeded;
    done.finished_at = Some(at(1));
    store
        .remove_sandbox(sandbox_id(1), 1, Some(done.clone()), audit(1, "sb-1", 1))
        .await
        .unwrap();
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), None);
    assert_eq!(store.operation(done.id).await.unwrap(), Some(done.clone()));
    let last = store.last_operation_on(sandbox_id(1)).await.unwrap();
    assert_eq!(last, Some(done));
    let entries = store.audit_of("sb-1", 10).await.unwrap();
    assert_eq!(entries, vec![audit(1, "sb-1", 1)]);
}

/// An operation is inserted once and replaced afterwards.
pub async fn an_operation_is_replaced_by_its_id(store: Arc<dyn Store>) {
    let begun = operation(2, 1, 0);
    store
        .insert_sandbox(SandboxWrite {
            template: None,
            record: record(1),
            operations: vec![begun.clone()],
            audit: None,
        })
        .await
        .unwrap();
    assert_eq!(
        store.operation(begun.id).await.unwrap(),
        Some(begun.clone())
    );
    let mut ended = begun.clone();
    ended.status = OperationStatus::Failed {
        error: Error::Capacity("no room".to_owned()),
    };
    ended.finished_at = Some(at(5));
    store
        .update_sandbox(SandboxWrite {
            template: None,
            record: bumped(&record(1), SandboxState::Error),
            operations: vec![ended.clone()],
            audit: None,
        })
        .await
        .unwrap();
    assert_eq!(store.operation(begun.id).await.unwrap(), Some(ended));
}

/// One write ends an operation and begins another.
pub async fn two_operations_go_with_one_write(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    let mut cut_short = operation(2, 1, 0);
    cut_short.status = OperationStatus::Failed {
        error: Error::Conflict(sandbox_id(1)),
    };
    cut_short.finished_at = Some(at(1));
    let begun = operation(3, 1, 1);
    store
        .update_sandbox(SandboxWrite {
            template: None,
            record: bumped(&record(1), SandboxState::Pending),
            operations: vec![cut_short.clone(), begun.clone()],
            audit: None,
        })
        .await
        .unwrap();
    for operation in [cut_short, begun] {
        assert_eq!(
            store.operation(operation.id).await.unwrap(),
            Some(operation)
        );
    }
}

/// "Newest" is by when it began, not by when it was written.
pub async fn the_last_operation_is_the_newest_also_after_removal(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    insert(&*store, record(2)).await;
    let operations = vec![
        operation(5, 1, 10),
        operation(6, 1, 30),
        operation(7, 1, 20),
        operation(8, 2, 99),
    ];
    store
        .update_sandbox(SandboxWrite {
            template: None,
            record: bumped(&record(1), SandboxState::Running),
            operations,
            audit: None,
        })
        .await
        .unwrap();
    let last = store.last_operation_on(sandbox_id(1)).await.unwrap();
    assert_eq!(last, Some(operation(6, 1, 30)));
    store
        .remove_sandbox(
            sandbox_id(1),
            2,
            Some(operation(9, 1, 40)),
            audit(1, "sb-1", 1),
        )
        .await
        .unwrap();
    let last = store.last_operation_on(sandbox_id(1)).await.unwrap();
    assert_eq!(last, Some(operation(9, 1, 40)));
}

/// Only what ended before the moment goes.
pub async fn old_finished_operations_are_removed_and_running_ones_stay(store: Arc<dyn Store>) {
    let ended = |number, second| {
        let mut operation = operation(number, 1, 0);
        operation.status = OperationStatus::Succeeded;
        operation.finished_at = Some(at(second));
        operation
    };
    store
        .insert_sandbox(SandboxWrite {
            template: None,
            record: record(1),
            operations: vec![ended(1, 10), ended(2, 19), ended(3, 20), operation(4, 1, 0)],
            audit: None,
        })
        .await
        .unwrap();
    let removed = store.remove_operations_finished_before(at(20)).await;
    assert_eq!(removed.unwrap(), 2);
    for (number, there) in [(1, false), (2, false), (3, true), (4, true)] {
        let found = store.operation(operation(number, 1, 0).id).await.unwrap();
        assert_eq!(found.is_some(), there, "operation {number}");
    }
    let again = store.remove_operations_finished_before(at(20)).await;
    assert_eq!(again.unwrap(), 0);
}

/// Oldest first, one resource at a time, no more than asked for.
pub async fn audit_is_in_order_and_limited_and_apart(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    let mut current = record(1);
    for number in 1..=5u32 {
        current = bumped(&current, SandboxState::Running);
        store
            .update_sandbox(SandboxWrite {
                template: None,
                record: current.clone(),
                operations: Vec::new(),
                audit: Some(audit(u128::from(number), "sb-1", i64::from(number))),
            })
            .await
            .unwrap();
    }
    let mut other = record(2);
    other.reason = "other".to_owned();
    store
        .insert_sandbox(SandboxWrite {
            template: None,
            record: other,
            operations: Vec::new(),
            audit: Some(audit(50, "sb-2", 0)),
        })
        .await
        .unwrap();
    let all = store.audit_of("sb-1", 100).await.unwrap();
    let expected: Vec<AuditEntry> = (1..=5u32)
        .map(|number| audit(u128::from(number), "sb-1", i64::from(number)))
        .collect();
    assert_eq!(all, expected);
    let some = store.audit_of("sb-1", 2).await.unwrap();
    assert_eq!(some, expected[..2]);
    assert_eq!(store.audit_of("sb-2", 100).await.unwrap().len(), 1);
}
