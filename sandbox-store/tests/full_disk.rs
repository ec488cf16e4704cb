//! R22, trap 39: on a full disk what exists stays manageable. On a real, small file system.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say why they are skipped"
)]

#[path = "kit/builds.rs"]
mod build_kit;
mod kit;
#[expect(dead_code, reason = "not every test target uses all of it")]
mod small_disk;

use std::path::{Path, PathBuf};

use build_kit::{build, build_write, noise, piece};
use bytes::Bytes;
use kit::{audit, next, record, sandbox_id, template, template_write, write};
use sandbox_core::{
    build::{BuildStatus, LogCursor},
    sandbox::{SandboxRecord, SandboxState},
    store::{
        BuildStore, BuildWrite, SandboxWrite, Store, StoreError, TemplateChange, TemplateWrite,
    },
    template::TemplateState,
};
use sandbox_store::{OpenError, SqliteStore};
use small_disk::{MIB, SmallDisk};

/// Where a test's database is.
fn database(disk: &SmallDisk) -> PathBuf {
    disk.at.join("store.db")
}

fn on_small_disk(test: impl AsyncFnOnce(&SmallDisk)) {
    small_disk::on_small_disk(48, test);
}

async fn insert_some(store: &SqliteStore, count: u128) -> Vec<SandboxRecord> {
    let mut records = Vec::new();
    for number in 1..=count {
        store
            .insert_sandbox(write(record(number), number))
            .await
            .unwrap();
        records.push(record(number));
    }
    records
}

async fn insert_until_full(store: &SqliteStore, from: u128) -> u128 {
    for number in from.. {
        match store.insert_sandbox(write(record(number), number)).await {
            // Room within what SQLite has allocated already.
            Ok(()) => {}
            Err(StoreError::Full(_)) => return number,
            Err(error) => panic!("{error:?}"),
        }
        assert!(number < from + 100_000, "the disk never got full");
    }
    unreachable!()
}

fn ballast_len(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-ballast");
    Path::new(&name).metadata().unwrap().len()
}

#[test]
fn trap_39_on_a_full_disk_sandboxes_can_be_updated_and_removed_but_not_added() {
    on_small_disk(async |disk| {
        let path = database(disk);
        let store = SqliteStore::open(&path).await.unwrap();
        let records = insert_some(&store, 20).await;
        disk.fill();

        let refused = insert_until_full(&store, 1000).await;
        assert_eq!(ballast_len(&path), 8 * MIB, "an insert spent the ballast");
        assert_eq!(store.sandbox(sandbox_id(refused)).await.unwrap(), None);

        for (number, record) in (1_u128..).zip(&records) {
            let stopped = next(record, SandboxState::Stopped);
            store
                .update_sandbox(write(stopped.clone(), 200_000 + number))
                .await
                .unwrap();
            assert_eq!(store.sandbox(record.id).await.unwrap(), Some(stopped));
        }
        assert!(ballast_len(&path) < 8 * MIB, "nothing needed the ballast");
        let full = store.insert_sandbox(write(record(refused), 300_000)).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        for (number, record) in (1_u128..).zip(&records) {
            let entry = audit(400_000 + number, &record.id.to_string());
            store
                .remove_sandbox(record.id, 2, None, entry)
                .await
                .unwrap();
            assert_eq!(store.sandbox(record.id).await.unwrap(), None);
        }
        let conflict = store
            .remove_sandbox(sandbox_id(1), 2, None, audit(500_000, "sb"))
            .await;
        assert!(
            matches!(conflict, Err(StoreError::Conflict)),
            "{conflict:?}"
        );

        // Room again: the ballast is made whole first, and everything works.
        disk.free();
        store
            .insert_sandbox(write(record(refused), 600_000))
            .await
            .unwrap();
        assert_eq!(ballast_len(&path), 8 * MIB);
    });
}

