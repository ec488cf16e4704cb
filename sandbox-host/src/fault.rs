//! Places where tests make this process die, or a step fail. Without the feature `testkit` nothing
//! of it is there.

#![cfg_attr(
    not(feature = "testkit"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "tests alone use it from elsewhere"
    )
)]

/// Steps of a pause, in order. Any of them can fail up to the one before `PAUSED`.
pub const PAUSE: [&str; 7] = [
    "quiesced",
    "stopped",
    "devices saved",
    "memory saved",
    "saved",
    PAUSED,
    "process ended",
];
/// From here on it is paused.
pub const PAUSED: &str = "recorded paused";

/// Steps of a resume, in order. Any of them can fail up to the one before `RUNNING`.
pub const RESUME: [&str; 6] = [
    "launched",
    "memory filled",
    "devices loaded",
    RUNNING,
    "continued",
    "woken",
];
/// From here on it runs.
pub const RUNNING: &str = "recorded running";

/// Steps of a snapshot of a sandbox that runs on, in order. Any of them can fail up to the one
/// before `PUBLISHED`.
pub const SNAPSHOT: [&str; 9] = [
    "quiesced",
    "stopped",
    "devices saved",
    "memory saved",
    "disk copied",
    "went on",
    "image memory made",
    "image disk made",
    PUBLISHED,
];
/// From here on the image is there.
pub const PUBLISHED: &str = "published";

/// What happens at an armed place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies by `kill -9`: nothing is cleaned up.
    Kill,
    /// The step fails.
    Fail,
    /// The step fails for want of space.
    DiskFull,
}

/// Passes, unless a test has armed this place.
#[cfg(not(feature = "testkit"))]
#[expect(clippy::unnecessary_wraps, reason = "it fails in tests")]
pub(crate) const fn point(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// A place behind which there is no way back: a process can die there, and nothing can fail.
pub(crate) fn passed(name: &'static str) {
    if let Err(error) = point(name) {
        tracing::warn!(name, %error, "nothing fails here");
    }
}

#[cfg(feature = "testkit")]
pub use armed::arm;
#[cfg(feature = "testkit")]
pub(crate) use armed::point;

#[cfg(feature = "testkit")]
mod armed {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use super::Fault;

    static ARMED: Mutex<Option<(String, Fault)>> = Mutex::new(None);

    /// Has the next pass of this place fail; `None` disarms.
    pub fn arm(fault: Option<(&str, Fault)>) {
        let fault = fault.map(|(name, fault)| (name.to_owned(), fault));
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    pub(crate) fn point(name: &'static str) -> io::Result<()> {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, fault)) = armed.take_if(|(at, _)| at == name) else {
            return Ok(());
        };
        match fault {
            Fault::Kill => loop {
                // SIGKILL is not delivered late, so it is not sent twice.
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
            },
            Fault::Fail => Err(io::Error::other(format!("a test had it fail at `{name}`"))),
            Fault::DiskFull => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}
