//! What SQLite owes beyond the contract: files that last, several writers and processes, and clear
//! words about files that are not ours.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../kit/builds.rs"]
mod build_kit;
mod builds;
#[path = "../kit/mod.rs"]
mod kit;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use kit::{audit, next, record, sandbox_id, template, template_write, write};
use sandbox_core::{
    id::PLATFORM_TEAM_ID,
    sandbox::{PageRequest, SandboxFilter, SandboxState},
    store::{SandboxWrite, Store, StoreError, TemplateChange},
};
use sandbox_store::{OpenError, SqliteStore};

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.unwrap()
}

async fn count(store: &SqliteStore) -> usize {
    let page = PageRequest {
        after: None,
        limit: PageRequest::LIMIT_MAX,
    };
    let listed = store.list_sandboxes(&SandboxFilter::default(), page).await;
    listed.unwrap().items.len()
}

fn raw(path: &Path, sql: &str) {
    let mut conn = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    conn.batch_execute(sql).unwrap();
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut first = record(1);
    first.idempotency_key = Some("k".to_owned());
    {
        let store = open(&path).await;
        store.insert_sandbox(write(first.clone(), 7)).await.unwrap();
    }
    let store = open(&path).await;
    assert_eq!(store.sandbox(first.id).await.unwrap(), Some(first.clone()));
    let again = store
        .sandbox_by_idempotency_key(PLATFORM_TEAM_ID, "k")
        .await;
    assert_eq!(again.unwrap(), Some(first.clone()));
    let operation = store.last_operation_on(first.id).await.unwrap();
    assert_eq!(operation, Some(kit::operation(7, 1)));
    let entries = store.audit_of(&first.id.to_string(), 10).await.unwrap();
    assert_eq!(entries, vec![audit(7, &first.id.to_string())]);
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "store.db",
            "store.db-ballast",
            "store.db-shm",
            "store.db-wal"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_of_two_stores_on_one_file_never_fail() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let stores = [open(&path).await, open(&path).await];
    let tasks: Vec<_> = (0..8_u128)
        .map(|writer| {
            let store = stores[(writer % 2) as usize].clone();
            tokio::spawn(async move {
                for number in (1 + writer * 100)..(21 + writer * 100) {
                    let first = record(number);
                    store.insert_sandbox(write(first.clone(), number)).await?;
                    let running = next(&first, SandboxState::Running);
                    store
                        .update_sandbox(write(running, number + 10_000))
                        .await?;
                }
                Ok::<(), StoreError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(count(&stores[0]).await, 160);
    assert_eq!(count(&stores[1]).await, 160);
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_files_at_that_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    for number in 1..=50 {
        store
            .insert_sandbox(write(record(number), number))
            .await
            .unwrap();
    }
    // As after a power cut: database and log as they are, nothing closed, no shared memory.
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(
        folder.path().join("store.db-wal"),
        folder.path().join("copy.db-wal"),
    )
    .unwrap();
    let after = open(&copy).await;
    assert_eq!(count(&after).await, 50);
    let last = after.sandbox(sandbox_id(50)).await.unwrap();
    assert_eq!(last, Some(record(50)));
}

#[tokio::test]
async fn a_log_torn_in_its_last_write_loses_that_write_alone_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    for number in 1..=10 {
        store
            .insert_sandbox(write(record(number), number))
            .await
            .unwrap();
    }
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    let log = fs::read(folder.path().join("store.db-wal")).unwrap();
    fs::write(folder.path().join("copy.db-wal"), &log[..log.len() - 100]).unwrap();
    let after = open(&copy).await;
    assert_eq!(after.sandbox(sandbox_id(9)).await.unwrap(), Some(record(9)));
    assert_eq!(after.sandbox(sandbox_id(10)).await.unwrap(), None);
    let entries = after.audit_of(&sandbox_id(10).to_string(), 10).await;
    assert_eq!(entries.unwrap(), Vec::new());
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_happens_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db")).await;
    for number in 1..=100_u128 {
        let write = write(record(number), number);
        let call = store.insert_sandbox(write);
        // Cut off at a different point each time; most of the time in the middle.
        let patience = Duration::from_micros((number as u64 % 20) * 50);
        let _ = tokio::time::timeout(patience, call).await;
    }
    // The writer takes its turns in order: behind this one all of them have ended.
    store.insert_sandbox(write(record(999), 999)).await.unwrap();
    let mut there = 0;
    for number in 1..=100_u128 {
        let record = store.sandbox(sandbox_id(number)).await.unwrap();
        let operation = store.last_operation_on(sandbox_id(number)).await.unwrap();
        let resource = sandbox_id(number).to_string();
        let entries = store.audit_of(&resource, 10).await.unwrap();
        assert_eq!(record.is_some(), operation.is_some(), "sandbox {number}");
        assert_eq!(record.is_some(), entries.len() == 1, "sandbox {number}");
        there += usize::from(record.is_some());
    }
    assert_eq!(count(&store).await, there + 1);
}

/// Not a test of its own: what the other process does in the test below.
#[tokio::test]
#[ignore = "started as a process by another test"]
async fn helper_process_writes_forty_sandboxes() {
    let path = PathBuf::from(std::env::var("STORE_PATH").unwrap());
    let first: u128 = std::env::var("STORE_FIRST").unwrap().parse().unwrap();
    let store = open(&path).await;
    for number in first..first + 40 {
        store
            .insert_sandbox(write(record(number), number))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn four_processes_open_and_write_one_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut processes: Vec<_> = (0..4)
        .map(|process| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "helper_process_writes_forty_sandboxes"])
                .args(["--ignored", "--nocapture"])
                .env("STORE_PATH", &path)
                .env("STORE_FIRST", (1 + process * 1000).to_string())
                .spawn()
                .unwrap()
        })
        .collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(count(&open(&path).await).await, 160);
}

#[tokio::test]
async fn a_locked_database_is_unavailable_and_not_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    let mut other = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let refused = store.insert_sandbox(write(record(1), 1)).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    // Reading goes on beside a writer, and writing when it has ended.
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), None);
    other.batch_execute("ROLLBACK").unwrap();
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
}

