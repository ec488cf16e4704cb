//! `sandboxd` as a child process, and how it is asked.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test program uses a part of it"
)]

pub(crate) mod hostd;

use std::{
    fs,
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
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

/// Longer than anything here takes, and short enough for a test that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// What a stop may take.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A data folder of the test's own. Dropped in this order.
pub(crate) struct Folder {
    pub(crate) leftovers: Leftovers,
    pub(crate) path: PathBuf,
    _temporary: TempDir,
}

impl Folder {
    pub(crate) async fn new() -> Self {
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

pub(crate) struct Daemon {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) base: String,
    pub(crate) key: String,
    pub(crate) client: reqwest::Client,
}

pub(crate) fn command(folder: &Path) -> Command {
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
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::start_with(folder, |_| {}).await
    }

    pub(crate) async fn start_with(folder: &Folder, change: impl FnOnce(&mut Command)) -> Self {
        Self::start_in(&folder.path, change).await
    }

    /// With this data folder.
    pub(crate) async fn start_in(data: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(data);
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(LONG, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("the daemon starts");
        let base = line.rsplit(' ').next().unwrap().to_owned();
        assert!(base.starts_with("http://127.0.0.1:"), "{line}");
        let key = fs::read_to_string(data.join("admin.key")).unwrap();
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

    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.client
            .request(method, url)
            .header("X-API-Key", &self.key)
            .timeout(LONG)
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: Value, status: u16) -> Value {
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

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.json(Method::GET, path, Value::Null, 200).await
    }

    pub(crate) async fn create(&self) -> String {
        let made = self.json(Method::POST, "/v1/sandboxes", json!({}), 201);
        format!("/v1/sandboxes/{}", made.await["id"].as_str().unwrap())
    }

    pub(crate) async fn exec(&self, sandbox: &str, line: &str) -> Value {
        let path = format!("{sandbox}/exec");
        self.json(Method::POST, &path, json!({"cmd": line}), 200)
            .await
    }

    pub(crate) async fn start_process(&self, sandbox: &str, line: &str) -> String {
        let path = format!("{sandbox}/processes");
        let started = self.json(Method::POST, &path, json!({"cmd": line}), 201);
        format!("{path}/{}", started.await["pid"])
    }

    pub(crate) async fn delete(&self, path: &str) {
        self.json(Method::DELETE, path, Value::Null, 204).await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().unwrap().cast_signed();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for its end, within what a stop may take.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let status = timeout(STOP_LIMIT, self.child.wait()).await;
        let status = status.expect("it stops within its limit").unwrap();
        let more = self.lines.next_line().await.unwrap();
        assert_eq!(more, None, "one line, and no more");
        status
    }

    pub(crate) async fn stop(self) {
        self.signal(Signal::SIGTERM);
        assert!(self.ended().await.success());
    }

    pub(crate) async fn kill(self) {
        self.signal(Signal::SIGKILL);
        assert!(!self.ended().await.success());
    }

    /// Reads output by server-sent events from `offset`, until `enough`; gives text and the offset
    /// behind it, and the exit where it came.
    pub(crate) async fn read(
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

pub(crate) async fn refusal(command: &mut Command) -> String {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut words = String::new();
    let mut stderr = child.stderr.take().unwrap();
    let read = stderr.read_to_string(&mut words);
    timeout(LONG, read).await.unwrap().unwrap();
    assert!(!child.wait().await.unwrap().success(), "{words}");
    words
}

pub(crate) async fn wait_for_process(daemon: &Daemon, sandbox: &str) {
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
