//! The host dies, or a step fails, at each step of a pause, a resume and a snapshot: the sandbox is
//! found in a legal state and usable, and nothing is left.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use std::path::Path;

use sandbox_core::{
    host::{Host, HostError, HostOrder, HostSandboxState, HostSnapshot},
    id::{SandboxId, TemplateId},
};
use sandbox_host::{
    fault::{self, Fault},
    testkit::machine_files,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vm_support::Fixture;

const JOB: &str = "SANDBOX_CRASH_JOB";

/// What a process does before it dies.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    data: String,
    at: String,
    work: Work,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Work {
    Pause(HostOrder),
    Resume(HostOrder),
    Snapshot(HostSnapshot),
}

/// Not a test: the process that dies, see [`die`].
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests below"]
async fn dies() {
    let Ok(job) = std::env::var(JOB) else {
        return;
    };
    let job: Job = serde_json::from_str(&job).unwrap();
    let host = vm_support::open(Path::new(&job.data)).await;
    fault::arm(Some((&job.at, Fault::Kill)));
    match job.work {
        Work::Pause(order) => host.pause_sandbox(order).await.unwrap(),
        Work::Resume(order) => host.resume_sandbox(order).await.unwrap(),
        Work::Snapshot(order) => drop(host.create_snapshot(order).await.unwrap()),
    }
    panic!("it did not pass `{}`", job.at);
}

/// Has another process do this and be killed at this step.
async fn die(data: &Path, at: &str, work: Work) {
    use std::os::unix::process::ExitStatusExt;
    let job = Job {
        data: data.to_str().unwrap().to_owned(),
        at: at.to_owned(),
        work,
    };
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dies", "--ignored", "--nocapture"])
        .env(JOB, serde_json::to_string(&job).unwrap())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "{at}: {text}");
}

/// A sandbox with a process that counts, so that going back in time or starting anew would show.
struct Counting {
    vm: Fixture,
    id: SandboxId,
    counter: u32,
    counted: u64,
}

impl Counting {
    async fn new() -> Self {
        let vm = Fixture::new().await;
        let id = vm.create().await;
        let line = "i=0; while :; do i=$((i+1)); for d in /dev/shm /root; do \
                    echo $i > $d/new; mv $d/new $d/n; done; done";
        let counter = vm.start(id, line).await.pid;
        vm.run(id, "while ! test -s /root/n; do sleep 0.05; done")
            .await;
        Self {
            vm,
            id,
            counter,
            counted: 0,
        }
    }

    /// The sandbox runs, its process counts on, and its machine's folder holds what it should.
    async fn check_running(&mut self, at: &str) {
        let state = self.vm.state(self.id).await;
        assert_eq!(state, Some(HostSandboxState::Running), "{at}");
        let numbers = self.vm.run(self.id, "cat /dev/shm/n /root/n; sync").await;
        let numbers: Vec<u64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
        assert!(
            numbers[0] > self.counted,
            "{at}: {numbers:?} behind {}",
            self.counted
        );
        assert!(
            numbers[0].abs_diff(numbers[1]) <= 50,
            "{at}: memory and disk: {numbers:?}"
        );
        self.counted = numbers[0];
        assert_eq!(
            self.vm.process(self.id, self.counter, 0).read(0).await.1,
            None
        );
        assert_eq!(self.vm.machine_files(), machine_files::RUNNING, "{at}");
        assert_eq!(self.vm.machine_pids().len(), 1, "{at}");
    }

    async fn check_paused(&mut self, at: &str) {
        assert_eq!(
            self.vm.state(self.id).await,
            Some(HostSandboxState::Paused),
            "{at}"
        );
        assert_eq!(self.vm.machine_pids(), [0i32; 0], "{at}");
        assert_eq!(self.vm.machine_files(), machine_files::PAUSED, "{at}");
    }

