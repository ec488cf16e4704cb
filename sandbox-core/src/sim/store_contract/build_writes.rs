//! Builds and their templates: one transaction, or nothing.

use std::sync::Arc;

use super::{build_fixtures::*, fixtures::*};
use crate::{
    build::{BuildStatus, LayerKey},
    id::TemplateId,
    store::{Store, StoreError, TemplateChange, TemplateWrite},
    template::{TemplateFilter, TemplatePageRequest, TemplateRecord, TemplateState},
};

fn layer(byte: u8) -> LayerKey {
    LayerKey::from([byte; 32])
}

/// A template that a build keeps for itself.
fn kept(number: u128, key: u8) -> TemplateRecord {
    TemplateRecord {
        state: TemplateState::Layer,
        layer: Some(layer(key)),
        ..template(number)
    }
}

fn renamed(record: &TemplateRecord, name: &str) -> TemplateRecord {
    TemplateRecord {
        name: name.parse().unwrap(),
        ..rewritten(record, TemplateState::Ready)
    }
}

async fn stored_template(store: &dyn Store, number: u128) -> Option<TemplateRecord> {
    store.template(template_id(number)).await.unwrap()
}

/// A change with an audit entry.
fn noted(number: u128, what: TemplateChange) -> TemplateWrite {
    TemplateWrite {
        audit: Some(audit(number, "tpl", 0)),
        ..change(what)
    }
}

/// The old template of the name gives it up, and the new one takes it, with the build's last write.
pub async fn r28_a_build_is_published_over_an_old_template_of_its_name(store: Arc<dyn Store>) {
    let old = template(1);
    let new = kept(2, 2);
    insert_template(&*store, old.clone()).await;
    insert_template(&*store, new.clone()).await;
    let running = build(1);
    insert_build(&*store, running.clone()).await;

    let hidden = rewritten(&old, TemplateState::Deleting);
    let published = renamed(&new, "t1");
    let ended = succeeded(&running, 2, 5);
    let changes = vec![
        noted(1, TemplateChange::Update(hidden.clone())),
        noted(2, TemplateChange::Update(published.clone())),
    ];
    let write = with_all(ended.clone(), audit(3, "bld", 0), changes);
    store.update_build(write).await.unwrap();
    assert_eq!(stored_build(&*store, 1).await, ended);
    assert_eq!(stored_template(&*store, 1).await, Some(hidden));
    assert_eq!(stored_template(&*store, 2).await, Some(published.clone()));
    let steps = store.build_steps(ended.id, 1).await.unwrap();
    assert_eq!(steps, [step(&ended, 1, 1)]);
    assert_eq!(store.audit_of("tpl", 10).await.unwrap().len(), 2);
    assert_eq!(store.audit_of("bld", 10).await.unwrap().len(), 1);
    let named = TemplateFilter {
        name: Some("t1".parse().unwrap()),
        ..TemplateFilter::default()
    };
    let page = store.list_templates(&named, TemplatePageRequest::default());
    assert_eq!(page.await.unwrap().items, [published]);
}

/// Also in one write that inserts and removes, as long as each step is right after the one before.
pub async fn r28_a_builds_templates_are_written_in_their_order(store: Arc<dyn Store>) {
    insert_template(&*store, template(1)).await;
    insert_build(&*store, build(1)).await;
    let new = TemplateRecord {
        name: "t1".parse().unwrap(),
        ..template(2)
    };
    let next = rewritten(&new, TemplateState::Ready);
    let ended = succeeded(&build(1), 2, 5);
    let in_order = [
        change(TemplateChange::Remove(template_id(1), 1)),
        change(TemplateChange::Insert(new)),
        change(TemplateChange::Update(next.clone())),
    ];
    let mut reversed = in_order.to_vec();
    reversed.reverse();
    let write = with_all(ended.clone(), audit(1, "bld", 0), reversed);
    let result = store.update_build(write).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    let write = with_all(ended.clone(), audit(1, "bld", 0), in_order.into());
    store.update_build(write).await.unwrap();
    assert_eq!(stored_build(&*store, 1).await, ended);
    assert_eq!(stored_template(&*store, 1).await, None);
    assert_eq!(stored_template(&*store, 2).await, Some(next));
}

