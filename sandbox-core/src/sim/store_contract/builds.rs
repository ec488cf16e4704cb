//! Records of template builds: what comes back, compare-and-set, lists.

use std::sync::Arc;

use super::{build_fixtures::*, fixtures::*};
use crate::{
    audit::Actor,
    build::{
        BuildFailure, BuildFilter, BuildPageRequest, BuildRecord, BuildStatus, Healthcheck, Recipe,
        Step,
    },
    id::BuildId,
    sandbox::{SandboxFilter, SandboxState},
    size::MachineSize,
    store::{BuildWrite, Store, StoreError},
};

/// A record with something in every field.
fn full(number: u128) -> BuildRecord {
    let odd = "printf 'ü\t\"%s\\n\"' \"$HOME\" \\\n && :".to_owned();
    let steps = vec![
        Step::Env {
            vars: vec![
                ("B".to_owned(), "2".to_owned()),
                ("A".to_owned(), " ü=1".to_owned()),
                ("B".to_owned(), String::new()),
            ],
        },
        Step::Workdir {
            path: "/srv/a b".to_owned(),
        },
        Step::User {
            name: "1000:1000".to_owned(),
        },
        Step::Copy {
            sources: vec!["src/*.rs".to_owned(), "ä".to_owned()],
            dest: "/srv/".to_owned(),
            mode: Some(0o755),
            owner: Some(":users".to_owned()),
        },
        Step::Run {
            command: odd.clone(),
            timeout_sec: Some(u32::MAX),
        },
        Step::Start { command: odd },
    ];
    BuildRecord {
        recipe: Recipe { steps },
        team_id: team(7),
        base_id: template_id(u128::MAX),
        context: Some("c".repeat(64)),
        healthcheck: Some(Healthcheck {
            cmd: "curl -f 'http://localhost/'".to_owned(),
            interval_sec: 1,
            timeout_sec: 2,
            start_period_sec: 3,
            retries: 4,
        }),
        size: MachineSize {
            vcpus: 4,
            memory_mb: 8192,
            disk_size_mb: 20_480,
        },
        no_cache: true,
        status: BuildStatus::Failed,
        current_step: u32::MAX - 1,
        total_steps: u32::MAX,
        attempt: u32::MAX,
        handed_back: 3,
        lease_until: Some(at(1)),
        sandbox_id: Some(sandbox_id(5)),
        template_id: Some(template_id(6)),
        failure: Some(BuildFailure {
            message: "step 2 „ü“\nfailed".to_owned(),
            step: Some(2),
            error_id: Some("e1".to_owned()),
        }),
        actor: Actor::api_key("ci"),
        idempotency_key: Some("key ü'".to_owned()),
        created_at: at(2),
        started_at: Some(at(3)),
        finished_at: Some(at(4)),
        updated_at: at(5),
        ..build(number)
    }
}

/// Every field, with something in it and without; there are no others.
pub async fn r28_an_inserted_build_comes_back_equal(store: Arc<dyn Store>) {
    assert_eq!(store.build(build_id(1)).await.unwrap(), None);
    for record in [build(1), full(2), full(u128::MAX)] {
        let mut record = record;
        record.idempotency_key = record
            .idempotency_key
            .map(|key| format!("{key}{}", record.id));
        insert_build(&*store, record.clone()).await;
        let read = store.build(record.id).await.unwrap();
        assert_eq!(read, Some(record));
    }
}

/// Every status; and what an update leaves out is gone.
pub async fn r28_an_updated_build_comes_back_equal(store: Arc<dyn Store>) {
    let mut current = full(1);
    insert_build(&*store, current.clone()).await;
    for status in BuildStatus::ALL {
        current = advanced(&current, status);
        store
            .update_build(build_write(current.clone()))
            .await
            .unwrap();
        assert_eq!(stored_build(&*store, 1).await, current);
    }
    let bare = BuildRecord {
        version: current.version + 1,
        ..build(1)
    };
    store.update_build(build_write(bare.clone())).await.unwrap();
    assert_eq!(stored_build(&*store, 1).await, bare);
}

/// Neither record nor steps nor audit entry is written at another version, or of one that is not
/// there.
pub async fn a_build_is_written_at_its_version_only(store: Arc<dyn Store>) {
    insert_build(&*store, build(1)).await;
    let current = advanced(&build(1), BuildStatus::Running);
    let first = build_write(current.clone());
    store.update_build(first.clone()).await.unwrap();
    let mut refused: Vec<BuildRecord> = [0, 1, 2, 4, u64::from(u32::MAX)]
        .map(|version| BuildRecord {
            version,
            ..advanced(&current, BuildStatus::Cancelled)
        })
        .into();
    refused.push(advanced(&build(2), BuildStatus::Running));
    for record in refused {
        let version = record.version;
        let write = with_all(record, audit(9, "bld", 0), Vec::new());
        let result = store.update_build(write).await;
        let conflict = matches!(result, Err(StoreError::Conflict));
        assert!(conflict, "version {version} gave {result:?}");
    }
    assert_eq!(stored_build(&*store, 1).await, current);
    assert_eq!(store.build(build_id(2)).await.unwrap(), None);
    assert_eq!(store.build_steps(build_id(1), 1).await.unwrap(), []);
    assert_eq!(store.audit_of("bld", 10).await.unwrap(), []);
}