#[test]
fn r22_thousands_of_updates_go_through_on_a_full_disk_even_when_others_take_what_is_freed() {
    on_small_disk(async |disk| {
        let store = SqliteStore::open(database(disk)).await.unwrap();
        let mut current = insert_some(&store, 1).await.remove(0);
        disk.fill();
        for number in 1..=2000_u128 {
            current = next(&current, SandboxState::Running);
            current.reason = format!("update {number}");
            let update = SandboxWrite {
                template: None,
                record: current.clone(),
                operations: Vec::new(),
                audit: None,
            };
            store.update_sandbox(update).await.unwrap();
            if number % 500 == 0 {
                disk.fill();
            }
        }
        assert_eq!(store.sandbox(current.id).await.unwrap(), Some(current));
    });
}

#[test]
fn r22_a_store_opens_on_a_full_disk_with_all_it_holds() {
    on_small_disk(async |disk| {
        let path = database(disk);
        let records = {
            let store = SqliteStore::open(&path).await.unwrap();
            insert_some(&store, 5).await
        };
        disk.fill();
        let store = SqliteStore::open(&path).await.unwrap();
        for record in &records {
            let found = store.sandbox(record.id).await.unwrap();
            assert_eq!(found.as_ref(), Some(record));
            let entry = audit(1000 + record.id.uuid().as_u128(), "sb");
            store
                .remove_sandbox(record.id, 1, None, entry)
                .await
                .unwrap();
        }
        let full = store.insert_sandbox(write(record(9), 9)).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    });
}

#[test]
fn a_new_database_on_a_full_disk_says_so_and_opens_once_there_is_room() {
    on_small_disk(async |disk| {
        disk.fill();
        let error = SqliteStore::open(database(disk)).await.unwrap_err();
        assert!(matches!(error, OpenError::Full { .. }), "{error:?}");
        disk.free();
        let store = SqliteStore::open(database(disk)).await.unwrap();
        insert_some(&store, 1).await;
    });
}

#[test]
fn a_read_only_folder_says_so() {
    on_small_disk(async |disk| {
        drop(SqliteStore::open(database(disk)).await.unwrap());
        disk.remount("ro");
        for path in [database(disk), disk.at.join("new.db")] {
            let error = SqliteStore::open(&path).await.unwrap_err();
            assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
        }
    });
}

#[test]
fn r26_on_a_full_disk_templates_can_be_hidden_and_removed_but_not_added() {
    on_small_disk(async |disk| {
        let path = database(disk);
        let store = SqliteStore::open(&path).await.unwrap();
        let sandbox = insert_some(&store, 1).await.remove(0);
        let insert = |number| template_write(TemplateChange::Insert(template(number)));
        for number in 1..=200 {
            store.write_template(insert(number)).await.unwrap();
        }
        disk.fill();

        let mut refused = 1000;
        while store.write_template(insert(refused)).await.is_ok() {
            // Room within what SQLite has allocated already.
            refused += 1;
            assert!(refused < 100_000, "the disk never got full");
        }
        let full = store.write_template(insert(refused)).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        // Nor with a sandbox that is there already: it is as well off without a template.
        let snapshot = SandboxWrite {
            template: Some(insert(refused)),
            ..write(next(&sandbox, SandboxState::Running), 7)
        };
        let full = store.update_sandbox(snapshot).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        assert_eq!(ballast_len(&path), 8 * MIB, "an insert spent the ballast");
        let untouched = store.sandbox(sandbox.id).await.unwrap();
        assert_eq!(untouched, Some(sandbox));

        for number in 1..=200 {
            let mut hidden = template(number);
            (hidden.version, hidden.state) = (2, TemplateState::Deleting);
            let change = TemplateChange::Update(hidden.clone());
            let write = TemplateWrite {
                audit: Some(audit(1_000_000 + number, "tpl")),
                ..template_write(change)
            };
            store.write_template(write).await.unwrap();
            let read = store.template(hidden.id).await.unwrap();
            assert_eq!(read, Some(hidden.clone()));
            if number % 2 == 0 {
                let remove = TemplateChange::Remove(hidden.id, 2);
                store.write_template(template_write(remove)).await.unwrap();
                assert_eq!(store.template(hidden.id).await.unwrap(), None);
            }
        }
        assert!(ballast_len(&path) < 8 * MIB, "nothing needed the ballast");

        disk.free();
        store.write_template(insert(refused)).await.unwrap();
        assert_eq!(ballast_len(&path), 8 * MIB);
    });
}

