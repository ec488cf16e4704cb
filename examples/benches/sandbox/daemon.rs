//! `sandboxd` as a user runs it: the program, built for release, as a process of its own.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::http::Http;

const START_LIMIT: Duration = Duration::from_secs(60);

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    key: String,
    pub(crate) address: SocketAddr,
    /// From the start of the process until it said that it is ready, and answered so.
    pub(crate) ready_after: Duration,
}

/// Builds the program and says where it is.
pub(crate) async fn build() -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release"])
        .args(["--package", "sandbox-api", "--bin", "sandboxd"])
        .status()
        .await
        .context("cargo can't be run")?;
    anyhow::ensure!(built.success(), "sandboxd can't be built");
    // This program is in `release/deps`.
    let own = env::current_exe()?;
    let folder = own.ancestors().nth(2).context("no target folder")?;
    Ok(folder.join("sandboxd"))
}

impl Daemon {
    /// Starts one on this folder, without a pool.
    pub(crate) async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(folder.join("bench.log"))?;
        let start = Instant::now();
        let mut child = Command::new(program)
            .arg("--data")
            .arg(folder)
            .args(["--listen", "127.0.0.1:0", "--pool-size", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_LIMIT, lines.next_line()).await??;
        let address = line
            .as_deref()
            .and_then(|line| line.rsplit('/').next()?.parse().ok())
            .context("the daemon did not start; bench.log in its folder says why")?;
        Http::connect(address, "").await?.get("/readyz").await?;
        let ready_after = start.elapsed();
        let key = std::fs::read_to_string(folder.join("admin.key"))?;
        Ok(Self {
            child,
            key: key.trim().to_owned(),
            address,
            ready_after,
        })
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Http> {
        Http::connect(self.address, &self.key).await
    }

    /// Stops it as a service manager would.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("it has ended before")?;
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}
