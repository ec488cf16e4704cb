//! Writes of templates: compare-and-set, names, races, and together with a sandbox.

use std::{future::Future, sync::Arc};

use super::fixtures::*;
use crate::{
    operation::{OperationKind, OperationRecord, OperationStatus},
    sandbox::SandboxState,
    store::{SandboxWrite, Store, StoreError, TemplateChange, TemplateWrite},
    template::{TemplateFilter, TemplatePageRequest, TemplateRecord, TemplateState},
};

/// An operation that makes a template of no sandbox.
fn import(number: u128, template: u128) -> OperationRecord {
    let mut import = operation(number, 0, 0);
    import.sandbox_id = None;
    import.template_id = Some(template_id(template));
    import.kind = OperationKind::Import;
    import
}

/// A change with an operation and an audit entry of its own, both under this number.
fn traced(number: u128, change: TemplateChange) -> TemplateWrite {
    TemplateWrite {
        change,
        operation: Some(import(number, 1)),
        audit: Some(audit(number, "tpl", 0)),
    }
}

async fn assert_no_trace(store: &dyn Store, number: u128) {
    let operation = store.operation(import(number, 1).id).await.unwrap();
    assert_eq!(operation, None);
    assert_eq!(store.audit_of("tpl", 10).await.unwrap(), Vec::new());
}

async fn all_templates(store: &dyn Store) -> Vec<TemplateRecord> {
    let filter = TemplateFilter {
        all_states: true,
        ..TemplateFilter::default()
    };
    let request = TemplatePageRequest {
        after: None,
        limit: 100,
    };
    store.list_templates(&filter, request).await.unwrap().items
}

/// Runs one write per number at once, and returns how many were taken; each other one is refused
/// with what `lost` accepts.
async fn race<F>(write: impl Fn(u128) -> F, lost: fn(&StoreError) -> bool) -> usize
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let tasks: Vec<_> = (1..=8)
        .map(|number| tokio::task::spawn(write(number)))
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert!(lost(&error), "{error}"),
        }
    }
    won
}

/// Insert, update and removal each take an operation and an audit entry along; they stay behind.
/// An operation on a template is no sandbox's.
pub async fn a_templates_write_takes_operation_and_audit_along(store: Arc<dyn Store>) {
    let first = template(1);
    let second = rewritten(&first, TemplateState::Ready);
    let changes = [
        TemplateChange::Insert(first.clone()),
        TemplateChange::Update(second.clone()),
        TemplateChange::Remove(second.id, second.version),
    ];
    for (number, change) in (1..).zip(changes) {
        store.write_template(traced(number, change)).await.unwrap();
        let read = store.operation(import(number, 1).id).await.unwrap();
        assert_eq!(read, Some(import(number, 1)));
    }
    let expected = vec![audit(1, "tpl", 0), audit(2, "tpl", 0), audit(3, "tpl", 0)];
    assert_eq!(store.audit_of("tpl", 10).await.unwrap(), expected);
    assert_eq!(store.last_operation_on(sandbox_id(1)).await.unwrap(), None);
    // An operation may be both: a sandbox's, and one that makes a template.
    let mut ended = import(1, 1);
    ended.sandbox_id = Some(sandbox_id(1));
    ended.status = OperationStatus::Succeeded;
    ended.finished_at = Some(at(1));
    let again = TemplateWrite {
        operation: Some(ended.clone()),
        ..change(TemplateChange::Insert(first))
    };
    store.write_template(again).await.unwrap();
    let last = store.last_operation_on(sandbox_id(1)).await.unwrap();
    assert_eq!(last, Some(ended));
}

/// Neither record nor operation nor audit entry is written at another version, of a record that is
/// gone, or by inserting an ID again.
pub async fn a_template_is_written_and_removed_at_its_version_only(store: Arc<dyn Store>) {
    let current = rewritten(&template(1), TemplateState::Ready);
    insert_template(&*store, template(1)).await;
    let update = change(TemplateChange::Update(current.clone()));
    store.write_template(update).await.unwrap();

    let at_version = |version| TemplateRecord {
        version,
        ..rewritten(&current, TemplateState::Deleting)
    };
    let mut refused = Vec::new();
    for version in [0, 1, 2, 4, u64::from(u32::MAX)] {
        refused.push(TemplateChange::Update(at_version(version)));
    }
    for version in [0, 1, 3] {
        refused.push(TemplateChange::Remove(current.id, version));
    }
    refused.push(TemplateChange::Update(rewritten(
        &template(2),
        TemplateState::Ready,
    )));
    refused.push(TemplateChange::Remove(template_id(2), 1));
    for refused in refused {
        let write = traced(9, refused);
        let result = store.write_template(write.clone()).await;
        let conflict = matches!(result, Err(StoreError::Conflict));
        assert!(conflict, "{write:?} gave {result:?}");
    }
    let mut again = template(1);
    again.name = "other".parse().unwrap();
    let write = traced(9, TemplateChange::Insert(again));
    let result = store.write_template(write).await;
    assert!(matches!(result, Err(StoreError::Duplicate)), "{result:?}");

    assert_eq!(all_templates(&*store).await, [current]);
    assert_no_trace(&*store, 9).await;
}