    /// Nothing half-made lies beside the images.
    fn check_images(&self, at: &str, published: bool) {
        let folder = std::fs::read_dir(self.vm.data().join("images")).unwrap();
        let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "minimal");
        assert_eq!(names.len(), usize::from(published), "{at}: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r36_a_host_that_dies_in_a_pause_finds_it_running_or_paused() {
    let mut test = Counting::new().await;
    let mut paused = false;
    for at in fault::PAUSE {
        let order = test.vm.next_order(test.id);
        test.vm
            .while_down(async |data| die(data, at, Work::Pause(order)).await)
            .await;
        paused |= at == fault::PAUSED;
        if paused {
            test.check_paused(at).await;
            test.vm.resume(test.id).await;
        }
        test.check_running(at).await;
    }
    let id = test.id;
    test.vm.end(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r36_a_host_that_dies_in_a_resume_finds_it_paused_or_running() {
    let mut test = Counting::new().await;
    let mut running = false;
    for at in fault::RESUME {
        test.vm.pause(test.id).await;
        let order = test.vm.next_order(test.id);
        test.vm
            .while_down(async |data| die(data, at, Work::Resume(order)).await)
            .await;
        running |= at == fault::RUNNING;
        if !running {
            test.check_paused(at).await;
            test.vm.resume(test.id).await;
        }
        test.check_running(at).await;
    }
    let id = test.id;
    test.vm.end(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r36_a_host_that_dies_in_a_snapshot_finds_the_sandbox_running() {
    let mut test = Counting::new().await;
    for at in fault::SNAPSHOT {
        let order = test.vm.snapshot_order(test.id, true);
        test.vm
            .while_down(async |data| die(data, at, Work::Snapshot(order)).await)
            .await;
        test.check_running(at).await;
        test.check_images(at, at == fault::PUBLISHED);
        test.vm.host.delete_snapshot(order.image).await.unwrap();
    }
    let id = test.id;
    test.vm.end(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_a_step_that_fails_leaves_the_sandbox_as_it_was() {
    let mut test = Counting::new().await;
    let before = |steps: &[&'static str], end: &str| -> Vec<&'static str> {
        steps
            .iter()
            .copied()
            .take_while(|step| *step != end)
            .collect()
    };
    let check = |error: HostError, fault: Fault| match fault {
        Fault::DiskFull => assert!(matches!(error, HostError::DiskFull { .. }), "{error}"),
        _ => assert!(error.to_string().contains("a test had it fail"), "{error}"),
    };
    for fault in [Fault::Fail, Fault::DiskFull] {
        for at in before(&fault::PAUSE, fault::PAUSED) {
            fault::arm(Some((at, fault)));
            let order = test.vm.next_order(test.id);
            check(test.vm.host.pause_sandbox(order).await.unwrap_err(), fault);
            test.check_running(at).await;
        }
        for at in before(&fault::SNAPSHOT, fault::PUBLISHED) {
            fault::arm(Some((at, fault)));
            let order = test.vm.snapshot_order(test.id, true);
            check(
                test.vm.host.create_snapshot(order).await.unwrap_err(),
                fault,
            );
            test.check_running(at).await;
            test.check_images(at, false);
        }
        test.vm.pause(test.id).await;
        for at in before(&fault::RESUME, fault::RUNNING) {
            fault::arm(Some((at, fault)));
            let order = test.vm.next_order(test.id);
            check(test.vm.host.resume_sandbox(order).await.unwrap_err(), fault);
            test.check_paused(at).await;
        }
        test.vm.resume(test.id).await;
        test.check_running("at last").await;
    }
    let id = test.id;
    test.vm.end(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_destroy_in_the_middle_wins_and_leaves_nothing() {
    let mut test = Counting::new().await;
    let id = test.id;
    let order = test.vm.snapshot_order(id, true);
    let host = test.vm.host.clone();
    let snapshot = tokio::spawn(async move { host.create_snapshot(order).await });
    tokio::task::yield_now().await;
    test.vm.host.destroy_sandbox(id, 1).await.unwrap();
    // It may have been done, or was called off.
    let made = snapshot.await.unwrap();
    test.check_images("destroyed", made.is_ok());
    test.vm
        .host
        .delete_snapshot(TemplateId::from_uuid(Uuid::now_v7()))
        .await
        .unwrap();
    test.vm.host.delete_snapshot(order.image).await.unwrap();
    assert_eq!(test.vm.state(id).await, None);
    test.vm.end(&[]).await;
}
