//! The guest agent: PID 1 of every VM, and the host's hands in it.
//!
//! One thread serves the link (`serve`), starts and reaps processes (`process`) and moves files
//! (`file`); only what may take long has threads of its own. It never opens a network socket and
//! never starts anything on its own account.
//!
//! ```text
//! boot: mounts, modules, root disk, cgroup ──► open the port ──► serve, reap ──► power off
//! ```
//!
//! With `--listen PATH` it serves a unix socket instead, mounts nothing and changes nothing of the
//! machine: that is how it is tested without a VM.

mod boot;
mod cgroup;
mod file;
mod identity;
mod port;
mod power;
mod process;
mod serve;
mod service;
mod standstill;
mod sys;

use std::{io, path::PathBuf, process::ExitCode, sync::Arc};

use tokio::net::UnixListener;

use process::Processes;
use service::Agent;
use standstill::{Machine, Standstill};

/// Runs the agent with this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next(), args.next()) {
        _ if sys::is_init() => run_as_init(),
        (Some(option), Some(path), None) if option == "--listen" => run_listening(path.into()),
        _ => {
            complain("runs as PID 1 of a VM, or with --listen PATH for tests");
            ExitCode::from(2)
        }
    }
}

/// Says something where a person will see it: the VM's console.
#[expect(
    clippy::print_stderr,
    reason = "stderr is the console, and there is no log"
)]
fn complain(what: &str) {
    eprintln!("sandbox-agent: {what}");
}

fn run_as_init() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| complain(&format!("bug: {panic}"))));
    let result = boot::boot()
        .map_err(|error| error.to_string())
        .and_then(|booted| {
            block_on(async move {
                let port = port::PortStream::open(&booted.port)?;
                let machine = Machine::new(&booted.cgroup)?;
                let processes = Processes::new(Some(booted.cgroup))?;
                let agent = Arc::new(Agent::new(processes, Standstill::new(Some(machine))));
                let signals = power::watch_signals(Arc::clone(&agent))?;
                tokio::select! {
                    result = serve::serve_port(&agent, port) => result,
                    result = signals => result,
                }
            })
            .map_err(|error| format!("cannot serve the host: {error}"))
        });
    if let Err(problem) = result {
        complain(&problem);
    }
    power::power_off(power::After::Off)
}

fn run_listening(path: PathBuf) -> ExitCode {
    // Children of our children come to us, as they do to PID 1.
    let adopting = nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from);
    let result = adopting.and_then(|()| {
        block_on(async move {
            let listener = UnixListener::bind(&path)?;
            let agent = Arc::new(Agent::new(Processes::new(None)?, Standstill::new(None)));
            let signals = power::watch_signals(Arc::clone(&agent))?;
            tokio::select! {
                result = serve::serve_listener(&agent, listener) => result,
                result = signals => result,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    // Before any thread is made, so that all inherit it.
    power::block_signals()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(4)
        .thread_stack_size(256 * 1024)
        .build()?
        .block_on(work)
}
