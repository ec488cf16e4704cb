//! `sandboxd` and `sandbox-hostd` as two processes, with real machines: working, stopping, being
//! killed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod daemon_support;

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use daemon_support::{
    Daemon, Folder, LONG,
    hostd::{Hostd, hostd_command, hostd_program},
    refusal, wait_for_process,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

async fn until_ready(daemon: &Daemon, status: StatusCode) -> String {
    let until = Instant::now() + LONG;
    loop {
        let ready = daemon.ask(Method::GET, "/readyz").send().await.unwrap();
        let got = ready.status();
        let words = ready.text().await.unwrap();
        if got == status {
            return words;
        }
        assert!(Instant::now() < until, "{got} and not {status}: {words}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_whole_way_with_the_host_in_another_process() {
    let folder = Folder::new().await;
    let hostd = Hostd::start_at(&folder, "tcp:127.0.0.1:0").await;
    let key = folder.path.join("host/host.key");
    let mode = fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let words = refusal(&mut hostd_command(&folder)).await;
    assert!(words.contains("is in use by another process"), "{words}");

    let daemon = hostd.control(&folder).await;
    let sandbox = daemon.create().await;
    let output = daemon.exec(&sandbox, "uname -s; id -u >&2; exit 5").await;
    assert_eq!(output["stdout"], "Linux\n");
    assert_eq!(output["exit_code"], 5);
    let content: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 249) as u8).collect();
    let file = format!("{sandbox}/files?path=/srv/data");
    let put = daemon.ask(Method::PUT, &file).body(content.clone());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    let read = daemon.ask(Method::GET, &file).send().await.unwrap();
    assert!(read.bytes().await.unwrap() == content);

    // Away, and back at the same place.
    let address = hostd.address.clone();
    hostd.stop().await;
    let words = until_ready(&daemon, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(words.contains("the host does not answer"), "{words}");
    assert!(!words.contains(&address) && !words.contains("host.key"));
    assert_eq!(daemon.get(&sandbox).await["state"], "running");
    let hostd = Hostd::start_at(&folder, &address).await;
    until_ready(&daemon, StatusCode::OK).await;
    assert_eq!(
        daemon.exec(&sandbox, "echo still").await["stdout"],
        "still\n"
    );

    daemon.delete(&sandbox).await;
    daemon.stop().await;
    hostd.stop().await;
    folder.leftovers.assert_none().await;
}

/// Writes 10 MiB in numbered blocks over some seconds, then says so in a file.
const BLOCKS: usize = 160;
const BLOCK_BYTES: usize = 64 * 1024;

fn slow_line(blocks: usize, done: &str) -> String {
    let filling = BLOCK_BYTES - 6;
    format!(
        "head -c {filling} /dev/zero | tr '\\0' x > /tmp/block; i=10000; \
         while [ $i -lt {} ]; do cat /tmp/block; echo $i; i=$((i + 1)); usleep 20000; done; \
         : > {done}",
        10_000 + blocks
    )
}

/// The blocks that are whole in what was read.
fn assert_whole(text: &str) {
    assert_eq!(text.len(), BLOCKS * BLOCK_BYTES);
    for (at, line) in text.lines().enumerate() {
        let number = line.trim_start_matches('x');
        assert_eq!(number.parse::<usize>().unwrap(), 10_000 + at);
    }
}

#[tokio::test]
async fn r36_commands_outlive_killed_daemons_and_are_read_to_the_last_byte() {
    let folder = Folder::new().await;
    let hostd = Hostd::start(&folder).await;
    let daemon = hostd.control(&folder).await;
    let sandbox = daemon.create().await;
    let pids = folder.leftovers.machine_pids();

    // The host is killed while a request waits for a command, and another process writes.
    let exec = daemon.ask(Method::POST, &format!("{sandbox}/exec"));
    let line = format!("{} ; echo over", slow_line(BLOCKS / 3, "/one"));
    let exec = tokio::spawn(exec.json(&json!({"cmd": line})).send());
    wait_for_process(&daemon, &sandbox).await;
    // What a reader was sent and had not read yet when it broke off is there for it to ask again.
    let retain_bytes = 2 * BLOCKS * BLOCK_BYTES;
    let spec = json!({"cmd": slow_line(BLOCKS, "/two"), "retain_bytes": retain_bytes});
    let processes = format!("{sandbox}/processes");
    let started = daemon.json(Method::POST, &processes, spec, 201).await;
    let process = format!("{processes}/{}", started["pid"]);
    let some = |text: &str| text.len() > 20 * BLOCK_BYTES;
    let (mut whole, mut offset, _) = daemon.read(&process, 0, some).await;
    hostd.kill().await;
    assert_eq!(
        folder.leftovers.machine_pids(),
        pids,
        "the machine lives on"
    );
    let hostd = Hostd::start(&folder).await;
    let (more, at, exit) = daemon.read(&process, offset, some).await;
    assert_eq!(exit, None, "it runs on");
    whole.push_str(&more);
    offset = at;
    let answered = timeout(LONG * 2, exec).await.unwrap().unwrap().unwrap();
    assert_eq!(answered.status(), StatusCode::OK);
    let ended: Value = answered.json().await.unwrap();
    assert_eq!(ended["exit_code"], 0, "it ended normally");
    let stdout = ended["stdout"].as_str().unwrap();
    assert!(stdout.ends_with("over\n") || ended["truncated"] == true);

    // The control plane is killed, and then both.
    daemon.kill().await;
    let daemon = hostd.control(&folder).await;
    let (more, at, _) = daemon.read(&process, offset, some).await;
    whole.push_str(&more);
    offset = at;
    daemon.kill().await;
    hostd.kill().await;
    let hostd = Hostd::start(&folder).await;
    let daemon = hostd.control(&folder).await;
    let (rest, _, exit) = daemon.read(&process, offset, |_| false).await;
    assert_eq!(exit.expect("it ended")["exit_code"], 0);
    whole.push_str(&rest);
    assert_whole(&whole);
    assert_eq!(folder.leftovers.machine_pids(), pids);
    let both = daemon.exec(&sandbox, "ls /one /two").await;
    assert_eq!(both["stdout"], "/one\n/two\n");

    daemon.delete(&sandbox).await;
    daemon.stop().await;
    hostd.stop().await;
    folder.leftovers.assert_none().await;
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_with_words_that_help() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let none = format!("{data}/none.sock");
    for (args, words) in [
        (&[][..], "--data"),
        (
            &["--data", data, "--listen", "tcp:0.0.0.0:0"],
            "other machines",
        ),
        (&["--data", data, "--listen", "nowhere"], "unix:/path"),
        (&["--data", data, "--secret-file", &none], "none.sock"),
        (&["--data", data, "--log", "=["], "--log"),
        (&["--colour"], "--colour"),
    ] {
        let mut command = Command::new(hostd_program());
        let refused = refusal(command.args(args).stdout(Stdio::null())).await;
        assert!(refused.contains(words), "{args:?}: {refused}");
    }
    let help = Command::new(hostd_program()).arg("--help").output().await;
    let text = String::from_utf8(help.unwrap().stdout).unwrap();
    for words in [
        "--listen",
        "SANDBOX_HOSTD_LISTEN",
        "host.key",
        "--no-local-host",
        "SIGTERM",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
