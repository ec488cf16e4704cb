//! `sandboxd`: the daemon. It reads its settings, assembles, and serves.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use sandbox_api::{Args, Config, Daemon};
use sandbox_host::daemon::{Stop, start_log};

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
    start_log(&config.log, config.log_format)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime can't start")?;
    let ran = runtime.block_on(serve(config));
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    ran
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = Stop::listen().context("signals can't be received")?;
    let mut stop = std::pin::pin!(stop.come());
    let elsewhere = config.host.is_some();
    let daemon = tokio::select! {
        daemon = Daemon::open(config) => daemon?,
        // Waiting for another process is no reason to go on for longer than a stop may take.
        () = &mut stop, if elsewhere => return Ok(()),
    };
    let address = daemon.address().context("the address is not known")?;
    let mut out = std::io::stdout();
    writeln!(out, "sandboxd listens on http://{address}")
        .and_then(|()| out.flush())
        .context("stdout can't be written to")?;
    daemon.run(stop).await?;
    Ok(())
}
