//! A `sandboxd` that takes clients of the SDK by its socket and over TCP.

use std::{path::Path, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::LONG;

pub(crate) struct Daemon {
    child: Child,
    /// Where it takes clients besides its socket, as `tcp:HOST:PORT`.
    pub(crate) tcp: String,
}

impl Daemon {
    /// Starts one on a free port, and waits until it is ready.
    pub(crate) async fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sandboxd"))
            .arg("--data")
            .arg(folder)
            .args(["--listen", "127.0.0.1:0", "--rpc-listen", "tcp:127.0.0.1:0"])
            .args(["--pool-size", "0", "--log", "info", "--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut ready = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(LONG, ready.next_line()).await.unwrap().unwrap();
        line.expect("the daemon starts");
        // Its log has said the port by then.
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let tcp = loop {
            let line = timeout(LONG, log.next_line()).await.unwrap().unwrap();
            let said: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if said["fields"]["message"] == "takes remote clients" {
                break said["fields"]["address"].as_str().unwrap().to_owned();
            }
        };
        // It must not stand still for nobody reading on.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { child, tcp }
    }

    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().unwrap().cast_signed();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        let status = timeout(LONG, self.child.wait()).await.unwrap();
        assert!(status.unwrap().success());
    }
}
