//! Apps that end, in every way, and those that come after them on the same data folder.
//!
//! The app is this test program, started anew with a part to play: [`the_app`].

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking; the app tells its test what it did"
)]

mod vm_support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use futures::TryStreamExt;
use sandbox_core::process::ExitStatus;
use sandbox_host::testkit::{leftovers::Leftovers, seed};
use sandbox_sdk::{
    Client, Error, PageRequest, ProcessEvent, SandboxFilter, SandboxId, SandboxState,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use vm_support::{LONG, eventually, kill_9, lives, open, shared, stopped, text};

/// Says that this process is to play the app, and in which folder.
const APP_FOLDER: &str = "VM_RESTART_APP_FOLDER";
const MARK: &str = "app: ";

/// The app: obeys the lines that it reads, and answers each.
#[tokio::test]
#[ignore = "the other tests start it"]
async fn the_app() {
    let Some(folder) = std::env::var_os(APP_FOLDER) else {
        return;
    };
    let clones = std::env::var("VM_RESTART_APP_POOL").map_or(0, |text| text.parse().unwrap());
    let client = match open(Path::new(&folder), clones).await {
        Ok(client) => client,
        Err(error) => {
            println!("{MARK}{error}");
            return;
        }
    };
    println!("{MARK}open");
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await.unwrap() {
        let answer = obey(&client, &order).await;
        println!("{MARK}{answer}");
    }
}

async fn obey(client: &Client, order: &str) -> String {
    match order {
        "prepare" => client
            .prepare()
            .await
            .map(|()| "prepared".to_owned())
            .unwrap(),
        "create" => client.create().await.unwrap().id().to_string(),
        // Begun, and not waited for.
        "begin" => {
            let client = client.clone();
            tokio::spawn(async move { client.create().await.map(drop) });
            "begun".to_owned()
        }
        "count" => {
            let sandbox = client.create().await.unwrap();
            let line = "i=0; while true; do echo $i; i=$((i + 1)); usleep 20000; done";
            let process = sandbox.shell(line).spawn().await.unwrap();
            let mut seen = Vec::new();
            let mut events = std::pin::pin!(process.events());
            while seen.len() < 100 {
                match events.try_next().await.unwrap() {
                    Some(ProcessEvent::Stdout(bytes)) => seen.extend_from_slice(&bytes),
                    other => panic!("{other:?}"),
                }
            }
            let seen = String::from_utf8(seen).unwrap().replace('\n', ",");
            format!("{} {} {seen}", sandbox.id(), process.pid())
        }
        "waiting" => format!("{:?}", client.host().unwrap().waiting_pids()),
        "shutdown" => {
            client.shutdown().await;
            "shut down".to_owned()
        }
        other => panic!("no such order: {other}"),
    }
}

/// The app as its test sees it.
struct App {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl App {
    fn start(folder: &Path, clones: usize) -> Self {
        Self::start_with(folder, clones, |_| {})
    }

    fn start_with(folder: &Path, clones: usize, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "the_app", "--nocapture"])
            .env(APP_FOLDER, folder)
            .env("VM_RESTART_APP_POOL", clones.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        Self {
            orders: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    async fn answer(&mut self) -> String {
        let answer = async {
            loop {
                let line = self.answers.next_line().await.unwrap().expect("an answer");
                // The test harness says its own things, and begins a line with them.
                if let Some(at) = line.find(MARK) {
                    return line[at + MARK.len()..].to_owned();
                }
            }
        };
        timeout(LONG, answer).await.expect("the app answers")
    }

    async fn tell(&mut self, order: &str) {
        let line = format!("{order}\n");
        self.orders.write_all(line.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, order: &str) -> String {
        self.tell(order).await;
        self.answer().await
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Ends it as apps end, by returning from `main`.
    async fn end(mut self) {
        drop(self.orders);
        timeout(LONG, self.child.wait()).await.unwrap().unwrap();
    }
}

/// A data folder of the test's own. Dropped in this order.
struct Folder {
    leftovers: Leftovers,
    path: PathBuf,
    _temporary: TempDir,
}

impl Folder {
    async fn with_images() -> Self {
        let folder = Self::empty();
        seed::plant(shared(), &folder.path.join("host")).await;
        folder
    }

    fn empty() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().canonicalize().unwrap();
        Self {
            leftovers: Leftovers::watch(&path),
            path,
            _temporary: temporary,
        }
    }

    fn machines(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join("host/machines"));
        entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect()
    }
}

async fn all(client: &Client) -> Vec<sandbox_sdk::SandboxRecord> {
    let page = client
        .list(SandboxFilter::default(), PageRequest::default())
        .await;
    page.unwrap().items
}

#[tokio::test]
async fn a_second_process_on_a_data_folder_is_refused_and_told_who_has_it() {
    let folder = Folder::with_images().await;
    let mut first = App::start(&folder.path, 0);
    assert_eq!(first.answer().await, "open");

    let error = open(&folder.path, 0).await.unwrap_err();
    let Error::Unavailable(words) = &error else {
        panic!("{error:?}");
    };
    let pid = first.child.id().unwrap();
    assert!(
        words.contains("is in use by another process")
            && words.contains(&format!("pid {pid}"))
            && words.contains(folder.path.to_str().unwrap()),
        "{words}"
    );
    // Refused without harm: the first works on.
    let id: SandboxId = first.ask("create").await.parse().unwrap();
    first.ask("shutdown").await;
    let client = open(&folder.path, 0).await.expect("free after a shutdown");
    client.get(id).await.unwrap().destroy().await.unwrap();
    client.shutdown().await;
    drop(client);
    first.end().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn r36_the_sandboxes_of_a_killed_app_run_on_and_are_found_with_every_byte_they_wrote() {
    let folder = Folder::with_images().await;
    let mut app = App::start(&folder.path, 1);
    assert_eq!(app.answer().await, "open");
    let counting = app.ask("count").await;
    let words: Vec<&str> = counting.split_whitespace().collect();
    let (id, pid, seen) = (words[0], words[1], words[2].replace(',', "\n"));
    app.kill().await;

    let client = open(&folder.path, 0).await.unwrap();
    let sandbox = client.get(id.parse().unwrap()).await.unwrap();
    assert_eq!(sandbox.info().await.unwrap().state, SandboxState::Running);
    let counter = sandbox.process(pid.parse().unwrap());
    let mut rest = Vec::new();
    let more = async {
        let mut killed = false;
        let mut events = std::pin::pin!(counter.events_from(seen.len() as u64));
        loop {
            match events.try_next().await.unwrap() {
                Some(ProcessEvent::Stdout(bytes)) => rest.extend_from_slice(&bytes),
                Some(ProcessEvent::Exit(exit)) => return exit,
                other => panic!("{other:?}"),
            }
            // It counts on, for some time of the new app.
            if rest.len() > 300 && !killed {
                counter.kill().await.unwrap();
                killed = true;
            }
        }
    };
    let exit = timeout(LONG, more).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Signal(9));
    let whole = seen + std::str::from_utf8(&rest).unwrap();
    let numbers: Vec<usize> = whole.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len()), "{numbers:?}");
    assert_eq!(text(sandbox.exec("hostname").await.unwrap()).len(), 16);

    sandbox.destroy().await.unwrap();
    client.shutdown().await;
    drop((counter, sandbox, client));
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn the_waiting_clones_of_a_killed_app_are_ended_at_the_next_start() {
    let folder = Folder::with_images().await;
    let mut app = App::start(&folder.path, 2);
    assert_eq!(app.answer().await, "open");
    assert_eq!(app.ask("prepare").await, "prepared");
    let waiting = app.ask("waiting").await;
    let waiting: Vec<u32> = waiting
        .trim_matches(['[', ']'])
        .split(", ")
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(waiting.len() == 2 && waiting.iter().copied().all(lives));
    app.kill().await;
    assert!(
        waiting.iter().copied().all(lives),
        "machines are nobody's children"
    );

    let client = open(&folder.path, 0).await.unwrap();
    assert!(!waiting.iter().copied().any(lives));
    assert!(folder.machines().is_empty());
    client.shutdown().await;
    drop(client);
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn a_machine_that_was_half_made_when_the_app_was_killed_is_gone_at_the_next_start() {
    let folder = Folder::with_images().await;
    let mut app = App::start(&folder.path, 0);
    assert_eq!(app.answer().await, "open");
    app.tell("begin").await;
    eventually("a machine is being made", || async {
        let making = folder.machines().iter().any(|machine| {
            fs::read_to_string(machine.join("manifest.json"))
                .is_ok_and(|manifest| manifest.contains("\"creating\""))
        });
        (making && !folder.leftovers.machine_pids().is_empty()).then_some(())
    })
    .await;
    app.kill().await;
    let half_made = folder.leftovers.machine_pids();

    let client = open(&folder.path, 0).await.unwrap();
    // The record was settled as the engine started: there is no sandbox of it, or a whole one
    // where the app came further than it looked.
    let left = eventually("the record is settled", || async {
        let records = all(&client).await;
        records
            .iter()
            .all(|record| record.operation.is_none())
            .then_some(records)
    })
    .await;
    assert!(left.is_empty(), "{left:?}");
    assert!(!half_made.iter().any(|pid| lives(pid.cast_unsigned())));
    assert!(folder.machines().is_empty());
    client.shutdown().await;
    drop(client);
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn a_first_boot_that_was_cut_off_is_cleaned_up_and_done_again() {
    let folder = Folder::empty();
    seed::plant_accelerator(shared(), &folder.path.join("host")).await;
    let mut app = App::start(&folder.path, 0);
    assert_eq!(app.answer().await, "open");
    app.tell("prepare").await;
    eventually("the template boots", || async {
        (!folder.leftovers.machine_pids().is_empty()).then_some(())
    })
    .await;
    app.kill().await;
    let booting = folder.leftovers.machine_pids();
    assert_eq!(booting.len(), 1);

    let client = open(&folder.path, 0).await.unwrap();
    assert!(!lives(booting[0].cast_unsigned()));
    let memory = fs::read_dir(folder.path.join("host/memory")).unwrap();
    assert_eq!(memory.count(), 0, "nothing half-made is kept");
    let sandbox = client.create().await.unwrap();
    assert_eq!(text(sandbox.exec("echo booted").await.unwrap()), "booted\n");
    sandbox.destroy().await.unwrap();
    client.shutdown().await;
    drop((sandbox, client));
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn an_app_that_shuts_down_leaves_its_sandboxes_and_nothing_else() {
    let folder = Folder::with_images().await;
    let mut app = App::start(&folder.path, 2);
    assert_eq!(app.answer().await, "open");
    let id: SandboxId = app.ask("create").await.parse().unwrap();
    // At once, while the pool is being filled.
    assert_eq!(app.ask("shutdown").await, "shut down");
    app.end().await;
    assert_eq!(folder.machines().len(), 1);
    assert_eq!(
        folder.leftovers.machine_pids().len(),
        1,
        "the sandbox runs on"
    );

    let mut app = App::start(&folder.path, 2);
    assert_eq!(app.answer().await, "open");
    app.ask("shutdown").await;
    app.end().await;
    let client = open(&folder.path, 0).await.unwrap();
    let sandbox = client.get(id).await.unwrap();
    assert_eq!(text(sandbox.exec("echo still").await.unwrap()), "still\n");
    sandbox.destroy().await.unwrap();
    client.shutdown().await;
    drop((sandbox, client));
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn an_app_that_shuts_down_without_sandboxes_leaves_nothing() {
    let folder = Folder::with_images().await;
    let mut app = App::start(&folder.path, 2);
    assert_eq!(app.answer().await, "open");
    assert_eq!(app.ask("prepare").await, "prepared");
    assert_eq!(app.ask("shutdown").await, "shut down");
    folder.leftovers_but_the_app(&app).await;
    app.end().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn an_app_that_shuts_down_in_the_middle_of_a_first_boot_leaves_nothing() {
    let folder = Folder::empty();
    seed::plant_accelerator(shared(), &folder.path.join("host")).await;
    let client = open(&folder.path, 0).await.unwrap();
    let boot = client.clone();
    let boot = tokio::spawn(async move { boot.prepare().await });
    eventually("the template boots", || async {
        (!folder.leftovers.machine_pids().is_empty()).then_some(())
    })
    .await;
    client.shutdown().await;
    let told = boot.await.unwrap().unwrap_err();
    assert!(matches!(told, Error::Unavailable(_)), "{told:?}");
    drop(client);
    folder.leftovers.assert_none().await;
}

impl Folder {
    /// No machines, while the app itself is still there.
    async fn leftovers_but_the_app(&self, app: &App) {
        assert!(app.child.id().is_some());
        assert!(self.leftovers.machine_pids().is_empty());
        assert!(self.machines().is_empty());
    }
}

#[tokio::test]
async fn r36_a_sandbox_that_ended_while_no_app_ran_is_stopped_and_can_be_destroyed() {
    let folder = Folder::with_images().await;
    let mut app = App::start(&folder.path, 0);
    assert_eq!(app.answer().await, "open");
    let id: SandboxId = app.ask("create").await.parse().unwrap();
    app.kill().await;
    let [machine] = folder.leftovers.machine_pids()[..] else {
        panic!("one machine");
    };
    kill_9(machine.cast_unsigned());
    eventually("it ends", || async {
        (!lives(machine.cast_unsigned())).then_some(())
    })
    .await;

    let client = open(&folder.path, 0).await.unwrap();
    let sandbox = client.get(id).await.unwrap();
    let record = stopped(&sandbox).await;
    assert!(
        record.reason.contains("while the host was down"),
        "{}",
        record.reason
    );
    sandbox.destroy().await.unwrap();
    client.shutdown().await;
    drop((sandbox, client));
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn r48_without_qemu_the_app_is_told_the_command_that_installs_it() {
    let folder = Folder::empty();
    let nowhere = folder.path.join("empty");
    fs::create_dir(&nowhere).unwrap();
    let mut app = App::start_with(&folder.path, 0, |command| {
        command.env("PATH", &nowhere);
    });
    let error = app.answer().await;
    assert!(error.contains("qemu-system-x86_64 is missing"), "{error}");
    assert!(
        error.contains("To mend it: ") && error.contains("apt-get install"),
        "{error}"
    );
    app.end().await;
    fs::remove_dir(nowhere).unwrap();
    folder.leftovers.assert_none().await;
}

/// Where kernels are looked for besides `$SANDBOX_KERNEL_DIR` and the home folder.
const KERNEL_PLACES: [&str; 2] = ["/usr/local/share/sandbox", "/boot"];

#[tokio::test]
async fn r48_without_a_kernel_the_app_is_told_the_command_that_fetches_it() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: hiding the machine's kernels needs root");
        return;
    }
    let folder = Folder::empty();
    let nowhere = folder.path.join("empty");
    fs::create_dir(&nowhere).unwrap();
    let mut app = App::start_with(&folder.path, 0, |command| {
        command
            .env("SANDBOX_KERNEL_DIR", &nowhere)
            .env("HOME", &nowhere);
        let hide = move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            for place in KERNEL_PLACES {
                match mount(
                    Some("none"),
                    place,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    None::<&str>,
                ) {
                    Ok(()) | Err(nix::Error::ENOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        };
        // SAFETY: system calls alone, on values made before; they end with the process.
        unsafe { command.pre_exec(hide) };
    });
    let error = app.answer().await;
    assert!(error.contains("a guest kernel is missing"), "{error}");
    assert!(error.contains("apt-get download"), "{error}");
    app.end().await;
    fs::remove_dir(nowhere).unwrap();
    folder.leftovers.assert_none().await;
}
