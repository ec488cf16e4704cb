//! Places where tests make this process die, or a step fail. Without the feature `testkit` nothing
//! of it is there. With it, a place that stands in none of the lists below fails the test that
//! passes it: tests go through the lists.

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

/// Steps of an image made of the disk alone of a sandbox that runs on, in order. Any of them can
/// fail up to the one before `PUBLISHED`.
pub const FLATTEN: [&str; 13] = [
    "quiesced",
    "stopped",
    "disk copied",
    "went on",
    // As the plan in `sandbox_core::flatten` calls them.
    "copying the disk",
    "checking the disk",
    "renewing the disk's journal",
    "shrinking the disk",
    "trimming the disk",
    "verifying the disk",
    "publishing the disk",
    "image disk made",
    PUBLISHED,
];

/// Steps of giving an image another size, in order. Any of them can fail.
pub const GROWTH: [&str; 3] = ["image copied", "image grown", "image size synced"];

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
pub(crate) use armed::point;
#[cfg(feature = "testkit")]
pub use armed::{KILL_FILE, arm, arm_work};

#[cfg(feature = "testkit")]
mod armed {
    use std::{
        io,
        path::PathBuf,
        sync::{LazyLock, Mutex, PoisonError},
    };

    use super::{FLATTEN, Fault, GROWTH, PAUSE, RESUME, SNAPSHOT};

    /// The environment variable that names a file, which names the place where this process dies
    /// next. Its death takes the file away.
    pub const KILL_FILE: &str = "SANDBOX_TEST_KILL_FILE";

    enum Work {
        Fault(Fault),
        Other(Box<dyn FnOnce() + Send>),
    }

    static ARMED: Mutex<Option<(String, Work)>> = Mutex::new(None);
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os(KILL_FILE).map(PathBuf::from));

    /// Has the next pass of this place fail; `None` disarms.
    pub fn arm(fault: Option<(&str, Fault)>) {
        set(fault.map(|(name, fault)| (name.to_owned(), Work::Fault(fault))));
    }

    /// Has the next pass of this place do this first, such as filling a disk up.
    pub fn arm_work(name: &str, work: impl FnOnce() + Send + 'static) {
        set(Some((name.to_owned(), Work::Other(Box::new(work)))));
    }

    fn set(armed: Option<(String, Work)>) {
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = armed;
    }

    pub(crate) fn point(name: &'static str) -> io::Result<()> {
        let lists: [&[&str]; 5] = [&PAUSE, &RESUME, &SNAPSHOT, &FLATTEN, &GROWTH];
        let is_listed = lists.iter().any(|list| list.contains(&name));
        assert!(is_listed, "`{name}` is in no list of steps");
        if let Some(file) = FILE.as_deref()
            && std::fs::read_to_string(file).is_ok_and(|place| place == name)
        {
            std::fs::remove_file(file)?;
            die();
        }
        let armed = {
            let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
            armed.take_if(|(at, _)| at == name)
        };
        match armed.map(|(_, work)| work) {
            None => Ok(()),
            Some(Work::Other(work)) => {
                work();
                Ok(())
            }
            Some(Work::Fault(Fault::Kill)) => die(),
            Some(Work::Fault(Fault::Fail)) => {
                Err(io::Error::other(format!("a test had it fail at `{name}`")))
            }
            Some(Work::Fault(Fault::DiskFull)) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn die() -> ! {
        loop {
            // SIGKILL is not delivered late, so it is not sent twice.
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }
}
