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

mod daemon_support;

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use daemon_support::{Daemon, Folder, LONG, STOP_LIMIT, command, refusal, wait_for_process};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use sandbox_sdk::{Client, SandboxId};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

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

#[tokio::test]
async fn r47_lines_of_a_json_log_join_requests_and_operations() {
    let folder = Folder::new().await;
    let log = folder.path.join("log");
    let file = fs::File::create(&log).unwrap();
    let daemon = Daemon::start_with(&folder, |command| {
        command.args(["--log-format", "json"]).stderr(file);
    })
    .await;
    let asked = daemon.ask(Method::POST, "/v1/sandboxes");
    let asked = asked.header("X-Request-Id", "mine-1").send().await.unwrap();
    assert_eq!(asked.headers()["x-request-id"], "mine-1");
    let made: Value = serde_json::from_str(&asked.text().await.unwrap()).unwrap();
    let path = format!("/v1/sandboxes/{}", made["id"].as_str().unwrap());
    daemon.delete(&path).await;
    daemon.stop().await;
    let text = fs::read_to_string(&log).unwrap();
    let lines = text.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let of_ours: Vec<Value> = lines
        .filter(|line| line["spans"].to_string().contains("\"mine-1\""))
        .collect();
    let joined = of_ours.iter().find(|line| {
        let spans = line["spans"].as_array().unwrap();
        spans
            .iter()
            .any(|span| span["kind"] == "create" && span["sandbox"] == made["id"])
    });
    let joined = joined.unwrap_or_else(|| panic!("{text}"));
    assert_eq!(joined["fields"]["message"], "the operation is done");
    assert!(joined["spans"].to_string().contains("\"op-"), "{joined}");
    folder.leftovers.assert_none().await;
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
async fn r36_a_foreground_command_of_a_killed_daemon_waits_for_no_reader() {
    let folder = Folder::new().await;
    let daemon = Daemon::start(&folder).await;
    let sandbox = daemon.create().await;
    // More than its log holds, once nobody reads it.
    let line = "while [ ! -e /go ]; do usleep 20000; done; head -c 31457280 /dev/zero; : > /over";
    let exec = daemon.ask(Method::POST, &format!("{sandbox}/exec"));
    let exec = tokio::spawn(exec.json(&json!({"cmd": line})).send());
    wait_for_process(&daemon, &sandbox).await;
    daemon.kill().await;
    exec.await.unwrap().unwrap_err();

    let daemon = Daemon::start(&folder).await;
    let go = format!("{sandbox}/files?path=/go");
    let go = daemon.ask(Method::PUT, &go).body("").send().await.unwrap();
    assert_eq!(go.status(), StatusCode::OK);
    let over = format!("{sandbox}/files/stat?path=/over");
    let until = Instant::now() + LONG;
    while daemon
        .ask(Method::GET, &over)
        .send()
        .await
        .unwrap()
        .status()
        != StatusCode::OK
    {
        assert!(Instant::now() < until, "the command goes on");
        sleep(Duration::from_millis(50)).await;
    }
    let processes = daemon.get(&format!("{sandbox}/processes")).await;
    assert_eq!(processes["items"][0]["output_end"], 31_457_280);
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
        (
            &["--data", data, "--redis-url", "cache:6379"],
            "expected redis://",
        ),
        (&["--data", data, "--no-local-host"], "--host unix:PATH"),
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