#[tokio::test]
async fn a_number_too_large_for_its_column_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db")).await;
    let mut huge = record(1);
    huge.timeout_sec = Some(u64::MAX);
    let refused = store.insert_sandbox(write(huge, 1)).await;
    assert!(
        matches!(&refused, Err(StoreError::Internal(why)) if why.contains("timeout_sec")),
        "{refused:?}"
    );
    assert_eq!(count(&store).await, 0);
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
}

#[tokio::test]
async fn labels_with_quotes_and_escapes_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db")).await;
    let odd = [
        "a\"b",
        "a\\b",
        "$.x",
        "[0]",
        "a.b",
        "line\nbreak",
        "ü",
        "",
        "1",
    ];
    for (number, text) in (1_u128..).zip(odd) {
        let mut record = record(number);
        record.metadata.insert(text.to_owned(), text.to_owned());
        store.insert_sandbox(write(record, number)).await.unwrap();
    }
    for (number, text) in (1_u128..).zip(odd) {
        let mut filter = SandboxFilter::default();
        filter.metadata.insert(text.to_owned(), text.to_owned());
        let page = store.list_sandboxes(&filter, PageRequest::default()).await;
        let found: Vec<_> = page.unwrap().items.iter().map(|found| found.id).collect();
        assert_eq!(found, [sandbox_id(number)], "label {text:?}");
    }
}

#[tokio::test]
async fn a_stored_value_that_can_not_be_read_names_its_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    raw(&path, "UPDATE sandboxes SET state = 'molten'");
    let refused = store.sandbox(sandbox_id(1)).await;
    assert!(
        matches!(&refused, Err(StoreError::Internal(why)) if why.contains("`state` holds `molten`")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let text = "These are my notes.\n".repeat(300);
    fs::write(&path, &text).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
    assert!(error.to_string().contains("store.db"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    raw(&path, "CREATE TABLE songs (title TEXT)");
    let before = fs::read(&path).unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(open(&path).await);
    raw(
        &path,
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')",
    );
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::Newer { version, .. } if version == "29991231000000"),
        "{error:?}"
    );
    assert!(error.to_string().contains("update this program"));
}

#[tokio::test]
async fn r2_an_early_programs_schema_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    drop(store);
    let set_version =
        |version| format!("UPDATE __diesel_schema_migrations SET version = '{version}'");
    raw(&path, &set_version("20251123000000"));
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::Outdated { version, .. } if version == "20251123000000"),
        "{error:?}"
    );
    assert!(error.to_string().contains("move it away"), "{error}");
    raw(&path, &set_version("20261123000000"));
    assert_eq!(count(&open(&path).await).await, 1);
}

#[tokio::test]
async fn a_template_that_is_too_large_for_its_columns_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store.db")).await;
    let mut huge = template(1);
    huge.memory_bytes = u64::MAX;
    let with = |template| SandboxWrite {
        template: Some(template_write(TemplateChange::Insert(template))),
        ..write(record(1), 1)
    };
    let refused = store.insert_sandbox(with(huge)).await;
    assert!(
        matches!(&refused, Err(StoreError::Internal(why)) if why.contains("memory_bytes")),
        "{refused:?}"
    );
    assert_eq!(count(&store).await, 0);
    store.insert_sandbox(with(template(1))).await.unwrap();
    let made = store.template(template(1).id).await.unwrap();
    assert_eq!(made, Some(template(1)));
}

#[tokio::test]
async fn a_missing_folder_and_a_folder_in_its_place_are_clear_errors() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        folder.path().join("none/store.db"),
        folder.path().to_owned(),
    ] {
        let error = SqliteStore::open(&path).await.unwrap_err();
        assert!(matches!(error, OpenError::File { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn odd_file_names_are_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in [":memory:", "file:x?mode=memory", "a b%20ü.db"] {
        let path = folder.path().join(name);
        let store = open(&path).await;
        store.insert_sandbox(write(record(1), 1)).await.unwrap();
        drop(store);
        assert!(path.metadata().unwrap().len() > 0, "{name}");
        let shared: Arc<dyn Store> = Arc::new(open(&path).await);
        assert!(shared.sandbox(sandbox_id(1)).await.unwrap().is_some());
    }
}
