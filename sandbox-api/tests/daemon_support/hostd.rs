//! `sandbox-hostd` as a child process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sandbox_host::fault;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{Daemon, Folder, LONG, STOP_LIMIT};

/// The program that runs sandboxes: where the environment says, or beside `sandboxd`, where a build
/// of the workspace puts it.
pub(crate) fn hostd_program() -> PathBuf {
    let named = std::env::var_os("SANDBOX_TEST_HOSTD").map(PathBuf::from);
    let program = named.unwrap_or_else(|| {
        Path::new(env!("CARGO_BIN_EXE_sandboxd")).with_file_name("sandbox-hostd")
    });
    assert!(
        program.is_file(),
        "{} is not there: `cargo build -p sandbox-host --features hostd,testkit` makes it, as does \
         a test run of the whole workspace",
        program.display()
    );
    program
}

/// What is written here names the place where the host dies next. The program must have been built
/// with the feature `testkit`.
pub(crate) fn kill_file(folder: &Folder) -> PathBuf {
    folder.path.join("dies-at")
}

pub(crate) struct Hostd {
    pub(crate) child: Child,
    pub(crate) address: String,
}

pub(crate) fn hostd_command(folder: &Folder) -> Command {
    let mut command = Command::new(hostd_program());
    command
        .arg("--data")
        .arg(folder.path.join("host"))
        .args(["--pool-size", "0"])
        .env(fault::KILL_FILE, kill_file(folder))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Hostd {
    /// Starts one and waits for the line that it prints when it is ready.
    pub(crate) async fn start(folder: &Folder) -> Self {
        let socket = format!("unix:{}", folder.path.join("h.sock").display());
        Self::start_at(folder, &socket).await
    }

    /// Starts one and kills it so much later, which may be before it is ready.
    pub(crate) async fn die_at_start(folder: &Folder, after: Duration) {
        let socket = format!("unix:{}", folder.path.join("h.sock").display());
        let mut command = hostd_command(folder);
        let child = command.args(["--listen", &socket]).stdout(Stdio::null());
        let mut child = child.spawn().unwrap();
        sleep(after).await;
        child.kill().await.unwrap();
    }

    pub(crate) async fn start_at(folder: &Folder, address: &str) -> Self {
        let mut command = hostd_command(folder);
        let mut child = command.args(["--listen", address]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(LONG, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("the host starts");
        let address = line.strip_prefix("sandbox-hostd listens on ").unwrap();
        Self {
            address: address.to_owned(),
            child,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().unwrap().cast_signed();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    pub(crate) async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = timeout(STOP_LIMIT, self.child.wait()).await;
        assert!(
            status
                .expect("it stops within its limit")
                .unwrap()
                .success()
        );
    }

    pub(crate) async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        assert!(!self.child.wait().await.unwrap().success());
    }

    /// A control plane of this host.
    pub(crate) async fn control(&self, folder: &Folder) -> Daemon {
        let data = folder.path.join("control");
        fs::create_dir_all(&data).unwrap();
        Daemon::start_in(&data, |command| {
            command.args(["--no-local-host", "--host", &self.address]);
            command.arg("--host-key-file");
            command.arg(folder.path.join("host/host.key"));
        })
        .await
    }
}
