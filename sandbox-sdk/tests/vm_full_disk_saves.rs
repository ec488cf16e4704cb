//! R22: a really full disk before and in the middle of a pause, a resume, a snapshot and a flatten,
//! records and host on the same small file system. The call says that the disk is full, nothing
//! half-written stays, and the sandbox runs or stays paused as it was.

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

use std::{fs, path::Path};

use sandbox_host::{
    fault,
    testkit::{leftovers::Leftovers, machine_files, seed},
};
use sandbox_sdk::{Client, Error, Sandbox, SandboxState};
use small_disk::{Format, SmallDisk, fill_up};
use vm_support::{LONG, eventually, open, shared, text};

/// Runs a test with a sandbox on a small disk, and checks that nothing is left.
fn on_small_disk(format: Format, test: impl AsyncFnOnce(&mut Saving<'_>)) {
    small_disk::on_disk(format, 320, async |disk| {
        let leftovers = Leftovers::watch(&disk.at);
        seed::plant(shared(), &disk.at.join("host")).await;
        let client = open(&disk.at, 0).await.unwrap();
        let sandbox = client.create().await.unwrap();
        // In memory alone: a guest that writes to its disk would stand still on a full host.
        let line = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/new; \
                    mv /dev/shm/new /dev/shm/n; usleep 5000; done";
        sandbox.shell(line).spawn().await.unwrap();
        sandbox
            .exec("echo kept > /root/file; sync; while ! test -s /dev/shm/n; do usleep 9999; done")
            .await
            .unwrap();
        let mut saving = Saving {
            disk,
            client: &client,
            sandbox,
            counted: 0,
        };
        test(&mut saving).await;
        drop(saving);
        client.shutdown().await;
        drop(client);
        leftovers.assert_none().await;
    });
}

struct Saving<'a> {
    disk: &'a SmallDisk,
    client: &'a Client,
    sandbox: Sandbox,
    counted: u64,
}

impl Saving<'_> {
    /// The call failed for want of room, and says so.
    #[track_caller]
    fn assert_full(&self, at: &str, error: &Error) {
        let place = self.disk.at.to_str().unwrap();
        assert!(
            matches!(error, Error::Capacity(words)
                if words.contains("the host's disk is full") && words.contains(place)),
            "{at}: {error:?}"
        );
    }

    /// It runs as if nothing had been asked of it, and nothing that was written for that is left.
    async fn check_running(&mut self, at: &str) {
        self.check_state(at, SandboxState::Running).await;
        let names = [
            "disk",
            "disk.json",
            "guest.sock",
            "manifest.json",
            "qemu.log",
            "qmp.sock",
        ];
        assert_eq!(self.machine_files(), names, "{at}");
        let line = format!(
            "until [ $(cat /dev/shm/n) -gt {} ]; do usleep 5000; done; cat /dev/shm/n /root/file",
            self.counted
        );
        let counting = self.sandbox.shell(line).timeout(LONG).output();
        let said = text(counting.await.unwrap());
        let (counted, kept) = said.trim().split_once('\n').unwrap();
        let counted: u64 = counted.parse().unwrap();
        assert_eq!(kept, "kept", "{at}");
        self.counted = counted;
    }

    async fn check_paused(&self, at: &str) {
        self.check_state(at, SandboxState::Paused).await;
        let names = [
            "device.state",
            "disk",
            "disk.json",
            "manifest.json",
            "memory.delta",
        ];
        assert_eq!(self.machine_files(), names, "{at}");
    }

    async fn check_state(&self, at: &str, state: SandboxState) {
        let record = self.sandbox.info().await.unwrap();
        assert_eq!((record.state, record.operation), (state, None), "{at}");
    }

    fn machine_files(&self) -> Vec<String> {
        let files = machine_files::of_all(&self.disk.at.join("host"));
        let mut names: Vec<String> = files
            .into_iter()
            // Which backend made it is another test's matter.
            .map(|name| match name.as_str() {
                "disk.qcow2" | "disk.raw" => "disk".to_owned(),
                _ => name,
            })
            .collect();
        names.sort();
        names
    }

    /// No template was made, and nothing of one is there.
    async fn check_no_template(&self, at: &str) {
        let found = self.client.templates().get("made").await;
        assert_eq!(
            found.unwrap_err(),
            Error::TemplateNotFound("made".to_owned()),
            "{at}"
        );
        let images = self.disk.at.join("host/images");
        eventually("nothing of the image is left", async || {
            let names = fs::read_dir(&images).unwrap();
            let mut names = names.map(|entry| entry.unwrap().file_name());
            names.all(|name| name == "minimal").then_some(())
        })
        .await;
    }

    /// What is tried on a full disk: all of it is refused, and nothing changes.
    async fn try_all_in_vain(&mut self, at: &str) {
        let error = self.sandbox.pause().await.unwrap_err();
        self.assert_full(at, &error);
        for image_only in [false, true] {
            for resume in [false, true] {
                let mut snapshot = self.sandbox.snapshot("made").resume(resume);
                if image_only {
                    snapshot = snapshot.image_only();
                }
                let error = snapshot.await.unwrap_err();
                // Where the records' own reserve was touched, they take nothing new in.
                let words = error.to_string();
                let says_so = words.contains("disk is full") || words.contains("no space is left");
                assert!(says_so, "{at}: {error:?}");
                self.check_no_template(at).await;
            }
        }
        self.check_running(at).await;
    }
}

