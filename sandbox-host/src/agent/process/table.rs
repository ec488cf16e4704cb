//! All processes: starting, finding, reaping, forgetting.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use nix::{
    sys::{
        signal,
        wait::{WaitPidFlag, WaitStatus},
    },
    unistd::Pid,
};
use sandbox_core::{
    guest::GuestError,
    process::{
        ExitStatus, Output, OutputRequest, OutputStream, ProcessInfo, ProcessSpec, PtySize,
        Started, Stdin,
    },
};
use tokio::{io::unix::AsyncFd, task::AbortHandle};

use super::{
    entry::{Budget, Entry, Files, write_ready},
    output_log::OutputLog,
    spawn::{self, ChildStdio, OurEnd},
    terminal,
};
use crate::agent::sys;

/// Processes that may run at once.
const RUNNING_MAX: usize = 256;
/// Ended processes that are remembered.
const ENDED_MAX: usize = 64;
/// Output that ended processes may keep together, in bytes.
const ENDED_RETAIN_BYTES: u64 = 16 * 1024 * 1024;
/// Bound of one process's log, in bytes.
const RETAIN_MAX_BYTES: u32 = 64 * 1024 * 1024;
/// How long a write to stdin waits for the process to read.
const STDIN_WAIT: Duration = Duration::from_secs(1);
const REHEARSAL_WAIT: Duration = Duration::from_secs(10);
/// No wait is longer, whatever was asked for.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// See the module.
pub(crate) struct Processes {
    /// In the order in which they were started.
    entries: Mutex<Vec<Listed>>,
    budget: Arc<Budget>,
    /// Where children live, apart from the agent.
    cgroup: Option<OwnedFd>,
    null: OwnedFd,
}

struct Listed {
    entry: Arc<Entry>,
    timeout: Option<AbortHandle>,
}

