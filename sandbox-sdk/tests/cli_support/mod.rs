//! The program `sandbox` at a desk of the test's own: a control plane whose host is simulated.

use std::process::Stdio;

use sandbox_sdk::Sandbox;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::remote_support::{Serving, World};

/// What a run of the program left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        String::from_utf8(self.stdout).unwrap()
    }

    /// The one line on stderr.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        self.stderr
    }
}

/// The program without what the tester's environment tells it.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    for name in [
        "SANDBOX_REMOTE",
        "SANDBOX_API_KEY",
        "SANDBOX_API_KEY_FILE",
        "SANDBOX_DATA",
        "SANDBOX_DATA_DIR",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub(crate) async fn run(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async {
        // It may have no use for it.
        stdin.write_all(input).await.ok();
        drop(stdin);
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) struct Desk {
    pub(crate) world: World,
    _serving: Serving,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let serving = world.serve_unix().await;
        Self {
            world,
            _serving: serving,
        }
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = program();
        let address = format!("unix:{}", self.world.socket().display());
        command.env("SANDBOX_REMOTE", address);
        command.args(line.split_whitespace());
        command
    }

    pub(crate) async fn run(&self, line: &str) -> Ran {
        run(self.command(line), b"").await
    }

    pub(crate) async fn create(&self) -> Sandbox {
        let id = self.run("create").await.ok();
        let id = id.strip_suffix('\n').unwrap().parse().unwrap();
        self.world.local().get(id).await.unwrap()
    }
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
