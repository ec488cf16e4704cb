//! Filters and pages.

use std::{collections::BTreeMap, sync::Arc};

use super::fixtures::*;
use crate::{
    id::SandboxId,
    sandbox::{PageRequest, SandboxFilter, SandboxState},
    store::Store,
};

/// Counts are by state, and of all sandboxes, however many pages they fill.
pub async fn sandboxes_are_counted_by_state(store: Arc<dyn Store>) {
    assert_eq!(store.count_sandboxes().await.unwrap(), []);
    for number in 1..=1003u128 {
        let mut record = record(number);
        if number <= 3 {
            record.state = SandboxState::Running;
        }
        insert(&*store, record).await;
    }
    let mut counts = store.count_sandboxes().await.unwrap();
    counts.sort_by_key(|(_, count)| *count);
    let expected = [(SandboxState::Running, 3), (SandboxState::Pending, 1000)];
    assert_eq!(counts, expected);
}

/// Filters are conjunctions; labels match whole, case and all.
pub async fn lists_filter_by_state_template_and_metadata(store: Arc<dyn Store>) {
    for number in 1..=12u128 {
        let mut record = record(number);
        if number % 2 == 0 {
            record.state = SandboxState::Running;
        }
        if number % 3 == 0 {
            record.template = "other".parse().unwrap();
        }
        record
            .metadata
            .insert("n".to_owned(), (number % 4).to_string());
        if number > 6 {
            record.metadata.insert("große".to_owned(), "ü%'".to_owned());
        }
        insert(&*store, record).await;
    }
    let running = Some(SandboxState::Running);
    let other = Some("other".parse().unwrap());
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let cases: Vec<(SandboxFilter, Vec<u128>)> = vec![
        (SandboxFilter::default(), (1..=12).collect()),
        (
            SandboxFilter {
                state: running,
                ..Default::default()
            },
            vec![2, 4, 6, 8, 10, 12],
        ),
        (
            SandboxFilter {
                template: other.clone(),
                ..Default::default()
            },
            vec![3, 6, 9, 12],
        ),
        (
            SandboxFilter {
                metadata: BTreeMap::from([label("n", "2")]),
                ..Default::default()
            },
            vec![2, 6, 10],
        ),
        (
            SandboxFilter {
                metadata: BTreeMap::from([label("n", "2"), label("große", "ü%'")]),
                ..Default::default()
            },
            vec![10],
        ),
        (
            SandboxFilter {
                metadata: BTreeMap::from([label("N", "2")]),
                ..Default::default()
            },
            vec![],
        ),
        (
            SandboxFilter {
                state: running,
                template: other,
                metadata: BTreeMap::from([label("n", "0")]),
                ..Default::default()
            },
            vec![12],
        ),
    ];
    for (filter, expected) in cases {
        for limit in [1, 2, 5, 1000] {
            let got: Vec<u128> = listed(&*store, &filter, limit)
                .await
                .concat()
                .iter()
                .map(|id| id.uuid().as_u128())
                .collect();
            assert_eq!(got, expected, "{filter:?} in pages of {limit}");
        }
    }
}

/// Filters by ID: one team's sandboxes, and those that lie on one template.
pub async fn r23_lists_filter_by_team_and_template_id(store: Arc<dyn Store>) {
    for number in 1..=12u128 {
        let mut record = record(number);
        record.team_id = team(number % 2);
        record.template_id = template_id(number % 3);
        if number > 6 {
            record.state = SandboxState::Running;
        }
        insert(&*store, record).await;
    }
    let (one, running) = (Some(team(1)), Some(SandboxState::Running));
    let cases: Vec<(SandboxFilter, Vec<u128>)> = vec![
        (
            SandboxFilter {
                team_id: one,
                ..Default::default()
            },
            vec![1, 3, 5, 7, 9, 11],
        ),
        (
            SandboxFilter {
                template_id: Some(template_id(0)),
                ..Default::default()
            },
            vec![3, 6, 9, 12],
        ),
        (
            SandboxFilter {
                team_id: one,
                template_id: Some(template_id(0)),
                ..Default::default()
            },
            vec![3, 9],
        ),
        (
            SandboxFilter {
                team_id: one,
                template_id: Some(template_id(0)),
                state: running,
                ..Default::default()
            },
            vec![9],
        ),
        (
            SandboxFilter {
                team_id: Some(team(9)),
                ..Default::default()
            },
            vec![],
        ),
        (
            SandboxFilter {
                template_id: Some(template_id(9)),
                ..Default::default()
            },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        for limit in [1, 2, 1000] {
            let pages = listed(&*store, &filter, limit).await;
            let expected: Vec<SandboxId> = expected.iter().map(|n| sandbox_id(*n)).collect();
            assert_eq!(pages.concat(), expected, "{filter:?} in pages of {limit}");
        }
    }
}

/// Pages of every size make up the whole, in order, and the last page says so.
pub async fn pages_have_no_gaps_and_no_doubles(store: Arc<dyn Store>) {
    // IDs whose order differs between bytes, text and signed numbers.
    let numbers = [1, 2, 9, 10, 255, 256, 1 << 64, (1 << 127) + 1, u128::MAX];
    for number in numbers.iter().rev() {
        insert(&*store, record(*number)).await;
    }
    let expected: Vec<SandboxId> = numbers.iter().map(|number| sandbox_id(*number)).collect();
    for limit in 1..=10 {
        let pages = listed(&*store, &SandboxFilter::default(), limit).await;
        assert_eq!(pages.concat(), expected, "in pages of {limit}");
        assert!(pages.iter().all(|page| !page.is_empty()));
    }
    let none = SandboxFilter {
        state: Some(SandboxState::Missing),
        ..Default::default()
    };
    assert_eq!(
        listed(&*store, &none, 5).await,
        vec![Vec::<SandboxId>::new()]
    );
}

/// A cursor stays good when the record that it names is gone.
pub async fn a_page_survives_removals_and_inserts_between(store: Arc<dyn Store>) {
    for number in [10, 20, 30, 40] {
        insert(&*store, record(number)).await;
    }
    let first = PageRequest {
        after: None,
        limit: 2,
    };
    let page = store
        .list_sandboxes(&SandboxFilter::default(), first)
        .await
        .unwrap();
    assert_eq!(page.next, Some(sandbox_id(20)));
    store
        .remove_sandbox(sandbox_id(20), 1, None, audit(1, "sb", 0))
        .await
        .unwrap();
    insert(&*store, record(15)).await;
    insert(&*store, record(25)).await;
    let second = PageRequest {
        after: page.next,
        limit: 10,
    };
    let page = store
        .list_sandboxes(&SandboxFilter::default(), second)
        .await
        .unwrap();
    let got: Vec<SandboxId> = page.items.iter().map(|record| record.id).collect();
    assert_eq!(got, [25, 30, 40].map(sandbox_id));
    assert_eq!(page.next, None);
}
