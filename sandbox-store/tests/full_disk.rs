//! R22, trap 39: on a full disk what exists stays manageable. On a real, small file system.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say why they are skipped"
)]

mod kit;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use kit::{audit, next, record, sandbox_id, write};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use sandbox_core::{
    sandbox::{SandboxRecord, SandboxState},
    store::{Store, StoreError},
};
use sandbox_store::{OpenError, SqliteStore};
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
}

/// A small ext4 of its own, on a loop device that goes with the mount.
///
/// It is mounted in a mount namespace of this thread (and those that it starts), so the kernel
/// takes mount and device away even when the test is killed.
struct SmallDisk {
    at: PathBuf,
    _folder: TempDir,
}

impl SmallDisk {
    /// `None`, and why, when the test may not mount.
    fn mount(size_mb: u64) -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: mounting a file system needs root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        File::create(&image)
            .unwrap()
            .set_len(size_mb * MIB)
            .unwrap();
        let at = folder.path().join("mnt");
        fs::create_dir(&at).unwrap();
        let (image, target) = (image.to_str().unwrap(), at.to_str().unwrap());
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-m", "0", image]);
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        run("mount", &["-t", "ext4", "-o", "loop", image, target]);
        Some(Self {
            at,
            _folder: folder,
        })
    }

    fn database(&self) -> PathBuf {
        self.at.join("store.db")
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Takes every last block.
    fn fill(&self) {
        let mut filler = File::options()
            .append(true)
            .create(true)
            .open(self.filler())
            .unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![7; size];
            while filler.write_all(&block).is_ok() {}
            // What is only in memory does not count yet.
            let _ = filler.sync_all();
            while filler.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", &["-o", &options, self.at.to_str().unwrap()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at = self.at.to_str().unwrap();
        let done = |args: &[&str]| {
            let status = Command::new("umount").args(args).status();
            status.is_ok_and(|status| status.success())
        };
        if !done(&[at]) && !done(&["-l", at]) {
            eprintln!("{at} stays mounted until this process ends");
        }
    }
}

/// Runs a test on this thread, so that all threads of its runtime are in its mount namespace.
fn on_small_disk(test: impl AsyncFnOnce(&SmallDisk)) {
    let Some(disk) = SmallDisk::mount(48) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(&disk));
    drop(runtime);
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
        let path = disk.database();
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
        let store = SqliteStore::open(disk.database()).await.unwrap();
        let mut current = insert_some(&store, 1).await.remove(0);
        disk.fill();
        for number in 1..=2000_u128 {
            current = next(&current, SandboxState::Running);
            current.reason = format!("update {number}");
            let update = sandbox_core::store::SandboxWrite {
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
        let path = disk.database();
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
        let error = SqliteStore::open(disk.database()).await.unwrap_err();
        assert!(matches!(error, OpenError::Full { .. }), "{error:?}");
        disk.free();
        let store = SqliteStore::open(disk.database()).await.unwrap();
        insert_some(&store, 1).await;
    });
}

#[test]
fn a_read_only_folder_says_so() {
    on_small_disk(async |disk| {
        drop(SqliteStore::open(disk.database()).await.unwrap());
        disk.remount("ro");
        for path in [disk.database(), disk.at.join("new.db")] {
            let error = SqliteStore::open(&path).await.unwrap_err();
            assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
        }
    });
}