/// Has the disk run full as this step is passed.
fn fill_at(at: &'static str, disk: &Path) {
    let disk = disk.to_path_buf();
    fault::arm_work(at, move || fill_up(&disk));
}

fn before(steps: &'static [&'static str], end: &str) -> impl Iterator<Item = &'static str> {
    steps.iter().copied().take_while(move |step| *step != end)
}

fn full_before(format: Format) {
    on_small_disk(format, async |test| {
        test.disk.take_all_but(20, "some");
        test.try_all_in_vain("20 MiB are left").await;
        test.disk.fill();
        test.try_all_in_vain("nothing is left").await;
        test.disk.free();
        test.disk.give_back("some");
        test.sandbox.pause().await.unwrap();
        test.disk.fill();
        let error = test.sandbox.resume().await.unwrap_err();
        test.assert_full("resuming", &error);
        test.check_paused("resuming").await;
        test.disk.free();
        test.sandbox.resume().await.unwrap();
        test.check_running("resumed").await;

        // All that is there can go on a disk without a free block: paused, running, a template.
        let template = test.sandbox.snapshot("made").resume(true).await.unwrap();
        let paused = test.client.create().template(&template).await.unwrap();
        paused.pause().await.unwrap();
        test.disk.fill();
        template.delete().await.unwrap();
        paused.destroy().await.unwrap();
        test.check_no_template("deleted").await;
        // What these left free is taken as well.
        test.disk.fill();
        test.check_running("beside a full disk").await;
        test.sandbox.destroy().await.unwrap();
        test.disk.free();
    });
}

#[test]
fn r22_a_disk_that_is_full_refuses_to_save_and_lets_go_of_everything() {
    full_before(Format::Ext4);
}

#[test]
fn r22_a_full_xfs_refuses_to_save_and_lets_go_of_everything() {
    full_before(Format::Xfs);
}

#[test]
fn r22_a_disk_that_runs_full_at_any_step_of_a_pause_or_resume_changes_nothing() {
    on_small_disk(Format::Ext4, async |test| {
        for at in before(&fault::PAUSE, fault::PAUSED) {
            fill_at(at, &test.disk.at);
            let error = test.sandbox.pause().await.unwrap_err();
            test.assert_full(at, &error);
            test.check_running(at).await;
            test.disk.free();
        }
        test.sandbox.pause().await.unwrap();
        for at in before(&fault::RESUME, fault::RUNNING) {
            fill_at(at, &test.disk.at);
            let error = test.sandbox.resume().await.unwrap_err();
            test.assert_full(at, &error);
            test.check_paused(at).await;
            test.disk.free();
        }
        test.sandbox.resume().await.unwrap();
        test.check_running("resumed").await;
        test.sandbox.destroy().await.unwrap();
    });
}

fn full_within_a_snapshot(format: Format) {
    on_small_disk(format, async |test| {
        for (steps, image_only) in [(&fault::SNAPSHOT[..], false), (&fault::FLATTEN[..], true)] {
            for at in before(steps, fault::PUBLISHED) {
                fill_at(at, &test.disk.at);
                let mut snapshot = test.sandbox.snapshot("made").resume(true);
                if image_only {
                    snapshot = snapshot.image_only();
                }
                match snapshot.await {
                    Err(error) => test.assert_full(at, &error),
                    // Cutting the shrunk disk's end off makes room, which is enough for the rest.
                    Ok(template) => {
                        assert_eq!(at, "shrinking the disk");
                        template.delete().await.unwrap();
                    }
                }
                test.check_no_template(at).await;
                if format == Format::Ext4 {
                    test.check_running(at).await;
                    test.disk.free();
                    continue;
                }
                // Its disk shares blocks with the copy that was made of it: the guest can't write
                // even to what it has, and stands still until there is room.
                test.disk.free();
                eventually("it goes on", async || test.sandbox.ping().await.ok()).await;
                test.check_running(at).await;
            }
        }
        // With room again it is made.
        let template = test.sandbox.snapshot("made").await.unwrap();
        template.delete().await.unwrap();
        test.sandbox.destroy().await.unwrap();
    });
}

#[test]
fn r22_a_disk_that_runs_full_at_any_step_of_a_snapshot_or_flatten_leaves_no_template() {
    full_within_a_snapshot(Format::Ext4);
}

/// Copies share blocks there.
#[test]
fn r22_an_xfs_that_runs_full_at_any_step_of_a_snapshot_or_flatten_leaves_no_template() {
    full_within_a_snapshot(Format::Xfs);
}