/// Where one template's write fails, nothing of the build's or of the other templates' is there.
pub async fn r28_a_template_that_fails_takes_its_builds_write_along(store: Arc<dyn Store>) {
    insert_template(&*store, template(1)).await;
    insert_template(&*store, kept(2, 2)).await;
    insert_build(&*store, build(1)).await;
    let good = TemplateChange::Update(rewritten(&template(1), TemplateState::Ready));
    let duplicate: fn(&StoreError) -> bool = |error| matches!(error, StoreError::Duplicate);
    let conflict: fn(&StoreError) -> bool = |error| matches!(error, StoreError::Conflict);
    let stale = TemplateRecord {
        version: 5,
        ..kept(2, 2)
    };
    let cases = [
        // The name's owner has not given it up.
        (
            TemplateChange::Update(renamed(&kept(2, 2), "t1")),
            duplicate,
        ),
        (TemplateChange::Insert(template(2)), duplicate),
        (TemplateChange::Update(stale), conflict),
        (TemplateChange::Remove(template_id(2), 2), conflict),
        (TemplateChange::Remove(template_id(3), 1), conflict),
    ];
    for (failing, expected) in cases {
        let ended = succeeded(&build(1), 2, 5);
        let changes = vec![noted(1, good.clone()), noted(2, failing.clone())];
        let write = with_all(ended, audit(3, "bld", 0), changes.clone());
        let error = store.update_build(write).await.unwrap_err();
        assert!(expected(&error), "{failing:?} gave {error:?}");
        let write = with_all(build(2), audit(3, "bld", 0), changes);
        let error = store.insert_build(write).await.unwrap_err();
        assert!(expected(&error), "{failing:?} gave {error:?}");
    }
    assert_eq!(stored_build(&*store, 1).await, build(1));
    assert_eq!(store.build(build_id(2)).await.unwrap(), None);
    assert_eq!(stored_template(&*store, 1).await, Some(template(1)));
    assert_eq!(stored_template(&*store, 2).await, Some(kept(2, 2)));
    assert_eq!(store.build_steps(build_id(1), 1).await.unwrap(), []);
    assert_eq!(store.audit_of("tpl", 10).await.unwrap(), []);
    assert_eq!(store.audit_of("bld", 10).await.unwrap(), []);
}

/// Where the build's half fails, nothing of its templates' is there.
pub async fn r28_a_build_that_fails_takes_its_templates_writes_along(store: Arc<dyn Store>) {
    insert_template(&*store, template(1)).await;
    insert_build(&*store, build(1)).await;
    let changes = || {
        let hidden = rewritten(&template(1), TemplateState::Deleting);
        vec![
            noted(1, TemplateChange::Update(hidden)),
            noted(2, TemplateChange::Insert(kept(2, 2))),
        ]
    };
    let late = with_all(build(1), audit(3, "bld", 0), changes());
    let result = store.update_build(late.clone()).await;
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    let result = store.insert_build(late).await;
    assert!(matches!(result, Err(StoreError::Duplicate)), "{result:?}");
    assert_eq!(stored_template(&*store, 1).await, Some(template(1)));
    assert_eq!(stored_template(&*store, 2).await, None);
    assert_eq!(store.audit_of("tpl", 10).await.unwrap(), []);
}

/// Eight builds of one name end at once: one of them is published, and the others as if they had
/// not tried.
pub async fn r28_of_eight_builds_of_one_name_each_publishes_whole_or_not_at_all(
    store: Arc<dyn Store>,
) {
    insert_template(&*store, template(100)).await;
    for number in 1..=8 {
        insert_template(&*store, kept(number, number as u8)).await;
        insert_build(&*store, build(number)).await;
    }
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let store = Arc::clone(&store);
            let hidden = rewritten(&template(100), TemplateState::Deleting);
            let published = renamed(&kept(number, number as u8), "t100");
            let changes = vec![
                noted(number, TemplateChange::Update(hidden)),
                change(TemplateChange::Update(published)),
            ];
            let ended = succeeded(&build(number), number, 5);
            let write = with_all(ended, audit(100 + number, "bld", 0), changes);
            tokio::spawn(async move { (number, store.update_build(write).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (number, Ok(())) => winners.push(number),
            (_, Err(error)) => assert!(matches!(error, StoreError::Conflict), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    for number in 1..=8 {
        let (status, state) = if winners == [number] {
            (BuildStatus::Success, TemplateState::Ready)
        } else {
            (BuildStatus::Pending, TemplateState::Layer)
        };
        assert_eq!(stored_build(&*store, number).await.status, status);
        let template = stored_template(&*store, number).await.unwrap();
        assert_eq!(template.state, state, "template {number}");
    }
    assert_eq!(store.audit_of("bld", 10).await.unwrap().len(), 1);
    assert_eq!(store.audit_of("tpl", 10).await.unwrap().len(), 1);
}

/// A layer is found by its key alone, and is in no list that does not ask for all states.
pub async fn r30_a_layer_is_found_by_its_key_and_seen_by_nobody_else(store: Arc<dyn Store>) {
    insert_template(&*store, template(1)).await;
    for (number, key) in [(2, 2), (3, 3), (4, 3)] {
        insert_template(&*store, kept(number, key)).await;
    }
    let ready = TemplateRecord {
        state: TemplateState::Ready,
        ..kept(5, 3)
    };
    insert_template(&*store, ready.clone()).await;
    assert_eq!(stored_template(&*store, 2).await, Some(kept(2, 2)));
    assert_eq!(stored_template(&*store, 5).await, Some(ready));
    let cases: [(Option<LayerKey>, bool, &[u128]); 6] = [
        (None, false, &[1, 5]),
        (None, true, &[1, 2, 3, 4, 5]),
        (Some(layer(2)), true, &[2]),
        (Some(layer(3)), true, &[3, 4, 5]),
        (Some(layer(3)), false, &[5]),
        (Some(layer(9)), true, &[]),
    ];
    for (layer, all_states, expected) in cases {
        let filter = TemplateFilter {
            layer,
            all_states,
            ..TemplateFilter::default()
        };
        let page = store.list_templates(&filter, TemplatePageRequest::default());
        let page = page.await.unwrap();
        let got: Vec<TemplateId> = page.items.iter().map(|record| record.id).collect();
        let expected: Vec<TemplateId> = expected.iter().copied().map(template_id).collect();
        assert_eq!(got, expected, "{filter:?}");
    }
}
