//! The program `sandbox` with real VMs and no daemon: each run is a process of its own, and the
//! sandboxes live on between them.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};
use sandbox_host::testkit::{leftovers::Leftovers, seed};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(25);

/// Fields are dropped in their order: what a failed test left running ends before its folder goes.
struct Desk {
    leftovers: Leftovers,
    folder: PathBuf,
    _temporary: TempDir,
}

impl Desk {
    async fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let leftovers = Leftovers::watch(&folder);
        seed::plant(Path::new(env!("CARGO_TARGET_TMPDIR")), &folder.join("host")).await;
        Self {
            leftovers,
            folder,
            _temporary: temporary,
        }
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
        for name in ["SANDBOX_REMOTE", "SANDBOX_API_KEY", "SANDBOX_API_KEY_FILE"] {
            command.env_remove(name);
        }
        command.env("SANDBOX_DATA", &self.folder);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Code, stdout, stderr.
    async fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args.iter().copied()).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        (code, text(output.stdout), text(output.stderr))
    }

    async fn ok(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}: {stdout}");
        stdout
    }

    async fn create(&self) -> String {
        self.ok(&["create"]).await.trim_end().to_owned()
    }

    async fn close(self) {
        self.leftovers.assert_none().await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().unwrap().cast_signed()), signal).unwrap();
}

#[tokio::test]
async fn r45_a_sandbox_lives_on_between_commands_and_leaves_nothing() {
    let desk = Desk::new().await;
    let id = desk.create().await;
    assert_eq!(desk.ok(&["ls", "-q"]).await.trim_end(), id);
    let line = "echo out; echo err >&2; exit 9";
    let ran = desk.run(&["exec", &id, "--", "sh", "-c", line]).await;
    assert_eq!(ran, (9, "out\n".to_owned(), "err\n".to_owned()));
    let (code, _, why) = desk.run(&["exec", &id, "no-such-program"]).await;
    assert_eq!((code, why.lines().count()), (126, 1), "{why}");
    let (code, ..) = desk.run(&["exec", &id, "sh", "-c", "kill -TERM $$"]).await;
    assert_eq!(code, 143);

    let here = desk.folder.join("numbers");
    std::fs::write(&here, "3\n1\n2\n").unwrap();
    let there = format!("{id}:/tmp/");
    desk.ok(&["cp", here.to_str().unwrap(), &there]).await;
    let sorted = desk.ok(&["exec", &id, "sort", "/tmp/numbers"]).await;
    assert_eq!(sorted, "1\n2\n3\n");
    let copied = desk.ok(&["cp", &format!("{id}:/tmp/numbers"), "-"]).await;
    assert_eq!(copied, "3\n1\n2\n");

    // It runs on while no command does.
    let left = "for i in 1 2 3; do sleep 0.2; echo $i; done; exit 4";
    let pid = desk.ok(&["exec", "-d", &id, "--", "sh", "-c", left]).await;
    let followed = desk.run(&["logs", "-f", &id, pid.trim_end()]).await;
    assert_eq!(followed, (4, "1\n2\n3\n".to_owned(), String::new()));

    assert!(desk.ok(&["doctor"]).await.contains("Sandboxes can run"));
    desk.ok(&["rm", &id]).await;
    assert_eq!(desk.ok(&["ls", "-q"]).await, "");
    desk.close().await;
}

#[tokio::test]
async fn r45_what_a_command_paused_or_saved_others_resume_and_clone() {
    let desk = Desk::new().await;
    let id = desk.create().await;
    let counts = "n=0; while sleep 0.05; do n=$((n+1)); echo $n > /srv/n; done";
    desk.ok(&["exec", "-d", &id, "--", "sh", "-c", counts])
        .await;
    desk.ok(&["pause", &id]).await;
    assert!(desk.ok(&["ls"]).await.contains("paused"));
    desk.ok(&["resume", &id]).await;
    desk.ok(&["snapshot", &id, "--name", "counting"]).await;
    let clone = desk.ok(&["create", "--template", "counting"]).await;
    let clone = clone.trim_end();
    // It counts on in the clone, where nobody started it.
    let count = async || -> u64 {
        let written = desk.ok(&["exec", clone, "cat", "/srv/n"]).await;
        written.trim_end().parse().unwrap_or(0)
    };
    let first = count().await;
    until("it counts on", async || count().await > first + 1).await;
    let listed = desk.ok(&["templates", "--type", "snapshot", "-q"]).await;
    assert_eq!(listed, "counting\n");
    desk.ok(&["rm", &id, clone]).await;
    desk.ok(&["template", "rm", "counting"]).await;
    assert_eq!(desk.ok(&["templates", "-q"]).await, "minimal\n");
    desk.close().await;
}

