//! Signals to PID 1, and the end of the machine.

use std::{io, sync::Arc};

use nix::sys::{
    reboot::{RebootMode, reboot},
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

use super::{complain, service::Agent, sys};

/// What comes after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Off,
    Restart,
}

fn watched() -> SigSet {
    // What `halt`, `poweroff` and `reboot` send to PID 1: USR1, USR2, TERM.
    [
        Signal::SIGCHLD,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGTERM,
        Signal::SIGINT,
    ]
    .into_iter()
    .collect()
}

/// From now on these signals wait to be read, and no handler ever runs.
pub(crate) fn block_signals() -> io::Result<()> {
    watched().thread_block()?;
    Ok(())
}

/// Reaps children and obeys requests to end. Ends itself only where this is not PID 1.
pub(crate) fn watch_signals(agent: Arc<Agent>) -> io::Result<impl Future<Output = io::Result<()>>> {
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = sys::watch(SignalFd::with_flags(&watched(), flags)?)?;
    Ok(async move {
        loop {
            let mut ready = signals.readable().await?;
            let Some(info) = signals.get_ref().read_signal()? else {
                ready.clear_ready();
                continue;
            };
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            if signal == Ok(Signal::SIGCHLD) {
                agent.processes.reap();
            } else if !sys::is_init() {
                return Ok(());
            } else if signal == Ok(Signal::SIGTERM) {
                power_off(After::Restart);
            } else if signal != Ok(Signal::SIGINT) {
                power_off(After::Off);
            }
        }
    })
}

/// Brings the disk in order and ends the machine.
pub(crate) fn power_off(after: After) -> ! {
    nix::unistd::sync();
    let mode = match after {
        After::Off => RebootMode::RB_POWER_OFF,
        After::Restart => RebootMode::RB_AUTOBOOT,
    };
    let Err(error) = reboot(mode);
    complain(&format!("cannot power off: {error}"));
    // The end of PID 1 is a kernel panic, which the host sees too.
    std::process::exit(1)
}