impl Processes {
    pub(crate) fn new(cgroup: Option<OwnedFd>) -> std::io::Result<Self> {
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        let budget = (sys::memory_bytes() / 8).clamp(16 << 20, 512 << 20);
        Ok(Self {
            entries: Mutex::new(Vec::new()),
            budget: Arc::new(Budget::new(budget)),
            cgroup,
            null: null.into(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Listed>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process and waits for it as [`Guest::start_process`] says. No await stands between
    /// its start and its entry in the table, so the reaper can't come between.
    ///
    /// [`Guest::start_process`]: sandbox_core::guest::Guest::start_process
    pub(crate) async fn start(
        &self,
        spec: ProcessSpec,
        sandbox_env: &BTreeMap<String, String>,
        wait: Duration,
    ) -> Result<Started, GuestError> {
        let entry = self.start_now(spec, sandbox_env)?;
        let output = entry.first_output(wait.min(WAIT_MAX)).await;
        Ok(Started {
            pid: entry.pid,
            output,
        })
    }

    /// Starts a command that does nothing, and forgets it.
    pub(crate) async fn rehearse(&self, env: &BTreeMap<String, String>) -> Result<(), GuestError> {
        let started = self
            .start(ProcessSpec::shell("true"), env, REHEARSAL_WAIT)
            .await?;
        self.entries()
            .retain(|listed| listed.entry.pid != started.pid);
        Ok(())
    }

    fn start_now(
        &self,
        mut spec: ProcessSpec,
        sandbox_env: &BTreeMap<String, String>,
    ) -> Result<Arc<Entry>, GuestError> {
        let running = |listed: &&Listed| !listed.entry.is_reaped();
        if self.entries().iter().filter(running).count() >= RUNNING_MAX {
            return Err(GuestError::Limit {
                what: "running processes".into(),
                limit: RUNNING_MAX as u64,
            });
        }
        let command = spawn::display(&spec.command);
        let no_files = |error: std::io::Error| GuestError::Spawn {
            command: command.chars().take(256).collect(),
            problem: error.to_string(),
        };
        let (files, stdio, bytes) = self.open_files(&mut spec).map_err(no_files)?;
        let started = Instant::now();
        let pid = spawn::spawn(&spec, sandbox_env, &stdio, self.cgroup.as_ref())?;
        drop(stdio);
        if let (Some(input), Some(bytes)) = (files.input.clone(), bytes.clone()) {
            feed(input, bytes);
        }
        let files = Files {
            // What is fed from here is not the callers' to write to.
            input: files.input.filter(|_| bytes.is_none()),
            ..files
        };
        let log = OutputLog::new(spec.retain_bytes.min(RETAIN_MAX_BYTES), spec.when_full);
        let patience = spec
            .reader_patience_ms
            .map(|patience_ms| Duration::from_millis(patience_ms.into()));
        let budget = Arc::clone(&self.budget);
        let entry = Entry::new(pid, command, started, log, patience, files, budget);
        let timeout = spec.timeout_ms.map(|timeout_ms| {
            let entry = Arc::clone(&entry);
            let timeout = Duration::from_millis(timeout_ms);
            let task = tokio::spawn(async move {
                tokio::time::sleep(timeout).await;
                if !entry.is_reaped() {
                    entry.set_timed_out();
                    // Gone already is as good.
                    let _ = signal::killpg(raw_pid(entry.pid), signal::SIGKILL);
                }
            });
            task.abort_handle()
        });
        let mut entries = self.entries();
        // The kernel gives numbers again; the older process is forgotten then.
        if let Some(index) = entries.iter().position(|listed| listed.entry.pid == pid) {
            forget(&mut entries, index);
        }
        entries.push(Listed {
            entry: Arc::clone(&entry),
            timeout,
        });
        Ok(entry)
    }

    /// The agent's ends and the child's ends. Input given as bytes comes back on its own.
    fn open_files(
        &self,
        spec: &mut ProcessSpec,
    ) -> std::io::Result<(Files, ChildStdio, Option<Bytes>)> {
        let stdin = std::mem::take(&mut spec.stdin);
        if let Some(size) = spec.pty {
            let (master, slave) = terminal::open(size)?;
            let master = Arc::new(sys::watch(master)?);
            let files = Files {
                outputs: vec![(OutputStream::Stdout, Arc::clone(&master))],
                input: Some(master),
                pty: true,
            };
            // A terminal is open for writing whatever was asked for; given bytes are typed into it.
            if let Stdin::Bytes(bytes) = stdin
                && let Some(master) = &files.input
            {
                feed(Arc::clone(master), bytes);
            }
            return Ok((files, ChildStdio::Terminal(slave), None));
        }
        let (out, child_out) = spawn::pipe(OurEnd::Read)?;
        let (err, child_err) = spawn::pipe(OurEnd::Read)?;
        let (child_in, input) = match &stdin {
            Stdin::Null => (self.null.try_clone()?, None),
            Stdin::Bytes(_) | Stdin::Piped => {
                let (child_in, input) = spawn::pipe(OurEnd::Write)?;
                (child_in, Some(Arc::new(sys::watch(input)?)))
            }
        };
        let files = Files {
            outputs: vec![
                (OutputStream::Stdout, Arc::new(sys::watch(out)?)),
                (OutputStream::Stderr, Arc::new(sys::watch(err)?)),
            ],
            input,
            pty: false,
        };
        let bytes = match stdin {
            Stdin::Bytes(bytes) => Some(bytes),
            Stdin::Null | Stdin::Piped => None,
        };
        Ok((
            files,
            ChildStdio::Pipes([child_in, child_out, child_err]),
            bytes,
        ))
    }

    fn find(&self, pid: u32) -> Result<Arc<Entry>, GuestError> {
        self.entries()
            .iter()
            .rev()
            .find(|listed| listed.entry.pid == pid)
            .map(|listed| Arc::clone(&listed.entry))
            .ok_or(GuestError::NoSuchProcess { pid })
    }

    /// Takes every child that has ended, ours and those of processes that ended before them.
    pub(crate) fn reap(&self) {
        let (mut any, mut ended) = (false, false);
        loop {
            let status = match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(nix::Error::EINTR) => continue,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(status) => status,
            };
            any = true;
            let (pid, status) = match status {
                WaitStatus::Exited(pid, code) => (pid, ExitStatus::Code(code)),
                WaitStatus::Signaled(pid, signal, _) => (pid, ExitStatus::Signal(signal as i32)),
                _ => continue,
            };
            let entries = self.entries();
            let running = entries.iter().rev().find(|listed| {
                listed.entry.pid == pid.as_raw().cast_unsigned() && !listed.entry.is_reaped()
            });
            if let Some(listed) = running {
                if let Some(timeout) = &listed.timeout {
                    timeout.abort();
                }
                listed.entry.reaped(status, listed.entry.started.elapsed());
                ended = true;
            }
        }
        if any {
            for listed in self.entries().iter() {
                listed.entry.look_at_group();
            }
        }
        if ended {
            self.forget_oldest();
        }
    }

    /// Keeps the bounds on ended processes; those that were read out go first, the newest stays.
    fn forget_oldest(&self) {
        let mut entries = self.entries();
        loop {
            let ended: Vec<usize> = (0..entries.len())
                .filter(|index| entries[*index].entry.is_reaped())
                .collect();
            let retained: u64 = ended
                .iter()
                .map(|index| entries[*index].entry.retained_bytes())
                .sum();
            if ended.len() <= 1 || (ended.len() <= ENDED_MAX && retained <= ENDED_RETAIN_BYTES) {
                return;
            }
            let older = &ended[..ended.len() - 1];
            let victim = older
                .iter()
                .find(|index| entries[**index].entry.is_read_out())
                .unwrap_or(&older[0]);
            let victim = *victim;
            forget(&mut entries, victim);
        }
    }

    pub(crate) async fn read_output(
        &self,
        pid: u32,
        request: OutputRequest,
    ) -> Result<Output, GuestError> {
        self.find(pid)?.read_output(request).await
    }

    pub(crate) fn detach_output(&self, pid: u32) -> Result<(), GuestError> {
        self.find(pid)?.detach_output();
        Ok(())
    }

    pub(crate) async fn write_stdin(
        &self,
        pid: u32,
        data: &[u8],
        close: bool,
    ) -> Result<u64, GuestError> {
        self.find(pid)?.write_stdin(data, close, STDIN_WAIT).await
    }

    pub(crate) fn signal(&self, pid: u32, number: i32, group: bool) -> Result<(), GuestError> {
        let entry = self.find(pid)?;
        if !(1..=libc::SIGRTMAX()).contains(&number) {
            return Err(GuestError::Invalid(format!("{number} is not a signal")));
        }
        if group {
            entry.check_group()?;
        } else {
            entry.check_running()?;
        }
        let target = pid.cast_signed();
        // SAFETY: takes two numbers. (nix knows no real-time signals.)
        let result = unsafe { libc::kill(if group { -target } else { target }, number) };
        if result < 0 {
            return Err(GuestError::NotAttached {
                pid,
                problem: format!("took no signal: {}", std::io::Error::last_os_error()),
            });
        }
        Ok(())
    }

    pub(crate) fn resize_pty(&self, pid: u32, size: PtySize) -> Result<(), GuestError> {
        let terminal = self.find(pid)?.terminal()?;
        terminal::resize(terminal.get_ref(), size).map_err(|error| GuestError::NotAttached {
            pid,
            problem: format!("did not take the size: {error}"),
        })
    }

    pub(crate) fn list(&self) -> Vec<ProcessInfo> {
        self.entries()
            .iter()
            .map(|listed| listed.entry.info())
            .collect()
    }
}

fn forget(entries: &mut Vec<Listed>, index: usize) {
    // Nobody can read it any more, so whoever still writes to it must not wait for readers.
    entries.remove(index).entry.detach_output();
}

/// Writes all of these bytes, mostly at once, and closes.
fn feed(input: Arc<AsyncFd<OwnedFd>>, bytes: Bytes) {
    let at_once = nix::unistd::write(input.get_ref(), &bytes).unwrap_or(0);
    if at_once == bytes.len() {
        return;
    }
    tokio::spawn(async move {
        let mut left = &bytes[at_once..];
        while !left.is_empty() {
            match write_ready(&input, left).await {
                Ok(count) => left = &left[count..],
                // The process reads no more.
                Err(_) => return,
            }
        }
    });
}

fn raw_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}
