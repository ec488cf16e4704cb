//! Templates: what is written is what is read, and lists.

use std::sync::Arc;

use uuid::Uuid;

use super::fixtures::*;
use crate::{
    clock::Timestamp,
    id::{HostId, OperationId, TemplateId},
    operation::{Operation, OperationKind},
    size::MachineSize,
    store::{Store, TemplateChange},
    template::{TemplateFilter, TemplateKind, TemplatePageRequest, TemplateRecord, TemplateState},
};

/// A record with every field set to something that is not its default.
fn full(number: u128) -> TemplateRecord {
    let mut full = template(number);
    full.team_id = team(u128::MAX - number);
    full.name = format!("0.{}_-{number}", "x".repeat(50)).parse().unwrap();
    full.kind = TemplateKind::Snapshot;
    full.state = TemplateState::Making;
    full.operation = Some(Operation {
        id: OperationId::from_uuid(Uuid::from_u128(number + 1000)),
        kind: OperationKind::Import,
        started_at: at(3),
        lease_until: at(33),
    });
    full.size = MachineSize {
        vcpus: 64,
        memory_mb: 1024 * 1024,
        disk_size_mb: 4 * 1024 * 1024,
    };
    full.disk_bytes = (1 << 42) + 1;
    full.memory_bytes = i64::MAX as u64;
    full.origin = Some(sandbox_id(number));
    full.host_id = Some(HostId::from_uuid(Uuid::from_u128(u128::MAX)));
    full.created_at = Timestamp::from_timestamp_micros(999_999).unwrap();
    full.updated_at = Timestamp::from_timestamp_micros(4_102_444_800_000_001).unwrap();
    full
}

async fn names(store: &dyn Store, filter: &TemplateFilter, limit: u32) -> Vec<Vec<TemplateId>> {
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let request = TemplatePageRequest { after, limit };
        let page = store.list_templates(filter, request).await.unwrap();
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

/// What was written is what is read, field by field; an update can also take a value away.
pub async fn an_inserted_template_comes_back_equal(store: Arc<dyn Store>) {
    let full = full(1);
    assert_eq!(store.template(full.id).await.unwrap(), None);
    insert_template(&*store, full.clone()).await;
    assert_eq!(store.template(full.id).await.unwrap(), Some(full.clone()));
    let mut bare = rewritten(&full, TemplateState::Ready);
    bare.operation = None;
    bare.origin = None;
    bare.host_id = None;
    bare.disk_bytes = 0;
    bare.memory_bytes = 0;
    let update = change(TemplateChange::Update(bare.clone()));
    store.write_template(update).await.unwrap();
    assert_eq!(store.template(bare.id).await.unwrap(), Some(bare.clone()));
    // A sandbox of the same UUID is something else.
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), None);
    let remove = change(TemplateChange::Remove(bare.id, bare.version));
    store.write_template(remove).await.unwrap();
    assert_eq!(store.template(bare.id).await.unwrap(), None);
}

/// Each kind in each state, and lists that tell of each what reading it alone tells.
pub async fn every_kind_and_state_of_template_comes_back_equal(store: Arc<dyn Store>) {
    let mut all = Vec::new();
    for (number, (kind, state)) in (1..).zip(
        TemplateKind::ALL
            .into_iter()
            .flat_map(|kind| TemplateState::ALL.map(|state| (kind, state))),
    ) {
        let mut record = full(number);
        (record.kind, record.state) = (kind, state);
        insert_template(&*store, record.clone()).await;
        let read = store.template(record.id).await.unwrap();
        assert_eq!(read, Some(record.clone()));
        all.push(record);
    }
    let filter = TemplateFilter {
        all_states: true,
        ..TemplateFilter::default()
    };
    let request = TemplatePageRequest {
        after: None,
        limit: 100,
    };
    let page = store.list_templates(&filter, request).await.unwrap();
    assert_eq!(page.items, all);
    assert_eq!(page.next, None);
}

