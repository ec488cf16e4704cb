//! R22, trap 39: a full disk under real VMs, on a real, small file system.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say why they are skipped"
)]

#[path = "../../sandbox-store/tests/small_disk/mod.rs"]
#[expect(dead_code, reason = "not every test target uses all of it")]
mod small_disk;
mod vm_support;

use std::{fs, path::Path, time::Duration};

use sandbox_host::testkit::{leftovers::Leftovers, seed};
use sandbox_sdk::{Error, ProcessEvent, Sandbox, SandboxState};
use small_disk::{MIB, SmallDisk};
use vm_support::{eventually, lives, open, shared, text};

/// Runs a test on a small disk, and checks that nothing is left, the disk itself included.
fn on_small_disk(size_mb: u64, test: impl AsyncFnOnce(&SmallDisk)) {
    small_disk::on_small_disk(size_mb, async |disk| {
        let leftovers = Leftovers::watch(&disk.at);
        seed::plant(shared(), &disk.at.join("host")).await;
        test(disk).await;
        leftovers.assert_none().await;
    });
}

#[track_caller]
fn assert_names_the_room(error: &Error, place: &Path) {
    let Error::Capacity(words) = error else {
        panic!("{error:?}");
    };
    assert!(
        words.contains("the host's disk is full")
            && words.contains("MiB are free in")
            && words.contains("64 MiB are needed")
            && words.contains(place.to_str().unwrap()),
        "{words}"
    );
}

/// Starts to write more than there is room for, and waits until the guest stands still.
async fn write_until_full(sandbox: &Sandbox, mb: u32) -> sandbox_sdk::Process {
    let line = format!("dd if=/dev/zero of=/big bs=1M count={mb} 2>/dev/null; sync; echo written");
    let writer = sandbox.shell(line).spawn().await.unwrap();
    eventually("the guest stands still", || async {
        match sandbox
            .shell("true")
            .timeout(Duration::from_secs(5))
            .output()
            .await
        {
            Ok(_) => None,
            Err(Error::InvalidState { reason, .. }) => {
                assert!(reason.contains("the host's disk is full"), "{reason}");
                Some(())
            }
            // Cut off in the middle.
            Err(Error::GuestUnavailable(_)) => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;
    writer
}

async fn written(writer: &sandbox_sdk::Process) {
    use futures::TryStreamExt;
    eventually("the write is done", || async {
        let mut events = std::pin::pin!(writer.events_from(0));
        loop {
            match events.try_next().await {
                Ok(Some(ProcessEvent::Stdout(bytes))) => assert_eq!(bytes, "written\n"),
                Ok(Some(ProcessEvent::Exit(exit))) => {
                    assert!(exit.status.success(), "{exit:?}");
                    return Some(());
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => return None,
            }
        }
    })
    .await;
}

#[test]
fn r22_a_create_on_a_full_disk_names_what_is_free_and_needed_and_works_once_there_is_room() {
    on_small_disk(128, async |disk| {
        let client = open(&disk.at, 0).await.unwrap();
        let sandbox = client.create().await.unwrap();
        disk.take_all_but(20, "filler");
        let refused = client.create().await.unwrap_err();
        assert_names_the_room(&refused, &disk.at);

        // What is there works on, and the refusal left nothing.
        assert_eq!(text(sandbox.exec("echo on").await.unwrap()), "on\n");
        let machines = fs::read_dir(disk.at.join("host/machines")).unwrap();
        assert_eq!(machines.count(), 1);

        disk.give_back("filler");
        let second = client.create().await.unwrap();
        for sandbox in [sandbox, second] {
            sandbox.destroy().await.unwrap();
        }
        client.shutdown().await;
    });
}

#[test]
fn r22_trap_39_a_guest_that_fills_the_hosts_disk_stands_still_and_goes_on_once_there_is_room() {
    on_small_disk(256, async |disk| {
        let client = open(&disk.at, 0).await.unwrap();
        let greedy = client.create().await.unwrap();
        let other = client.create().await.unwrap();
        assert_eq!(text(other.exec("echo ready").await.unwrap()), "ready\n");
        disk.take_all_but(40, "filler");
        let writer = write_until_full(&greedy, 100).await;
        let listed = greedy.info().await.unwrap();
        assert_eq!(listed.state, SandboxState::Running, "it has not ended");
        assert_eq!(text(other.exec("echo fine").await.unwrap()), "fine\n");

        disk.give_back("filler");
        written(&writer).await;
        let size = text(greedy.exec("stat -c %s /big").await.unwrap());
        assert_eq!(size.trim(), (100 * MIB).to_string());
        drop(writer);
        for sandbox in [greedy, other] {
            sandbox.destroy().await.unwrap();
        }
        client.shutdown().await;
    });
}

#[test]
fn r9_r22_a_sandbox_on_a_full_disk_is_destroyed_which_makes_room_for_the_others() {
    on_small_disk(256, async |disk| {
        let client = open(&disk.at, 0).await.unwrap();
        let first = client.create().await.unwrap();
        let second = client.create().await.unwrap();
        let pid = client.host().unwrap().pid_of(first.id()).unwrap();
        drop(write_until_full(&first, 400).await);
        disk.take_all_but(0, "the rest");
        drop(write_until_full(&second, 60).await);

        first.destroy().await.unwrap();
        assert!(!lives(pid));
        let writer = eventually("the second goes on", || async {
            second
                .processes()
                .await
                .ok()
                .map(|list| second.process(list[0].pid))
        })
        .await;
        written(&writer).await;
        drop(writer);
        disk.give_back("the rest");
        let third = client.create().await.unwrap();
        assert_eq!(text(third.exec("echo room").await.unwrap()), "room\n");
        for sandbox in [second, third] {
            sandbox.destroy().await.unwrap();
        }
        client.shutdown().await;
    });
}

#[test]
fn r22_r36_a_platform_opens_on_a_full_disk_with_its_sandboxes() {
    on_small_disk(128, async |disk| {
        let client = open(&disk.at, 0).await.unwrap();
        let sandbox = client.create().await.unwrap();
        let paused = client.create().await.unwrap();
        paused.pause().await.unwrap();
        client.shutdown().await;
        disk.take_all_but(0, "filler");

        let client = open(&disk.at, 0).await.unwrap();
        let found = client.get(sandbox.id()).await.unwrap();
        assert_eq!(text(found.exec("echo kept").await.unwrap()), "kept\n");
        let other = client.get(paused.id()).await.unwrap();
        assert_eq!(other.info().await.unwrap().state, SandboxState::Paused);
        other.destroy().await.unwrap();
        found.destroy().await.unwrap();
        client.shutdown().await;
    });
}
