//! `sandbox-hostd` dies at each step of a pause, a resume, a snapshot, a flatten and the growth of an
//! image, under a control plane that lives on or dies with it. Both are started again, and the
//! sandbox is found in a legal state and usable, the template whole or not there, and nothing left.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod daemon_support;

use std::{fs, future::Future, os::unix::process::ExitStatusExt, path::PathBuf, time::Duration};

use daemon_support::{
    Daemon, Folder, LONG,
    hostd::{Hostd, hostd_command, kill_file},
};
use nix::sys::signal::Signal;
use sandbox_core::template::TemplateState;
use sandbox_host::{fault, testkit::machine_files};
use sandbox_sdk::{Client, Error, Process, Sandbox, SandboxState, Template};
use tokio::time::{Instant, sleep, timeout};

/// Both daemons, and a sandbox with a process that counts, so that going back in time or starting
/// anew would show.
struct Test {
    folder: Folder,
    hostd: Hostd,
    daemon: Option<Daemon>,
    client: Client,
    sandbox: Sandbox,
    counter: Process,
    counted: u64,
}

impl Test {
    async fn new() -> Self {
        let folder = Folder::new().await;
        let hostd = Hostd::start(&folder).await;
        let daemon = hostd.control(&folder).await;
        let socket = folder.path.join("control/sandboxd.sock");
        let client = Client::connect(format!("unix:{}", socket.display()))
            .await
            .unwrap();
        let sandbox = client.create().await.unwrap();
        let line = "i=0; while :; do i=$((i+1)); for d in /dev/shm /root; do \
                    echo $i > $d/new; mv $d/new $d/n; done; usleep 5000; done";
        let counter = sandbox.shell(line).spawn().await.unwrap();
        let begun = "while ! test -s /root/n; do usleep 10000; done";
        sandbox.exec(begun).await.unwrap();
        Self {
            folder,
            hostd,
            daemon: Some(daemon),
            client,
            sandbox,
            counter,
            counted: 0,
        }
    }

    /// Has the host die at this step of the work, and starts it again; with the control plane where
    /// `both`. What came of the work.
    async fn dies_at<T: Send + 'static>(
        &mut self,
        at: &str,
        both: bool,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        fs::write(kill_file(&self.folder), at).unwrap();
        let work = tokio::spawn(work);
        self.assert_dies(at).await;
        if both {
            self.daemon.take().unwrap().kill().await;
        }
        self.hostd = Hostd::start(&self.folder).await;
        if both {
            self.daemon = Some(self.hostd.control(&self.folder).await);
        }
        let ended = timeout(LONG, work).await;
        ended.expect("the work ends").unwrap()
    }

    async fn assert_dies(&mut self, at: &str) {
        let died = timeout(LONG, self.hostd.child.wait()).await;
        let status = died.unwrap_or_else(|_| panic!("the host passes `{at}`"));
        assert_eq!(
            status.unwrap().signal(),
            Some(Signal::SIGKILL as i32),
            "{at}"
        );
        assert!(!kill_file(&self.folder).exists(), "{at}");
    }

    /// The sandbox runs with the memory that it had, or is paused and can be resumed so.
    async fn check(&mut self, at: &str) {
        let settled = eventually("the operation ends", async || {
            let record = self.sandbox.info().await.unwrap();
            record.operation.is_none().then_some(record)
        });
        match settled.await.state {
            SandboxState::Running => {}
            SandboxState::Paused => {
                assert_eq!(self.folder.leftovers.machine_pids(), [0_i32; 0], "{at}");
                assert_eq!(self.machine_files(), machine_files::PAUSED, "{at}");
                self.sandbox.resume().await.unwrap();
            }
            other => panic!("{at}: it is {other:?}"),
        }
        let numbers = self.numbers_in(&self.sandbox, self.counted).await;
        assert!(numbers[0].abs_diff(numbers[1]) <= 20, "{at}: {numbers:?}");
        self.counted = numbers[0];
        let processes = self.sandbox.processes().await.unwrap();
        let counter = processes.iter().find(|one| one.pid == self.counter.pid());
        assert_eq!(counter.unwrap().exit, None, "{at}");
        assert_eq!(self.machine_files(), machine_files::RUNNING, "{at}");
        assert_eq!(self.folder.leftovers.machine_pids().len(), 1, "{at}");
        assert_eq!(self.half_made(), [""; 0], "{at}");
    }

    /// What the counter has counted to, in memory and on disk, once that is beyond `before`.
    async fn numbers_in(&self, sandbox: &Sandbox, before: u64) -> Vec<u64> {
        let line = format!(
            "until [ $(cat /dev/shm/n) -gt {before} ]; do usleep 5000; done; cat /dev/shm/n /root/n"
        );
        let output = sandbox.shell(line).timeout(LONG).output().await.unwrap();
        assert!(output.status.success(), "behind {before}: {output:?}");
        let text = String::from_utf8(output.stdout.into()).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn host_folder(&self, name: &str) -> PathBuf {
        self.folder.path.join("host").join(name)
    }

    /// Names of the files of all machines.
    fn machine_files(&self) -> Vec<String> {
        machine_files::of_all(&self.folder.path.join("host"))
    }

    /// Images of templates that were made here.
    fn images(&self) -> Vec<String> {
        let folder = fs::read_dir(self.host_folder("images")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "minimal").collect()
    }

    /// Files that say by their name that they are not finished.
    fn half_made(&self) -> Vec<String> {
        let mut found = self.folder.leftovers.found();
        found.retain(|what| {
            let name = what.rsplit('/').next().unwrap_or_default();
            what.starts_with("file: ") && (name.starts_with('.') || name.contains(".part-"))
        });
        found
    }

    /// The template, where it was published. Otherwise nothing of it is left, or soon.
    async fn published(&self, name: &str, at: &str) -> Option<Template> {
        let found = match self.client.templates().get(name).await {
            Ok(template) => Some(template),
            Err(Error::TemplateNotFound(_)) => None,
            Err(error) => panic!("{at}: {error:?}"),
        };
        if let Some(template) = &found {
            assert_eq!(template.info().state, TemplateState::Ready, "{at}");
            assert!(template.info().size_bytes() > 0, "{at}");
        }
        let images: Vec<String> = found
            .iter()
            .map(|template| template.id().uuid().to_string())
            .collect();
        eventually(at, async || (self.images() == images).then_some(())).await;
        found
    }

    async fn delete(&self, template: &Template) {
        template.delete().await.unwrap();
        eventually("its files go", async || {
            self.images().is_empty().then_some(())
        })
        .await;
    }

    async fn end(self) {
        self.sandbox.destroy().await.unwrap();
        drop((self.sandbox, self.counter, self.client));
        self.daemon.unwrap().stop().await;
        self.hostd.stop().await;
        self.folder.leftovers.assert_none().await;
    }
}

