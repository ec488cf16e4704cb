//! Starting a QEMU process that belongs to nobody, and holding on to one that runs.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sandbox_core::host::HostError;
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, Command},
    time::timeout,
};

use super::args::{GUEST_SOCKET, LOG_FILE, MachineConfig, QMP_SOCKET, SocketFds, command_line};
use crate::folder::SocketFolder;

const END_FOLLOWS_WITHIN: Duration = Duration::from_millis(200);
/// A killed process is gone in milliseconds, unless it hangs in a write to a dead disk.
const KILL_LIMIT: Duration = Duration::from_secs(8);

/// A running QEMU, held by a descriptor that can't come to mean another process.
#[derive(Debug)]
pub(crate) struct MachineProcess {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// Only for its being reaped, where this process started it.
    _child: Option<Child>,
}

impl MachineProcess {
    fn open(pid: Pid, child: Option<Child>) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: the `OwnedFd` moves into the `AsyncFd`, which keeps it open and unchanged for as
        // long as it is registered.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? };
        Ok(Self {
            pid,
            pidfd,
            _child: child,
        })
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns when the process has ended.
    pub(crate) async fn ended(&self) {
        // A pidfd becomes readable at the end of its process and stays so.
        let _ = self.pidfd.readable().await;
    }

    /// What QEMU said when it ended, in place of an error that is only a consequence of that. A
    /// closed connection is noticed a moment before the end of the process behind it.
    pub(crate) async fn own_words_or(&self, folder: &Path, error: HostError) -> HostError {
        match timeout(END_FOLLOWS_WITHIN, self.ended()).await {
            Ok(()) => HostError::Boot(format!("QEMU ended: {}", last_words(folder))),
            Err(_) => error,
        }
    }

    /// Ends the process without waiting.
    pub(crate) fn kill_now(&self) {
        // It fails where the process is gone already.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// Ends the process and waits until it is gone.
    pub(crate) async fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        timeout(KILL_LIMIT, self.ended())
            .await
            .map_err(|_| io::Error::other(format!("process {} does not end", self.pid())))
    }
}

/// Starts QEMU in `folder`, with its sockets there and listening already. `inherited` stays open in
/// it under the same number. Whether it comes up shows when it answers, or ends.
pub(crate) fn launch(
    qemu: &Path,
    folder: &Path,
    config: &MachineConfig,
    inherited: Option<&File>,
) -> io::Result<MachineProcess> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(LOG_FILE))?;
    let sockets = SocketFolder::open(folder)?;
    let qmp = UnixListener::bind(sockets.path(QMP_SOCKET))?;
    let guest = UnixListener::bind(sockets.path(GUEST_SOCKET))?;
    let fds = SocketFds {
        qmp: qmp.as_raw_fd(),
        guest: guest.as_raw_fd(),
    };
    let kept = [
        Some(fds.qmp),
        Some(fds.guest),
        inherited.map(AsRawFd::as_raw_fd),
    ];
    let mut command = Command::new(qemu);
    command
        .args(command_line(config, fds))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // SAFETY: setsid and fcntl are async-signal-safe, and the descriptors outlive the spawn.
    unsafe {
        command.pre_exec(move || {
            // A session of its own: no terminal's signals reach it.
            if libc::setsid() == -1 {
                return Err(io::Error::last_os_error());
            }
            // Where the kernel lets a process's memory be read by its ancestors alone (Yama), the
            // next process of this host, whose child it is not, must read it too. Still nobody but
            // the same user may. Without Yama it is refused, and not needed.
            libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0);
            for fd in kept.into_iter().flatten() {
                if libc::fcntl(fd, libc::F_SETFD, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("QEMU has no process ID"))?;
    MachineProcess::open(pid, Some(child))
}

/// What QEMU wrote to its log last, on one line.
fn last_words(folder: &Path) -> String {
    let log = std::fs::read(folder.join(LOG_FILE)).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    text.lines()
        .next_back()
        .unwrap_or("it said nothing")
        .to_owned()
}

/// Finds the QEMU that runs in a machine's folder under the name `name`, by looking at all
/// processes: right also when the process died, or its number went to another one, or the host
/// was killed before it could note the number.
pub(crate) fn find_in_folder(folder: &Path, name: &str) -> io::Result<Option<MachineProcess>> {
    Ok(find_all(folder, |found| found == name.as_bytes(), 1)?.pop())
}

/// Ends every QEMU that runs somewhere below a folder under a name with this prefix.
pub(crate) async fn kill_all_in_folder(folder: &Path, prefix: &str) -> io::Result<()> {
    for process in find_all(
        folder,
        |found| found.starts_with(prefix.as_bytes()),
        usize::MAX,
    )? {
        process.kill().await?;
    }
    Ok(())
}

fn find_all(
    folder: &Path,
    is_name: impl Fn(&[u8]) -> bool,
    most: usize,
) -> io::Result<Vec<MachineProcess>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|text| text.parse().ok())
        else {
            continue;
        };
        let Some(pid) = Pid::from_raw(pid) else {
            continue;
        };
        if found.len() == most {
            break;
        }
        if !is_ours(&entry.path(), folder, &is_name) {
            continue;
        }
        // Looked at again once it is held: the number may have gone to another process meanwhile.
        let Ok(process) = MachineProcess::open(pid, None) else {
            continue;
        };
        if is_ours(&entry.path(), folder, &is_name) {
            found.push(process);
        }
    }
    Ok(found)
}

fn is_ours(proc_entry: &Path, folder: &Path, is_name: &impl Fn(&[u8]) -> bool) -> bool {
    let Ok(command_line) = std::fs::read(proc_entry.join("cmdline")) else {
        return false;
    };
    let mut words = command_line.split(|byte| *byte == 0);
    let named = words.any(|word| word == b"-name") && words.next().is_some_and(is_name);
    // The name holds a UUID; the folder tells apart copies of one data folder.
    named && same_folder(proc_entry, folder)
}

/// QEMU's disk and log are open files in its folder.
fn same_folder(proc_entry: &Path, folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(proc_entry.join("fd")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target: PathBuf| target.starts_with(folder))
    })
}