/// One name, one template; teams do not share names. That holds for renaming, too.
pub async fn r23_a_templates_name_is_taken_once_per_team(store: Arc<dyn Store>) {
    let named = |number, name: &str, owner: u128, state| TemplateRecord {
        name: name.parse().unwrap(),
        team_id: team(owner),
        state,
        ..template(number)
    };
    let (making, ready) = (TemplateState::Making, TemplateState::Ready);
    insert_template(&*store, named(1, "a", 0, making)).await;
    for state in [making, ready] {
        let write = traced(9, TemplateChange::Insert(named(2, "a", 0, state)));
        let result = store.write_template(write).await;
        assert!(matches!(result, Err(StoreError::Duplicate)), "{result:?}");
    }
    insert_template(&*store, named(3, "a", 1, ready)).await;
    insert_template(&*store, named(4, "a.", 0, ready)).await;
    let renamed = rewritten(&named(4, "a", 0, ready), ready);
    let write = traced(9, TemplateChange::Update(renamed));
    let result = store.write_template(write).await;
    assert!(matches!(result, Err(StoreError::Duplicate)), "{result:?}");
    let expected = [
        named(1, "a", 0, making),
        named(3, "a", 1, ready),
        named(4, "a.", 0, ready),
    ];
    assert_eq!(all_templates(&*store).await, expected);
    assert_no_trace(&*store, 9).await;
}

/// Hiding a template frees its name, as often as one likes; it can't be unhidden while the name is
/// another's.
pub async fn r26_a_template_that_is_being_deleted_gives_up_its_name(store: Arc<dyn Store>) {
    let named = |number| TemplateRecord {
        name: "a".parse().unwrap(),
        ..template(number)
    };
    for number in 1..=3 {
        insert_template(&*store, named(number)).await;
        let hidden = rewritten(&named(number), TemplateState::Deleting);
        let update = change(TemplateChange::Update(hidden));
        store.write_template(update).await.unwrap();
    }
    insert_template(&*store, named(4)).await;
    let mut back = named(1);
    back.version = 3;
    let result = store
        .write_template(change(TemplateChange::Update(back.clone())))
        .await;
    assert!(matches!(result, Err(StoreError::Duplicate)), "{result:?}");
    // Removed, it gives up its name as well.
    let remove = change(TemplateChange::Remove(template_id(4), 1));
    store.write_template(remove).await.unwrap();
    let update = change(TemplateChange::Update(back.clone()));
    store.write_template(update).await.unwrap();
    assert_eq!(store.template(back.id).await.unwrap(), Some(back));
}

/// Eight tasks take one name at once, half of them with a sandbox that is to become the template.
pub async fn r23_eight_writers_of_one_name_make_one_template(store: Arc<dyn Store>) {
    for number in 1..=8 {
        insert(&*store, record(number)).await;
    }
    let won = race(
        |number| {
            let store = Arc::clone(&store);
            let mut template = template(number);
            template.name = "a".parse().unwrap();
            template.state = TemplateState::Making;
            let write = change(TemplateChange::Insert(template));
            async move {
                if number % 2 == 0 {
                    return store.write_template(write).await;
                }
                let next = bumped(&record(number), SandboxState::Running);
                store
                    .update_sandbox(SandboxWrite {
                        template: Some(write),
                        ..super::fixtures::write(next)
                    })
                    .await
            }
        },
        |error| matches!(error, StoreError::Duplicate),
    )
    .await;
    assert_eq!(won, 1);
    let made = all_templates(&*store).await;
    assert_eq!(made.len(), 1);
    let winner = made[0].id.uuid().as_u128();
    for number in 1..=8 {
        let taken = number == winner && number % 2 == 1;
        let version = stored(&*store, number).await.version;
        assert_eq!(version, if taken { 2 } else { 1 }, "sandbox {number}");
    }
}

/// Eight tasks hide one template at once.
pub async fn r26_eight_writers_that_hide_one_template_hide_it_once(store: Arc<dyn Store>) {
    insert_template(&*store, template(1)).await;
    let hidden = rewritten(&template(1), TemplateState::Deleting);
    let won = race(
        |number| {
            let store = Arc::clone(&store);
            let change = TemplateChange::Update(hidden.clone());
            async move { store.write_template(traced(number, change)).await }
        },
        |error| matches!(error, StoreError::Conflict),
    )
    .await;
    assert_eq!(won, 1);
    assert_eq!(all_templates(&*store).await, [hidden]);
    assert_eq!(store.audit_of("tpl", 10).await.unwrap().len(), 1);
}