#[test]
fn r28_on_a_full_disk_builds_can_be_ended_and_removed_but_not_begun_or_logged() {
    on_small_disk(async |disk| {
        let path = database(disk);
        let store = SqliteStore::open(&path).await.unwrap();
        for number in 1..=50 {
            let write = build_write(build(number));
            store.insert_build(write).await.unwrap();
        }
        let id = build(1).id;
        store
            .append_build_log(id, vec![piece(1, 100)])
            .await
            .unwrap();
        disk.fill();

        let mut refused = 2;
        while store
            .append_build_log(id, vec![piece(refused, 100)])
            .await
            .is_ok()
        {
            // Room within what SQLite has allocated already.
            refused += 1;
            assert!(refused < 100_000, "the disk never got full");
        }
        // A write of several pieces happens whole or not at all.
        let pieces = vec![piece(refused, 1), piece(refused + 1, 1 << 20)];
        let full = store.append_build_log(id, pieces).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        let last = LogCursor(piece(refused, 0).cursor.0 - 1);
        assert_eq!(store.build_log(id, last, u32::MAX).await.unwrap(), []);

        let mut begun = build(1000);
        begun.context = Some("c".repeat(100_000));
        let full = store.insert_build(build_write(begun.clone())).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        assert_eq!(store.build(begun.id).await.unwrap(), None);
        let full = store
            .put_context("c", Bytes::from(noise(100)), kit::at(0))
            .await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        let mut with_layer = build(1);
        (with_layer.version, with_layer.status) = (2, BuildStatus::Running);
        let mut large = template(1);
        large.name = "l".repeat(40).parse().unwrap();
        let with_layer = BuildWrite {
            templates: vec![template_write(TemplateChange::Insert(large.clone()))],
            audit: Some(audit(1, &"r".repeat(200_000))),
            ..build_write(with_layer)
        };
        let full = store.update_build(with_layer).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        assert_eq!(store.template(large.id).await.unwrap(), None);
        assert_eq!(store.build(id).await.unwrap(), Some(build(1)));
        assert_eq!(
            ballast_len(&path),
            8 * MIB,
            "what only adds spent the ballast"
        );

        for number in 1..=50 {
            let mut ended = build(number);
            (ended.version, ended.status) = (2, BuildStatus::Failed);
            ended.finished_at = Some(kit::at(5));
            let write = BuildWrite {
                audit: Some(audit(1_000_000 + number, "bld")),
                ..build_write(ended.clone())
            };
            store.update_build(write).await.unwrap();
            assert_eq!(store.build(ended.id).await.unwrap(), Some(ended));
        }
        assert!(ballast_len(&path) < 8 * MIB, "nothing needed the ballast");
        let full = store.append_build_log(id, vec![piece(refused, 1)]).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        let removed = store.remove_builds_finished_before(kit::at(6)).await;
        assert_eq!(removed.unwrap(), 50);
        assert_eq!(store.build(id).await.unwrap(), None);

        disk.free();
        store.insert_build(build_write(begun)).await.unwrap();
        assert_eq!(ballast_len(&path), 8 * MIB);
    });
}

#[test]
fn r31_a_context_that_would_fill_the_disk_is_refused_before_it_does() {
    on_small_disk(async |disk| {
        let path = database(disk);
        let store = SqliteStore::open(&path).await.unwrap();
        let large = Bytes::from(noise(20 << 20));
        let full = store.put_context("large", large, kit::at(0)).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        assert!(!store.has_context("large").await.unwrap());
        assert_eq!(ballast_len(&path), 8 * MIB);
        let small = Bytes::from(noise(4 << 20));
        store
            .put_context("small", small.clone(), kit::at(0))
            .await
            .unwrap();
        assert_eq!(store.context("small").await.unwrap(), Some(small));
    });
}