/// Eight workers claim one build at once.
pub async fn r29_of_eight_workers_one_claims_a_build(store: Arc<dyn Store>) {
    insert_build(&*store, build(1)).await;
    let tasks: Vec<_> = (1..=8)
        .map(|worker| {
            let store = Arc::clone(&store);
            let claimed = BuildRecord {
                sandbox_id: Some(sandbox_id(worker)),
                ..advanced(&build(1), BuildStatus::Running)
            };
            let write = with_all(claimed, audit(worker, "bld", 0), Vec::new());
            tokio::spawn(async move { (worker, store.update_build(write).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        let (worker, result) = task.await.unwrap();
        match result {
            Ok(()) => winners.push(sandbox_id(worker)),
            Err(error) => assert!(matches!(error, StoreError::Conflict), "{error}"),
        }
    }
    let read = stored_build(&*store, 1).await;
    assert_eq!(winners, [read.sandbox_id.unwrap()]);
    assert_eq!(store.audit_of("bld", 10).await.unwrap().len(), 1);
}

/// One key, one build; teams do not share keys. An ID is taken once.
pub async fn r28_a_builds_idempotency_key_is_taken_once_per_team(store: Arc<dyn Store>) {
    let keyed = |number, owner| BuildRecord {
        team_id: team(owner),
        idempotency_key: Some("k".to_owned()),
        ..build(number)
    };
    insert_build(&*store, keyed(1, 0)).await;
    insert_build(&*store, keyed(2, 1)).await;
    insert_build(&*store, build(3)).await;
    insert_build(&*store, build(4)).await;
    for refused in [keyed(5, 0), build(3)] {
        let write = with_all(refused, audit(9, "bld", 0), Vec::new());
        let result = store.insert_build(write).await;
        assert!(matches!(result, Err(StoreError::Duplicate)), "{result:?}");
    }
    assert_eq!(store.build(build_id(5)).await.unwrap(), None);
    assert_eq!(store.build_steps(build_id(3), 1).await.unwrap(), []);
    assert_eq!(store.audit_of("bld", 10).await.unwrap(), []);
    for (owner, expected) in [(0, Some(1)), (1, Some(2)), (2, None)] {
        let found = store.build_by_idempotency_key(team(owner), "k").await;
        let found = found.unwrap().map(|record| record.id);
        assert_eq!(found, expected.map(build_id));
    }
    let other = store.build_by_idempotency_key(team(0), "K").await.unwrap();
    assert_eq!(other, None);
}

/// Of eight requests with one key, one makes a build.
pub async fn r28_eight_requests_of_one_key_make_one_build(store: Arc<dyn Store>) {
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let store = Arc::clone(&store);
            let mut record = build(number);
            record.idempotency_key = Some("k".to_owned());
            tokio::spawn(async move { store.insert_build(build_write(record)).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => made += 1,
            Err(error) => assert!(matches!(error, StoreError::Duplicate), "{error}"),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(all(&*store, &BuildFilter::default(), 3).await.len(), 1);
}

/// All that a list has, in pages of this size.
async fn all(store: &dyn Store, filter: &BuildFilter, limit: u32) -> Vec<BuildId> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let request = BuildPageRequest { after, limit };
        let page = store.list_builds(filter, request).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        assert!(page.items.iter().all(|record| filter.matches(record)));
        ids.extend(page.items.iter().map(|record| record.id));
        after = page.next;
        match after {
            None => return ids,
            Some(next) => assert_eq!(ids.last(), Some(&next), "a page ends where it says"),
        }
    }
}

/// Filters are conjunctions, and lists go both ways, in pages of any size.
pub async fn r29_lists_of_builds_filter_and_go_both_ways(store: Arc<dyn Store>) {
    // IDs whose order differs between bytes, text and signed numbers.
    let numbers = [1, 2, 9, 10, 255, 256, 1 << 64, (1 << 127) + 1, u128::MAX];
    for (place, number) in numbers.iter().enumerate().rev() {
        let record = BuildRecord {
            status: BuildStatus::ALL[place % 5],
            name: if place % 2 == 0 { "even" } else { "odd" }.parse().unwrap(),
            team_id: team(place as u128 % 3),
            ..build(*number)
        };
        insert_build(&*store, record).await;
    }
    let none = BuildFilter::default;
    let name = |name: &str| Some(name.parse().unwrap());
    let (pending, running) = (BuildStatus::Pending, BuildStatus::Running);
    let with_statuses = |statuses: &[BuildStatus]| BuildFilter {
        statuses: statuses.to_vec(),
        ..none()
    };
    let even = BuildFilter {
        name: name("even"),
        ..none()
    };
    let second = BuildFilter {
        team_id: Some(team(1)),
        ..none()
    };
    let narrow = BuildFilter {
        statuses: vec![running, BuildStatus::Cancelled],
        name: name("even"),
        team_id: Some(team(1)),
        ..none()
    };
    let cases: [(BuildFilter, &[usize]); 8] = [
        (none(), &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (with_statuses(&[pending]), &[0, 5]),
        (with_statuses(&[running, pending]), &[0, 1, 5, 6]),
        (
            with_statuses(&BuildStatus::ALL),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        (even, &[0, 2, 4, 6, 8]),
        (second, &[1, 4, 7]),
        (narrow, &[4]),
        (
            BuildFilter {
                name: name("none"),
                ..none()
            },
            &[],
        ),
    ];
    for (filter, places) in cases {
        let mut expected: Vec<BuildId> = places.iter().map(|at| build_id(numbers[*at])).collect();
        for newest_first in [false, true] {
            let filter = BuildFilter {
                newest_first,
                ..filter.clone()
            };
            for limit in [1, 2, 5, 9, 1000] {
                let got = all(&*store, &filter, limit).await;
                assert_eq!(got, expected, "{filter:?} in pages of {limit}");
            }
            expected.reverse();
        }
    }
}

/// A build's sandbox is there, and in no list and no count that does not ask for it.
pub async fn r28_a_builds_sandbox_is_in_no_list_unless_asked_for(store: Arc<dyn Store>) {
    for number in 1..=5 {
        let mut sandbox = record(number);
        sandbox.state = SandboxState::Running;
        sandbox.build_id = (number % 2 == 0).then(|| build_id(number));
        insert(&*store, sandbox.clone()).await;
        assert_eq!(stored(&*store, number).await, sandbox);
    }
    let ids = |numbers: &[u128]| numbers.iter().copied().map(sandbox_id).collect::<Vec<_>>();
    let filter = SandboxFilter::default();
    let of_builds = SandboxFilter {
        of_builds: true,
        ..SandboxFilter::default()
    };
    for limit in [1, 2, 10] {
        let own = listed(&*store, &filter, limit).await.concat();
        assert_eq!(own, ids(&[1, 3, 5]), "in pages of {limit}");
        let every = listed(&*store, &of_builds, limit).await.concat();
        assert_eq!(every, ids(&[1, 2, 3, 4, 5]), "in pages of {limit}");
    }
    let counts = store.count_sandboxes().await.unwrap();
    assert_eq!(counts, [(SandboxState::Running, 3)]);
    // An update keeps it, and can take it away.
    let mut freed = bumped(&stored(&*store, 2).await, SandboxState::Running);
    freed.build_id = None;
    store.update_sandbox(write(freed.clone())).await.unwrap();
    assert_eq!(stored(&*store, 2).await, freed);
}

/// Steps are an attempt's own, in order, and replaced by their number.
pub async fn r30_steps_are_replaced_by_their_number_and_apart_by_attempt(store: Arc<dyn Store>) {
    use crate::build::BuildPhase;
    let mut record = build(1);
    insert_build(&*store, record.clone()).await;
    insert_build(&*store, build(2)).await;
    let mut ended = step(&record, 1, 2);
    ended.phase = BuildPhase::Post;
    ended.cmd = "ü\n'\"".to_owned();
    ended.exit_code = Some(-1);
    ended.ok = Some(false);
    ended.elapsed_ms = 1 << 40;
    ended.cached = true;
    ended.dropped_bytes = 1 << 41;
    let mut early = step(&record, 1, 1);
    early.phase = BuildPhase::Pre;
    let writes = [
        vec![step(&record, 1, 10), step(&record, 1, 2), early.clone()],
        vec![ended.clone(), step(&record, 2, 1)],
    ];
    for steps in writes {
        record = advanced(&record, BuildStatus::Running);
        let write = BuildWrite {
            steps,
            ..build_write(record.clone())
        };
        store.update_build(write).await.unwrap();
    }
    let first = store.build_steps(record.id, 1).await.unwrap();
    assert_eq!(first, [early, ended.clone(), step(&record, 1, 10)]);
    let second = store.build_steps(record.id, 2).await.unwrap();
    assert_eq!(second, [step(&record, 2, 1)]);
    assert_eq!(store.build_steps(record.id, 3).await.unwrap(), []);
    assert_eq!(store.build_steps(build_id(2), 1).await.unwrap(), []);
    // What is not known any more is gone again.
    let write = BuildWrite {
        steps: vec![step(&record, 1, 2)],
        ..build_write(advanced(&record, BuildStatus::Running))
    };
    store.update_build(write).await.unwrap();
    let again = store.build_steps(record.id, 1).await.unwrap();
    assert_eq!(again[1], step(&record, 1, 2));
}