/// A template begins, is published and given up with its sandbox's writes.
pub async fn a_sandbox_and_its_template_are_written_together(store: Arc<dyn Store>) {
    let making = TemplateRecord {
        state: TemplateState::Making,
        origin: Some(sandbox_id(1)),
        ..template(1)
    };
    let ready = rewritten(&making, TemplateState::Ready);
    let changes = [
        (TemplateChange::Insert(making.clone()), Some(making)),
        (TemplateChange::Update(ready.clone()), Some(ready.clone())),
        (TemplateChange::Remove(ready.id, ready.version), None),
    ];
    let mut sandbox = record(1);
    insert(&*store, sandbox.clone()).await;
    for (number, (change, expected)) in (1..).zip(changes) {
        sandbox = bumped(&sandbox, SandboxState::Running);
        let write = SandboxWrite {
            operations: vec![operation(number + 100, 1, 0)],
            template: Some(traced(number, change)),
            ..write(sandbox.clone())
        };
        store.update_sandbox(write).await.unwrap();
        assert_eq!(stored(&*store, 1).await, sandbox);
        assert_eq!(store.template(ready.id).await.unwrap(), expected);
        for written in [operation(number + 100, 1, 0), import(number, 1)] {
            let read = store.operation(written.id).await.unwrap();
            assert_eq!(read, Some(written));
        }
    }
    assert_eq!(store.audit_of("tpl", 10).await.unwrap().len(), 3);
    // With a new sandbox, too.
    let insert = SandboxWrite {
        template: Some(change(TemplateChange::Insert(template(2)))),
        ..write(record(2))
    };
    store.insert_sandbox(insert).await.unwrap();
    assert_eq!(stored(&*store, 2).await, record(2));
    assert_eq!(all_templates(&*store).await, [template(2)]);
}

/// Where the template's half fails, nothing of the sandbox's is there.
pub async fn a_template_that_fails_takes_its_sandboxs_write_along(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    insert_template(&*store, template(1)).await;
    let mut same_name = template(2);
    same_name.name = template(1).name;
    let duplicate: fn(&StoreError) -> bool = |error| matches!(error, StoreError::Duplicate);
    let conflict: fn(&StoreError) -> bool = |error| matches!(error, StoreError::Conflict);
    let cases = [
        (TemplateChange::Insert(same_name), duplicate),
        (TemplateChange::Insert(template(1)), duplicate),
        (TemplateChange::Update(template(1)), conflict),
        (TemplateChange::Remove(template_id(1), 2), conflict),
        (TemplateChange::Remove(template_id(2), 1), conflict),
    ];
    for (failing, expected) in cases {
        let with = |record| SandboxWrite {
            record,
            operations: vec![operation(8, 1, 0)],
            template: Some(traced(9, failing.clone())),
            audit: Some(audit(8, "sb-x", 0)),
        };
        let next = bumped(&record(1), SandboxState::Running);
        for result in [
            store.update_sandbox(with(next)).await,
            store.insert_sandbox(with(record(2))).await,
        ] {
            let error = result.unwrap_err();
            assert!(expected(&error), "{failing:?} gave {error:?}");
        }
    }
    assert_eq!(stored(&*store, 1).await, record(1));
    assert_eq!(store.sandbox(sandbox_id(2)).await.unwrap(), None);
    assert_eq!(all_templates(&*store).await, [template(1)]);
    let written = store.operation(operation(8, 1, 0).id).await.unwrap();
    assert_eq!(written, None);
    assert_eq!(store.audit_of("sb-x", 10).await.unwrap(), Vec::new());
    assert_no_trace(&*store, 9).await;
}

/// Where the sandbox's half fails, nothing of the template's is there.
pub async fn a_sandbox_that_fails_takes_its_templates_write_along(store: Arc<dyn Store>) {
    insert(&*store, record(1)).await;
    insert_template(&*store, template(1)).await;
    let hidden = rewritten(&template(1), TemplateState::Deleting);
    let changes = [
        TemplateChange::Insert(template(2)),
        TemplateChange::Update(hidden),
        TemplateChange::Remove(template_id(1), 1),
    ];
    for change in changes {
        let with = |record| SandboxWrite {
            template: Some(traced(9, change.clone())),
            ..write(record)
        };
        let late = store.update_sandbox(with(record(1))).await;
        assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
        let again = store.insert_sandbox(with(record(1))).await;
        assert!(matches!(again, Err(StoreError::Duplicate)), "{again:?}");
    }
    assert_eq!(stored(&*store, 1).await, record(1));
    assert_eq!(all_templates(&*store).await, [template(1)]);
    assert_no_trace(&*store, 9).await;
}
