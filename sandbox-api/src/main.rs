//! `sandboxd`: the daemon. It reads its settings, assembles, and serves.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use sandbox_api::{Args, Config, Daemon, LogFormat};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is left when everything has stopped is not waited for any longer.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where stderr is closed.
            let _ = writeln!(std::io::stderr(), "sandboxd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::load(args)?;
    start_log(&config)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime can't start")?;
    let ran = runtime.block_on(serve(config));
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    ran
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = Stop::listen().context("signals can't be received")?;
    let daemon = Daemon::open(config).await?;
    let address = daemon.address().context("the address is not known")?;
    let mut out = std::io::stdout();
    writeln!(out, "sandboxd listens on http://{address}")
        .and_then(|()| out.flush())
        .context("stdout can't be written to")?;
    daemon.run(stop.come()).await?;
    Ok(())
}

/// The signals that stop the daemon.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn one(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first one; from then on a second ends the process at once.
    async fn come(mut self) {
        self.one().await;
        tokio::spawn(async move {
            self.one().await;
            std::process::exit(1);
        });
    }
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("--log {:?} is no log filter", config.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