#[tokio::test]
async fn commands_at_the_same_time_take_turns() {
    let desk = Desk::new().await;
    let id = desk.create().await;
    let runs = ["a", "b", "c", "d"].map(|word| {
        let (desk, id) = (&desk, &id);
        async move { assert_eq!(desk.ok(&["exec", id, "echo", word]).await.trim_end(), word) }
    });
    futures::future::join_all(runs).await;
    desk.ok(&["rm", &id]).await;
    desk.close().await;
}

#[tokio::test]
async fn r45_the_third_signal_leaves_a_stubborn_command_to_itself() {
    let desk = Desk::new().await;
    let id = desk.create().await;
    let stubborn = "trap 'echo heard' INT; echo ready; while :; do sleep 0.05; done";
    let mut command = desk.command(["exec", &id, "--", "sh", "-c", stubborn]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let seen = watch(child.stdout.take().unwrap().into_owned_fd().unwrap());
    for wanted in ["ready\n", "ready\nheard\n", "ready\nheard\nheard\n"] {
        until(wanted, async || {
            seen.lock().unwrap().as_slice() == wanted.as_bytes()
        })
        .await;
        signal(&child, Signal::SIGINT);
    }
    let output = child.wait_with_output().await.unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{why}");
    assert!(
        why.contains("goes on") && why.contains("sandbox kill"),
        "{why}"
    );
    assert!(desk.ok(&["ps", &id]).await.contains("running"));
    desk.ok(&["rm", &id]).await;
    desk.close().await;
}

/// Gathers what comes out of a file until its end.
fn watch(source: OwnedFd) -> Arc<Mutex<Vec<u8>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let gathered = Arc::clone(&seen);
    std::thread::spawn(move || {
        let mut source = File::from(source);
        let mut buffer = [0; 4096];
        // A terminal whose other side has gone gives an error.
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            gathered.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    seen
}

#[tokio::test]
async fn r45_a_terminal_is_passed_on_with_its_size_keys_and_state() {
    let desk = Desk::new().await;
    let id = desk.create().await;
    let size = |ws_row, ws_col| Winsize {
        ws_row,
        ws_col,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size(50, 132), None).unwrap();
    let mut command = desk.command(["exec", "-it", &id, "--", "sh"]);
    let side = || Stdio::from(pty.slave.try_clone().unwrap());
    command.stdin(side()).stdout(side()).stderr(side());
    let mut child = command.spawn().unwrap();
    drop(command);
    let seen = watch(pty.master.try_clone().unwrap());
    let mut keys = File::from(pty.master.try_clone().unwrap());
    let after = async |text: &str, wanted: &str| {
        // What comes unasked may have come already.
        let before = match text {
            "" => 0,
            _ => seen.lock().unwrap().len(),
        };
        keys.write_all(text.as_bytes()).unwrap();
        until(wanted, async || {
            String::from_utf8_lossy(&seen.lock().unwrap()[before..]).contains(wanted)
        })
        .await;
    };
    let is_raw = || {
        let flags = tcgetattr(pty.slave.as_fd()).unwrap().local_flags;
        !flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    };
    let mut after = after;
    after("", "# ").await;
    assert!(is_raw());
    after("stty size\r", "50 132\r\n").await;
    let smaller = rustix::termios::Winsize {
        ws_row: 20,
        ws_col: 90,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&pty.master, smaller).unwrap();
    signal(&child, Signal::SIGWINCH);
    after(
        "while [ \"$(stty size)\" != '20 90' ]; do :; done; echo now $((20+1))\r",
        "now 21",
    )
    .await;
    // An interrupt key goes through as a key, and interrupts what runs there.
    after("echo go$((1+1)); sleep 100\r", "go2").await;
    after("\u{3}", "# ").await;
    after("echo code $?\r", "code 130").await;
    keys.write_all(b"exit 7\r").unwrap();
    let ended = tokio::time::timeout(LONG, child.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(7));
    assert!(!is_raw(), "the terminal is as it was");
    desk.ok(&["rm", &id]).await;
    desk.close().await;
}