/// Filters are conjunctions. What is not ready is seen only by who asks for it.
pub async fn r23_lists_of_templates_filter_by_kind_name_team_and_state(store: Arc<dyn Store>) {
    for number in 1..=12u128 {
        let mut record = template(number);
        record.team_id = team(number % 3);
        if number % 2 == 0 {
            record.kind = TemplateKind::Snapshot;
        }
        record.state = match number {
            11 => TemplateState::Making,
            12 => TemplateState::Deleting,
            _ => TemplateState::Ready,
        };
        // One name that every team has, and that team 0 has had before.
        if (7..=9).contains(&number) || number == 12 {
            record.name = "shared".parse().unwrap();
        }
        insert_template(&*store, record).await;
    }
    let none = TemplateFilter::default;
    let all = || TemplateFilter {
        all_states: true,
        ..none()
    };
    let shared = || Some("shared".parse().unwrap());
    let teams = |numbers: &[u128]| Some(numbers.iter().map(|number| team(*number)).collect());
    let cases: Vec<(TemplateFilter, Vec<u128>)> = vec![
        (none(), (1..=10).collect()),
        (all(), (1..=12).collect()),
        (
            TemplateFilter {
                kind: Some(TemplateKind::Snapshot),
                ..none()
            },
            vec![2, 4, 6, 8, 10],
        ),
        (
            TemplateFilter {
                kind: Some(TemplateKind::Image),
                ..all()
            },
            vec![1, 3, 5, 7, 9, 11],
        ),
        (
            TemplateFilter {
                name: shared(),
                ..none()
            },
            vec![7, 8, 9],
        ),
        (
            TemplateFilter {
                name: shared(),
                ..all()
            },
            vec![7, 8, 9, 12],
        ),
        (
            TemplateFilter {
                teams: teams(&[1]),
                ..none()
            },
            vec![1, 4, 7, 10],
        ),
        (
            TemplateFilter {
                teams: teams(&[0, 1]),
                ..none()
            },
            vec![1, 3, 4, 6, 7, 9, 10],
        ),
        (
            TemplateFilter {
                teams: teams(&[2, 2, 9]),
                ..all()
            },
            vec![2, 5, 8, 11],
        ),
        (
            TemplateFilter {
                teams: teams(&[]),
                ..all()
            },
            vec![],
        ),
        (
            TemplateFilter {
                name: shared(),
                teams: teams(&[0, 2]),
                ..none()
            },
            vec![8, 9],
        ),
        (
            TemplateFilter {
                kind: Some(TemplateKind::Snapshot),
                name: shared(),
                teams: teams(&[0, 2]),
                all_states: true,
                layer: None,
            },
            vec![8, 12],
        ),
    ];
    for (filter, expected) in cases {
        let expected: Vec<TemplateId> = expected.iter().map(|n| template_id(*n)).collect();
        for limit in [1, 2, 5, 1000] {
            let got = names(&*store, &filter, limit).await.concat();
            assert_eq!(got, expected, "{filter:?} in pages of {limit}");
        }
    }
}

/// Pages of every size make up the whole, in order; a cursor stays good when its record is gone.
pub async fn pages_of_templates_have_no_gaps_and_no_doubles(store: Arc<dyn Store>) {
    // IDs whose order differs between bytes, text and signed numbers.
    let numbers = [1, 2, 9, 10, 255, 256, 1 << 64, (1 << 127) + 1, u128::MAX];
    for number in numbers.iter().rev() {
        insert_template(&*store, template(*number)).await;
    }
    let filter = TemplateFilter::default();
    let expected: Vec<TemplateId> = numbers.iter().map(|n| template_id(*n)).collect();
    for limit in 1..=10 {
        let pages = names(&*store, &filter, limit).await;
        assert_eq!(pages.concat(), expected, "in pages of {limit}");
        assert!(pages.iter().all(|page| !page.is_empty()));
    }
    let remove = change(TemplateChange::Remove(template_id(9), 1));
    store.write_template(remove).await.unwrap();
    let request = TemplatePageRequest {
        after: Some(template_id(9)),
        limit: 2,
    };
    let page = store.list_templates(&filter, request).await.unwrap();
    let got: Vec<TemplateId> = page.items.iter().map(|record| record.id).collect();
    assert_eq!(got, [10, 255].map(template_id));
    assert_eq!(page.next, Some(template_id(255)));
}