async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "{what}: not within {LONG:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Each step with whether the control plane dies too.
fn each(steps: &'static [&'static str]) -> impl Iterator<Item = (&'static str, bool)> {
    steps.iter().copied().zip([false, true].into_iter().cycle())
}

#[tokio::test]
async fn r36_a_host_that_dies_at_any_step_of_a_pause_or_resume_loses_no_memory() {
    let mut test = Test::new().await;
    for (at, both) in each(&fault::PAUSE) {
        let sandbox = test.sandbox.clone();
        let paused = test.dies_at(at, both, async move { sandbox.pause().await });
        let paused = paused.await;
        // A control plane that lives on asks again.
        assert!(both || paused.is_ok(), "{at}: {paused:?}");
        test.check(at).await;
    }
    for (at, both) in each(&fault::RESUME) {
        test.sandbox.pause().await.unwrap();
        let sandbox = test.sandbox.clone();
        let resumed = test.dies_at(at, both, async move { sandbox.resume().await });
        let resumed = resumed.await;
        assert!(both || resumed.is_ok(), "{at}: {resumed:?}");
        test.check(at).await;
    }
    test.end().await;
}

#[tokio::test]
async fn r14_a_host_that_dies_at_any_step_of_a_snapshot_publishes_it_whole_or_not_at_all() {
    let mut test = Test::new().await;
    for (at, both) in each(&fault::SNAPSHOT) {
        let snapshot = test.sandbox.snapshot("warm").resume(true);
        let made = test.dies_at(at, both, async move { snapshot.await }).await;
        assert!(both || made.is_ok(), "{at}: {made:?}");
        test.check(at).await;
        let found = test.published("warm", at).await;
        assert!(found.is_some() || made.is_err(), "{at}: {made:?}");
        let Some(template) = found else {
            continue;
        };
        if at == fault::SNAPSHOT[0] {
            let clone = test.client.create().template(&template).await.unwrap();
            let begun = test.numbers_in(&clone, 0).await;
            assert!(begun[0].abs_diff(begun[1]) <= 20, "{at}: {begun:?}");
            test.numbers_in(&clone, begun[0]).await;
            clone.destroy().await.unwrap();
        }
        test.delete(&template).await;
    }
    test.end().await;
}

#[tokio::test]
async fn r21_a_host_that_dies_at_any_step_of_a_flatten_or_growth_leaves_nothing_half_made() {
    let mut test = Test::new().await;
    let mut last = None;
    for (at, both) in each(&fault::FLATTEN) {
        if let Some(template) = last.take() {
            test.delete(&template).await;
        }
        let flat = test.sandbox.snapshot("flat").resume(true).image_only();
        let made = test.dies_at(at, both, async move { flat.await }).await;
        assert!(both || made.is_ok(), "{at}: {made:?}");
        test.check(at).await;
        last = test.published("flat", at).await;
        assert!(last.is_some() || made.is_err(), "{at}: {made:?}");
    }
    let template = last.expect("the last one was published");

    // It is grown at the host's start, before anyone is served; so it was at the last one.
    let sized = test
        .host_folder("images")
        .join(template.id().uuid().to_string())
        .join("sized/5120");
    fs::remove_dir_all(&sized).unwrap();
    test.hostd.stop().await;
    for at in fault::GROWTH {
        fs::write(kill_file(&test.folder), at).unwrap();
        let socket = format!("unix:{}", test.folder.path.join("h.sock").display());
        let mut command = hostd_command(&test.folder);
        let mut child = command.args(["--listen", &socket]).spawn().unwrap();
        let status = timeout(LONG, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{at}");
        assert!(!sized.exists(), "{at}");
    }
    test.hostd = Hostd::start(&test.folder).await;
    assert_eq!(test.half_made(), [""; 0]);
    let disk = fs::metadata(sized.join("disk.img")).unwrap();
    assert_eq!(disk.len(), 5120 << 20);
    test.check("grown").await;

    let clone = test.client.create().template(&template).await.unwrap();
    let kept = clone.exec("test -s /root/n && df -m / | tail -1").await;
    assert!(kept.unwrap().status.success());
    clone.destroy().await.unwrap();
    test.delete(&template).await;
    test.end().await;
}
