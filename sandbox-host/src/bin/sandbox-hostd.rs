//! `sandbox-hostd`: a machine's sandboxes, for a control plane that is another process. It reads its
//! settings, opens the host, and serves.

use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use sandbox_core::{disk::DiskChoice, wire::Address};
use sandbox_host::{
    HostConfig, HostManager,
    daemon::{KeyFile, LogFormat, Stop, start_log, warm_up},
    rpc::{HostServer, Listener, NotLocal},
};
use tokio::{net::lookup_host, time::timeout};

/// What the host gets to end its work, at a stop. Together with the second that connections get it
/// is less than the 10 s that a stop may take.
const HOST_STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// What is left when everything has stopped is not waited for any longer.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_millis(200);
const KEY_FILE: &str = "host.key";
const KEY_PREFIX: &str = "sbh_";
const SOCKET: &str = "hostd.sock";

/// One machine's side of the sandbox platform, as a daemon: it runs the sandboxes that a control
/// plane orders.
///
/// Each sandbox is a virtual machine with a kernel, memory and disk of its own. They live on when
/// the daemon stops: the next one finds them.
#[derive(Debug, Parser)]
#[command(
    name = "sandbox-hostd",
    version,
    after_long_help = "EXAMPLE
  sandbox-hostd --data /var/lib/sandbox-host

  In another terminal, as the same user, the control plane:
    sandboxd --data /var/lib/sandbox --no-local-host --host unix:/var/lib/sandbox-host/hostd.sock

  When it is ready it prints one line with its address. Whoever may use that address may do
  everything with all sandboxes: it is a socket for its owner alone, or an address on the loopback
  with a secret. Other addresses are refused.

FILES
  DATA/host.key      the secret for --listen tcp:..., written by the first start; the control plane
                     takes it with --host-key-file
  DATA/hostd.sock    the socket, where --listen names no other
  DATA/              images, disks and machines

SIGNALS
  SIGTERM, SIGINT    stop within 10 seconds; sandboxes run on. A second one stops at once."
)]
struct Args {
    /// The folder that holds everything; one daemon at a time may use it
    #[arg(long, env = "SANDBOX_HOSTD_DATA", value_name = "DIR")]
    data: PathBuf,

    /// Where the control plane comes in [default: unix:DATA/hostd.sock]
    ///
    /// unix:PATH is a socket for its owner alone. tcp:127.0.0.1:PORT asks for the secret; port 0
    /// takes any that is free.
    #[arg(long, env = "SANDBOX_HOSTD_LISTEN", value_name = "ADDR")]
    listen: Option<String>,

    /// Take the secret from this file [default: DATA/host.key, made by the first start]
    #[arg(long, env = "SANDBOX_HOSTD_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Restored machines that wait for the next create, some 30 MiB each
    #[arg(
        long,
        env = "SANDBOX_HOSTD_POOL_SIZE",
        value_name = "N",
        default_value_t = 2
    )]
    pool_size: usize,

    /// Look for a guest kernel here before the usual places
    #[arg(long, env = "SANDBOX_HOSTD_KERNEL_DIR", value_name = "DIR")]
    kernel_dir: Option<PathBuf>,

    /// What makes the disks of new sandboxes: auto, reflink, qcow2 or dm-snapshot
    ///
    /// auto takes reflink where the data folder's file system shares blocks between files (XFS,
    /// btrfs), and qcow2 elsewhere. dm-snapshot needs root and the kernel's device-mapper. Sandboxes
    /// that are there keep what they have.
    #[arg(
        long,
        env = "SANDBOX_HOSTD_DISK_BACKEND",
        value_name = "BACKEND",
        default_value_t
    )]
    disk_backend: DiskChoice,

    /// What to log to stderr, such as `info` or `sandbox_host=debug,warn`
    #[arg(
        long,
        env = "SANDBOX_HOSTD_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    log: String,

    /// How log lines are written
    #[arg(
        long,
        env = "SANDBOX_HOSTD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where stderr is closed.
            let _ = writeln!(std::io::stderr(), "sandbox-hostd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    start_log(&args.log, args.log_format)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime can't start")?;
    let ran = runtime.block_on(serve(args));
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    ran
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let stop = Stop::listen().context("signals can't be received")?;
    let settings = Settings::check(&args).await?;
    let mut config = HostConfig::new(&args.data);
    config.kernel_dir.clone_from(&args.kernel_dir);
    config.pool_size = args.pool_size;
    config.disk_backend = args.disk_backend;
    // The host's lock on its folder comes first; whoever connects finds all sandboxes.
    let host = HostManager::open(config).await?;
    let served = listen_and_serve(&host, &args, settings, stop).await;
    if timeout(HOST_STOP_TIMEOUT, host.shutdown()).await.is_err() {
        tracing::warn!("the host was at work; the next start settles what it left");
    }
    served
}

/// What is wrong with these shows before the folder is opened, which takes a while.
struct Settings {
    address: Address,
    secret: Option<String>,
}

impl Settings {
    async fn check(args: &Args) -> anyhow::Result<Self> {
        let address = match &args.listen {
            Some(text) => text.parse().context("--listen")?,
            None => Address::Unix(args.data.join(SOCKET)),
        };
        if let Address::Tcp(place) = &address {
            let places = lookup_host(place).await;
            let mut places = places.with_context(|| format!("can't listen on {address}"))?;
            if places.any(|place| !place.ip().is_loopback()) {
                return Err(NotLocal::OtherMachines(address.to_string()).into());
            }
        }
        let secret = match &args.secret_file {
            Some(path) => Some(KeyFile::new(path, KEY_PREFIX).read()?),
            None => None,
        };
        Ok(Self { address, secret })
    }
}

async fn listen_and_serve(
    host: &HostManager,
    args: &Args,
    settings: Settings,
    stop: Stop,
) -> anyhow::Result<()> {
    let secret = match settings.secret {
        Some(secret) => secret,
        None => KeyFile::new(args.data.join(KEY_FILE), KEY_PREFIX).read_or_make()?,
    };
    let address = settings.address.to_string();
    let listener = Listener::bind(&address)
        .await
        .with_context(|| format!("can't listen on {address}"))?;
    let server = HostServer::new(Arc::new(host.clone()), Some(secret));
    server.check(&listener)?;
    let mut out = std::io::stdout();
    writeln!(out, "sandbox-hostd listens on {listener}")
        .and_then(|()| out.flush())
        .context("stdout can't be written to")?;
    if args.pool_size > 0 {
        tokio::spawn(warm_up(host.clone()));
    }
    let until_stop = async {
        stop.come().await;
        tracing::info!("stopping; sandboxes run on");
    };
    server.serve(listener, until_stop).await?;
    Ok(())
}
