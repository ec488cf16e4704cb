//! The machine at rest, so that its memory and disk can be saved as of one moment, and its going on.
//!
//! ```text
//!  running ──quiesce──► user processes frozen ──► disk settled ──► root file system frozen: at rest
//!     ▲                                                                                       │
//!     └── user processes thawed ◄── clock, entropy, identity ◄── file system thawed ◄─────────┘
//! ```
//!
//! What was saved at rest wakes up at rest: no instruction of a user's process runs in a clone before
//! the clone has an identity of its own, nor in a resumed machine before its clock is right.
//!
//! The agent itself goes on all the time. While the file system is frozen a write to it would stop
//! the one thread that could thaw it, so calls that write wait here until the machine goes on.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sandbox_core::guest::GuestError;
use tokio::sync::{Mutex, watch};

use super::sys;

/// A process that waits for the disk takes no notice until it is done.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);
const POLL_MS: u16 = 2;

// From `linux/fs.h`.
const FIFREEZE: u64 = 0xc004_5877;
const FITHAW: u64 = 0xc004_5878;
const FITRIM: u64 = 0xc018_5879;

/// What is brought to rest.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// The cgroup of the user's processes, by a descriptor, since users may mount over its path.
    cgroup: Arc<OwnedFd>,
    root: Arc<File>,
}

impl Machine {
    pub(crate) fn new(cgroup: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            cgroup: cgroup.try_clone()?.into(),
            root: File::open("/")?.into(),
        })
    }
}

/// See the module.
pub(crate) struct Standstill {
    /// Absent where the agent owns no machine.
    machine: Option<Machine>,
    /// One comes to rest or goes on at a time.
    turn: Arc<Mutex<()>>,
    at_rest: Arc<watch::Sender<bool>>,
    /// Somebody wants it to go on: a coming to rest gives up.
    given_up: Arc<AtomicBool>,
}

impl Standstill {
    pub(crate) fn new(machine: Option<Machine>) -> Self {
        Self {
            machine,
            turn: Arc::default(),
            at_rest: Arc::new(watch::channel(false).0),
            given_up: Arc::default(),
        }
    }

    /// Whether the machine is the agent's to name and to set the clock of.
    pub(crate) fn owns_machine(&self) -> bool {
        self.machine.is_some()
    }

    /// Waits while the machine is at rest.
    pub(crate) async fn over(&self) {
        // The sender is ours.
        let _ = self.at_rest.subscribe().wait_for(|rest| !rest).await;
    }

    /// Brings the machine to rest. On failure it goes on.
    pub(crate) async fn begin(&self, trim: bool) -> Result<(), GuestError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        self.given_up.store(false, Ordering::Release);
        let Some(machine) = self.machine.clone() else {
            return on_thread(|| {
                nix::unistd::sync();
                Ok(())
            })
            .await;
        };
        self.at_rest.send_replace(true);
        let (at_rest, given_up) = (Arc::clone(&self.at_rest), Arc::clone(&self.given_up));
        to_the_end(async move {
            let _turn = turn;
            let done = on_thread(move || {
                machine.rest(trim, &given_up).inspect_err(|_| {
                    // What can't be undone here, waking undoes.
                    let _ = machine.thaw_disk();
                    let _ = machine.freeze(false);
                })
            })
            .await;
            if done.is_err() {
                at_rest.send_replace(false);
            }
            done
        })
        .await
    }

    /// Has the machine go on: first its disk, then `identify`, then the user's processes. Does no
    /// harm where it is not at rest.
    pub(crate) async fn end(
        &self,
        identify: impl FnOnce() -> Result<(), GuestError> + Send + 'static,
    ) -> Result<(), GuestError> {
        self.given_up.store(true, Ordering::Release);
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let resting = self.machine.clone().filter(|_| *self.at_rest.borrow());
        let Some(machine) = resting else {
            return identify();
        };
        let at_rest = Arc::clone(&self.at_rest);
        to_the_end(async move {
            let _turn = turn;
            let thawing = machine.clone();
            on_thread(move || thawing.thaw_disk()).await?;
            identify()?;
            machine
                .freeze(false)
                .map_err(|error| failed("thaw its processes", &error))?;
            at_rest.send_replace(false);
            Ok(())
        })
        .await
    }
}

/// Goes on with this when the caller has gone: a connection's end drops its calls.
async fn to_the_end(
    work: impl Future<Output = Result<(), GuestError>> + Send + 'static,
) -> Result<(), GuestError> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(GuestError::Invalid("standstill: the agent failed".into())))
}

impl Machine {
    fn rest(&self, trim: bool, given_up: &AtomicBool) -> io::Result<()> {
        let go_on = || match given_up.load(Ordering::Acquire) {
            true => Err(io::Error::from(io::ErrorKind::Interrupted)),
            false => Ok(()),
        };
        self.freeze(true)?;
        let until = Instant::now() + FREEZE_LIMIT;
        // One that does not get there in time waits in the kernel, and stops on its way out of it.
        while !self.is_frozen() && Instant::now() < until {
            go_on()?;
            sys::pause_ms(POLL_MS);
        }
        nix::unistd::sync();
        go_on()?;
        if trim {
            self.trim();
        }
        go_on()?;
        match ioctl(&self.root, FIFREEZE, 0) {
            // It is frozen already.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            other => other,
        }
    }

    fn thaw_disk(&self) -> io::Result<()> {
        match ioctl(&self.root, FITHAW, 0) {
            // It is not frozen.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Gives what the file system does not use back to the disk. A disk that takes nothing back is
    /// as good.
    fn trim(&self) {
        let range: [u64; 3] = [0, u64::MAX, 0];
        let _ = ioctl(&self.root, FITRIM, &raw const range as usize);
    }

    fn freeze(&self, frozen: bool) -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .open(self.file("cgroup.freeze"))?;
        file.write_all(if frozen { b"1" } else { b"0" })
    }

    fn is_frozen(&self) -> bool {
        let mut events = String::new();
        let read = File::open(self.file("cgroup.events"))
            .and_then(|mut file| file.read_to_string(&mut events));
        read.is_ok() && events.lines().any(|line| line == "frozen 1")
    }

    /// A file of the cgroup, reached through its descriptor.
    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.cgroup.as_raw_fd()))
    }
}

fn ioctl(file: &File, request: u64, argument: usize) -> io::Result<()> {
    // SAFETY: these requests take no argument, or the range that the one caller passes.
    if unsafe { libc::ioctl(file.as_raw_fd(), request as _, argument) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn failed(what: &str, error: &io::Error) -> GuestError {
    GuestError::Invalid(format!("standstill: cannot {what}: {error}"))
}

/// Runs on a thread of its own: those of the runtime's pool may all be waiting for the disk.
async fn on_thread(
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), GuestError> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            // Nobody waits any more where the call's connection has gone.
            let _ = done.send(work());
        })
        .map_err(|error| failed("start a thread", &error))?;
    match result.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed("freeze or thaw", &error)),
        Err(_) => Err(GuestError::Invalid("standstill: the agent failed".into())),
    }
}
