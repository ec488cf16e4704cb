//! `sandboxd` itself, with real machines: starting, working, stopping, being killed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

#[path = "../../sandbox-store/tests/postgres/server.rs"]
#[allow(
    dead_code,
    clippy::allow_attributes,
    reason = "made for the store's tests, which use more of it"
)]
mod postgres;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures::StreamExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use sandbox_host::testkit::{leftovers::Leftovers, seed};
use sandbox_sdk::{Client, SandboxId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

/// Longer than anything here takes, and short enough for a test that hangs.
const LONG: Duration = Duration::from_secs(30);
/// What a stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A data folder of the test's own. Dropped in this order.
struct Folder {
    leftovers: Leftovers,
    path: PathBuf,
    _temporary: TempDir,
}

impl Folder {
    async fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().canonicalize().unwrap();
        let leftovers = Leftovers::watch(&path);
        seed::plant(Path::new(env!("CARGO_TARGET_TMPDIR")), &path.join("host")).await;
        Self {
            leftovers,
            path,
            _temporary: temporary,
        }
    }
}

struct Daemon {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    base: String,
    key: String,
    client: reqwest::Client,
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxd"));
    command
        .arg("--data")
        .arg(folder)
        .args(["--listen", "127.0.0.1:0", "--pool-size", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Daemon {
    /// Starts one and waits for the line that it prints when it is ready.
    async fn start(folder: &Folder) -> Self {
        Self::start_with(folder, |_| {}).await
    }

    async fn start_with(folder: &Folder, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(&folder.path);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(LONG, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("the daemon starts");
        let base = line.rsplit(' ').next().unwrap().to_owned();
        assert!(base.starts_with("http://127.0.0.1:"), "{line}");
        let key = fs::read_to_string(folder.path.join("admin.key")).unwrap();
        let daemon = Self {
            child,
            lines,
            base,
            key: key.trim().to_owned(),
            client: reqwest::Client::new(),
        };
        let ready = daemon.ask(Method::GET, "/readyz").send().await.unwrap();
        assert_eq!(ready.status(), StatusCode::OK, "ready means ready");
        daemon
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.client
            .request(method, url)
            .header("X-API-Key", &self.key)
            .timeout(LONG)
    }

    async fn json(&self, method: Method, path: &str, body: Value, status: u16) -> Value {
        let mut asked = self.ask(method, path);
        if !body.is_null() {
            asked = asked.json(&body);
        }
        let answer = asked.send().await.unwrap();
        let got = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert_eq!(got, status, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        self.json(Method::GET, path, Value::Null, 200).await
    }

    async fn create(&self) -> String {
        let made = self.json(Method::POST, "/v1/sandboxes", json!({}), 201);
        format!("/v1/sandboxes/{}", made.await["id"].as_str().unwrap())
    }

    async fn exec(&self, sandbox: &str, line: &str) -> Value {
        let path = format!("{sandbox}/exec");
        self.json(Method::POST, &path, json!({"cmd": line}), 200)
            .await
    }

    async fn start_process(&self, sandbox: &str, line: &str) -> String {
        let path = format!("{sandbox}/processes");
        let started = self.json(Method::POST, &path, json!({"cmd": line}), 201);
        format!("{path}/{}", started.await["pid"])
    }

    async fn delete(&self, path: &str) {
        self.json(Method::DELETE, path, Value::Null, 204).await;
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().unwrap().cast_signed();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for its end, within what a stop may take.
    async fn ended(mut self) -> ExitStatus {
        let status = timeout(STOP_LIMIT, self.child.wait()).await;
        let status = status.expect("it stops within its limit").unwrap();
        let more = self.lines.next_line().await.unwrap();
        assert_eq!(more, None, "one line, and no more");
        status
    }

    async fn stop(self) {
        self.signal(Signal::SIGTERM);
        assert!(self.ended().await.success());
    }

    async fn kill(self) {
        self.signal(Signal::SIGKILL);
        assert!(!self.ended().await.success());
    }

    /// Reads output by server-sent events from `offset`, until `enough`; gives text and the offset
    /// behind it, and the exit where it came.
    async fn read(
        &self,
        process: &str,
        offset: u64,
        enough: impl Fn(&str) -> bool,
    ) -> (String, u64, Option<Value>) {
        let path = format!("{process}/output?follow=true");
        let asked = self.ask(Method::GET, &path);
        let asked = asked.header("Last-Event-ID", offset.to_string());
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let mut bytes = answer.bytes_stream();
        let (mut pending, mut text, mut at) = (String::new(), String::new(), offset);
        while !enough(&text) {
            let Some(piece) = bytes.next().await else {
                break;
            };
            pending.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
            while let Some((event, rest)) = pending.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                    let data: Value = serde_json::from_str(data).unwrap();
                    at = field("id: ").unwrap().parse().unwrap();
                    match kind {
                        "stdout" => text.push_str(data["data"].as_str().unwrap()),
                        "exit" => return (text, at, Some(data)),
                        other => panic!("{other}: {data}"),
                    }
                }
                pending = rest.to_owned();
            }
        }
        (text, at, None)
    }
}

async fn refusal(command: &mut Command) -> String {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut words = String::new();
    let mut stderr = child.stderr.take().unwrap();
    let read = stderr.read_to_string(&mut words);
    timeout(LONG, read).await.unwrap().unwrap();
    assert!(!child.wait().await.unwrap().success(), "{words}");
    words
}

#[tokio::test]
async fn the_whole_way_from_the_first_start_to_the_last_delete() {
    let folder = Folder::new().await;
    let daemon = Daemon::start(&folder).await;
    let file = fs::metadata(folder.path.join("admin.key")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!(daemon.key.len() > 40);

    let sandbox = daemon.create().await;
    let output = daemon.exec(&sandbox, "uname -s; id -u >&2; exit 5").await;
    assert_eq!(output["stdout"], "Linux\n");
    assert_eq!(output["stderr"], "0\n");
    assert_eq!(output["exit_code"], 5);

    let content: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 249) as u8).collect();
    let file = format!("{sandbox}/files?path=/srv/data");
    let put = daemon.ask(Method::PUT, &file).body(content.clone());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    let sum = daemon.exec(&sandbox, "wc -c < /srv/data").await;
    assert_eq!(sum["stdout"].as_str().unwrap().trim(), "8000000");
    let read = daemon.ask(Method::GET, &file).send().await.unwrap();
    assert!(read.bytes().await.unwrap() == content);

    // Holes come as zeros; files without a length come whole.
    daemon
        .exec(
            &sandbox,
            "truncate -s 3000000 /srv/hole; echo end >> /srv/hole",
        )
        .await;
    let hole = format!("{sandbox}/files?path=/srv/hole");
    let hole = daemon.ask(Method::GET, &hole).send().await.unwrap();
    assert_eq!(hole.content_length(), Some(3_000_004));
    let hole = hole.bytes().await.unwrap();
    assert!(hole[..3_000_000].iter().all(|byte| *byte == 0) && &hole[3_000_000..] == b"end\n");
    let version = format!("{sandbox}/files?path=/proc/version");
    let version = daemon.ask(Method::GET, &version).send().await.unwrap();
    assert!(version.text().await.unwrap().starts_with("Linux version"));

    let process = daemon
        .start_process(&sandbox, "echo one; sleep 0.3; echo two")
        .await;
    let (text, offset, _) = daemon.read(&process, 0, |text| text.len() >= 4).await;
    assert_eq!((text.as_str(), offset), ("one\n", 4));
    let (text, _, exit) = daemon.read(&process, offset, |_| false).await;
    assert_eq!(text, "two\n");
    assert_eq!(exit.unwrap()["exit_code"], 0);
    let beyond = format!("{process}/output?offset=1000");
    let beyond = daemon.json(Method::GET, &beyond, Value::Null, 409).await;
    assert_eq!(beyond["error"]["code"], "invalid_state");

    daemon.delete(&sandbox).await;
    daemon.stop().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn a_second_daemon_on_a_data_folder_is_refused_and_told_who_has_it() {
    let folder = Folder::new().await;
    let daemon = Daemon::start(&folder).await;
    let words = refusal(&mut command(&folder.path)).await;
    let pid = daemon.child.id().unwrap();
    assert!(
        words.contains("is in use by another process") && words.contains(&format!("pid {pid}")),
        "{words}"
    );
    daemon.get("/v1/sandboxes").await;

    let taken = daemon.base.strip_prefix("http://").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxd"));
    command
        .arg("--data")
        .arg(elsewhere.path())
        .args(["--listen", taken]);
    let words = refusal(&mut command).await;
    assert!(
        words.contains(&format!("can't listen on {taken}")),
        "{words}"
    );
    daemon.stop().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn a_daemon_that_is_told_to_stop_leaves_its_sandboxes_to_the_next() {
    let folder = Folder::new().await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = Daemon::start(&folder).await;
        let sandbox = daemon.create().await;
        let running = daemon
            .ask(Method::POST, &format!("{sandbox}/exec"))
            .json(&json!({"cmd": "sleep 1000"}))
            .send();
        let running = tokio::spawn(running);
        wait_for_process(&daemon, &sandbox).await;
        let process = daemon.start_process(&sandbox, "sleep 1000").await;
        let reading = daemon.ask(Method::GET, &format!("{process}/output?follow=true"));
        let reading = reading.send().await.unwrap();
        let started = Instant::now();
        daemon.signal(signal);
        let key = daemon.key.clone();
        assert!(daemon.ended().await.success());
        assert!(started.elapsed() < STOP_LIMIT);
        // The stream ended, and the command was answered: it goes on.
        reading.bytes().await.unwrap();
        let answered = running.await.unwrap().unwrap();
        assert_eq!(answered.status(), StatusCode::SERVICE_UNAVAILABLE);

        let daemon = Daemon::start(&folder).await;
        assert_eq!(daemon.key, key, "the key stays");
        assert_eq!(daemon.get(&sandbox).await["state"], "running");
        let processes = daemon.get(&format!("{sandbox}/processes")).await;
        let processes = processes["items"].as_array().unwrap().clone();
        assert_eq!(processes.len(), 2);
        assert!(processes.iter().all(|process| process["running"] == true));
        daemon.delete(&sandbox).await;
        daemon.stop().await;
        folder.leftovers.assert_none().await;
    }
}

#[tokio::test]
async fn records_in_postgresql_outlive_a_killed_daemon() {
    let mut server = postgres::Server::start();
    let folder = Folder::new().await;
    let start = || {
        Daemon::start_with(&folder, |command| {
            command.args(["--database-url", &server.url("postgres")]);
        })
    };
    let daemon = start().await;
    let sandbox = daemon.create().await;
    daemon.kill().await;

    let daemon = start().await;
    assert_eq!(daemon.get(&sandbox).await["state"], "running");
    assert_eq!(
        daemon.exec(&sandbox, "echo still").await["stdout"],
        "still\n"
    );
    daemon.delete(&sandbox).await;
    daemon.stop().await;
    assert!(!folder.path.join("sandbox.db").exists());
    folder.leftovers.assert_none().await;

    server.stop(Signal::SIGQUIT);
    let url = server.url("postgres");
    let mut unreachable = command(&folder.path);
    let words = refusal(unreachable.args(["--database-url", &url])).await;
    assert!(words.contains("no connection to the database"), "{words}");
}

#[tokio::test]
async fn r44_clients_of_the_sdk_come_in_by_the_socket_and_over_tcp() {
    let folder = Folder::new().await;
    let daemon = Daemon::start_with(&folder, |command| {
        command.args(["--rpc-listen", "tcp:127.0.0.1:0"]);
    })
    .await;
    let sandbox = daemon.create().await;
    let id: SandboxId = sandbox.rsplit('/').next().unwrap().parse().unwrap();

    let socket = folder.path.join("sandboxd.sock");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = Client::connect(format!("unix:{}", socket.display()))
        .await
        .unwrap();
    let handle = client.get(id).await.unwrap();
    let output = handle.exec("echo by the socket").await.unwrap();
    assert_eq!(output.stdout, "by the socket\n");
    drop((handle, client));

    daemon.delete(&sandbox).await;
    daemon.stop().await;
    assert!(!socket.exists(), "it goes with the daemon");
    folder.leftovers.assert_none().await;
}

async fn wait_for_process(daemon: &Daemon, sandbox: &str) {
    let until = Instant::now() + LONG;
    loop {
        let processes = daemon.get(&format!("{sandbox}/processes")).await;
        if !processes["items"].as_array().unwrap().is_empty() {
            return;
        }
        assert!(Instant::now() < until, "the command runs");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn r36_a_command_outlives_killed_daemons_and_is_read_to_the_last_byte() {
    const LAST: usize = 150;
    let folder = Folder::new().await;
    let daemon = Daemon::start(&folder).await;
    let sandbox = daemon.create().await;
    let line =
        format!("i=0; while [ $i -le {LAST} ]; do echo $i; i=$((i + 1)); usleep 20000; done");
    let process = daemon.start_process(&sandbox, &line).await;
    let (mut whole, mut offset, _) = daemon.read(&process, 0, |text| text.len() > 50).await;
    daemon.kill().await;

    let daemon = Daemon::start(&folder).await;
    let (more, at, exit) = daemon.read(&process, offset, |text| text.len() > 100).await;
    assert_eq!(exit, None, "it runs on");
    whole.push_str(&more);
    offset = at;
    daemon.kill().await;

    let daemon = Daemon::start(&folder).await;
    let (rest, _, exit) = daemon.read(&process, offset, |_| false).await;
    assert_eq!(exit.expect("it ended")["exit_code"], 0);
    whole.push_str(&rest);
    let numbers: Vec<usize> = whole.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..=LAST), "{numbers:?}");

    assert_eq!(
        daemon.exec(&sandbox, "echo usable").await["stdout"],
        "usable\n"
    );
    daemon.delete(&sandbox).await;
    daemon.stop().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_with_words_that_help() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for (args, words) in [
        (&[][..], "--data"),
        (&["--data", data, "--redis-url", "redis://x"], "not built"),
        (&["--data", data, "--no-local-host"], "not built"),
        (&["--data", data, "--listen", "nowhere"], "--listen"),
        (&["--data", data, "--log", "=["], "--log"),
        (&["--data", data, "--config", "/none.toml"], "/none.toml"),
        (&["--colour"], "--colour"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxd"));
        let refused = refusal(command.args(args).stdout(Stdio::null())).await;
        assert!(refused.contains(words), "{args:?}: {refused}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn help_shows_the_way_to_the_first_sandbox() {
    let help = Command::new(env!("CARGO_BIN_EXE_sandboxd"))
        .arg("--help")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    for words in [
        "--data",
        "--listen",
        "SANDBOX_LISTEN",
        "admin.key",
        "curl",
        "/docs",
        "SIGTERM",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
