//! A simulated guest: scripted processes and a file tree in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    files::Files,
    memory::Memory,
    process::{Log, SimProcess},
    script::{self, Step, Surroundings},
};
use crate::{
    clock::{Clock, Timestamp},
    file::{DirPage, FileChunk, FileStat, WriteHandle, WriteSpec},
    guest::{CallError, Guest, GuestError},
    process::{
        CHUNK_MAX_BYTES, Command, ExitStatus, Output, OutputRequest, ProcessInfo, ProcessSpec,
        PtySize, Started, Stdin,
    },
};

/// The room in a simulated pipe, in bytes.
const PIPE_BYTES: usize = 64 * 1024;
/// The highest number of a signal.
const SIGNAL_MAX: i32 = 64;
/// Signals that a process does not die of.
const HARMLESS_SIGNALS: [i32; 4] = [17, 18, 23, 28];

/// A guest whose processes are scripts and whose files are in memory.
///
/// It understands `echo`, `cat`, `printenv`, `sleep`, `spew BYTES`, `head -c BYTES /dev/zero`,
/// `true`, `false` and `exit`, in shell lines apart by `;`, and variables there. Time passes for it
/// as the clock says; nothing runs in between.
pub struct SimGuest {
    clock: Arc<dyn Clock>,
    env: BTreeMap<String, String>,
    state: Mutex<State>,
    time: Mutex<GuestTime>,
    changed: Notify,
}

/// The time that a guest's processes know: it stands still while the guest does.
#[derive(Debug, Clone, Copy, Default)]
struct GuestTime {
    still_since: Option<Timestamp>,
    /// By how much it is behind.
    missed: chrono::TimeDelta,
}

struct State {
    processes: BTreeMap<u32, SimProcess>,
    next_pid: u32,
    files: Files,
    memory: Memory,
}

struct Around<'a> {
    files: &'a Files,
    memory: &'a Memory,
    env: [&'a BTreeMap<String, String>; 2],
}

impl Surroundings for Around<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.env.iter().find_map(|env| env.get(name)).cloned()
    }

    fn content(&self, path: &str) -> Option<Bytes> {
        self.files.content(path)
    }

    fn page(&self, number: u32) -> u64 {
        self.memory.peek(number)
    }
}

impl SimGuest {
    /// A fresh guest with these environment variables.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, env: BTreeMap<String, String>) -> Self {
        let files = Files::new(clock.now());
        Self {
            clock,
            env,
            state: Mutex::new(State {
                processes: BTreeMap::new(),
                next_pid: 100,
                files,
                memory: Memory::default(),
            }),
            time: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A guest with the same files and, from memory, the same processes, that stands still.
    pub(super) fn fork(&self, env: BTreeMap<String, String>, with_memory: bool) -> Self {
        let (processes, next_pid, files, memory) = {
            let state = self.lock();
            let (processes, memory) = if with_memory {
                (state.processes.clone(), state.memory.clone())
            } else {
                (BTreeMap::new(), Memory::default())
            };
            (processes, state.next_pid, state.files.clone(), memory)
        };
        let mut time = *self.lock_time();
        time.still_since.get_or_insert(self.clock.now());
        Self {
            clock: Arc::clone(&self.clock),
            env,
            state: Mutex::new(State {
                processes,
                next_pid,
                files,
                memory,
            }),
            time: Mutex::new(time),
            changed: Notify::new(),
        }
    }

    /// Its processes and their time stop; its memory is saved.
    pub(super) fn stand_still(&self) {
        let now = self.clock.now();
        self.lock().memory.save();
        self.lock_time().still_since.get_or_insert(now);
    }

    /// They go on.
    pub(super) fn go_on(&self) {
        let now = self.clock.now();
        let mut time = self.lock_time();
        if let Some(since) = time.still_since.take() {
            time.missed += now - since;
        }
    }

    fn lock_time(&self) -> MutexGuard<'_, GuestTime> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        let time = *self.lock_time();
        time.still_since.unwrap_or_else(|| self.clock.now()) - time.missed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        for process in state.processes.values_mut() {
            process.catch_up(now);
        }
        state
    }

    fn with_process<T>(
        &self,
        pid: u32,
        act: impl FnOnce(&mut SimProcess, Timestamp) -> Result<T, GuestError>,
    ) -> Result<T, CallError> {
        let mut state = self.lock();
        let process = state
            .processes
            .get_mut(&pid)
            .ok_or(GuestError::NoSuchProcess { pid })?;
        let now = self.now();
        let done = act(process, now)?;
        process.catch_up(now);
        drop(state);
        self.changed.notify_waiters();
        Ok(done)
    }

    /// Waits until a reader's question has an answer or its time is up.
    async fn wait_for(
        &self,
        wait: Duration,
        mut look: impl FnMut(&mut State) -> Result<(Output, bool), GuestError>,
        pid: u32,
    ) -> Result<Output, CallError> {
        let until = Timestamp::checked_add_signed(
            self.now(),
            chrono::TimeDelta::from_std(wait).unwrap_or_default(),
        )
        .unwrap_or(Timestamp::MAX_UTC);
        loop {
            let changed = self.changed.notified();
            let (output, enough, due) = {
                let mut state = self.lock();
                let (output, enough) = look(&mut state)?;
                let process = state.processes.get(&pid);
                let due = process.and_then(|process| process.due_at(self.now()));
                (output, enough, due)
            };
            let now = self.now();
            if enough || now >= until {
                return Ok(output);
            }
            let next = due.map_or(until, |due| due.min(until));
            let pause = (next - now).to_std().unwrap_or_default();
            tokio::select! {
                biased;
                () = changed => {}
                () = self.clock.sleep(pause.max(Duration::from_millis(1))) => {}
            }
        }
    }
}

fn described(command: &Command) -> String {
    match command {
        Command::Shell(line) => line.clone(),
        Command::Program { program, args } => {
            let mut text = program.clone();
            for arg in args {
                text.push(' ');
                text.push_str(arg);
            }
            text
        }
    }
}

#[async_trait]
impl Guest for SimGuest {
    async fn ping(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn start_process(&self, spec: ProcessSpec, wait: Duration) -> Result<Started, CallError> {
        let pid = {
            let mut state = self.lock();
            let around = Around {
                files: &state.files,
                memory: &state.memory,
                env: [&spec.env, &self.env],
            };
            let mut steps = script::parse(&spec.command, &around)?;
            steps.retain(|step| match step {
                Step::Poke(page, value) => {
                    state.memory.poke(*page, *value);
                    false
                }
                _ => true,
            });
            let now = self.now();
            let mut process = SimProcess::new(
                described(&spec.command),
                steps,
                Log::new(&spec, now),
                spec.timeout_ms.map(Duration::from_millis),
                now,
            );
            process.pty = spec.pty;
            match spec.stdin {
                Stdin::Null => {}
                Stdin::Bytes(bytes) => {
                    process.stdin = Some(bytes.into_iter().collect());
                    process.close_stdin();
                }
                Stdin::Piped => process.stdin = Some(std::collections::VecDeque::new()),
            }
            process.catch_up(now);
            let pid = state.next_pid;
            state.next_pid += 1;
            state.processes.insert(pid, process);
            pid
        };
        let look = |state: &mut State| {
            let process = state.processes.get_mut(&pid);
            let process = process.ok_or(GuestError::NoSuchProcess { pid })?;
            process.log.attend(self.now());
            let output = process.read(0, u64::from(CHUNK_MAX_BYTES));
            let enough = process.exit.is_some()
                || process.log.is_full()
                || output.next_offset >= u64::from(CHUNK_MAX_BYTES);
            Ok((output, enough))
        };
        let output = self.wait_for(wait, look, pid).await?;
        Ok(Started { pid, output })
    }

    async fn read_output(&self, pid: u32, request: OutputRequest) -> Result<Output, CallError> {
        let max_bytes = u64::from(request.max_bytes.min(CHUNK_MAX_BYTES));
        let wait = Duration::from_millis(u64::from(request.wait_ms));
        let look = |state: &mut State| {
            let process = state.processes.get_mut(&pid);
            let process = process.ok_or(GuestError::NoSuchProcess { pid })?;
            if request.offset > process.log.end() {
                return Err(GuestError::Invalid(format!(
                    "offset {} is behind the end of the output, {}",
                    request.offset,
                    process.log.end()
                )));
            }
            process.log.attend(self.now());
            process.log.taken_until(request.offset);
            process.catch_up(self.now());
            let output = process.read(request.offset, max_bytes);
            let enough =
                !output.chunks.is_empty() || output.exit.is_some() || output.dropped_bytes > 0;
            Ok((output, enough))
        };
        self.wait_for(wait, look, pid).await
    }

    async fn detach_output(&self, pid: u32) -> Result<(), CallError> {
        self.with_process(pid, |process, _| {
            process.log.detach();
            Ok(())
        })
    }

    async fn write_stdin(&self, pid: u32, data: Bytes, close: bool) -> Result<u64, CallError> {
        self.with_process(pid, |process, _| {
            process.check_running(pid)?;
            let Some(stdin) = &mut process.stdin else {
                return Err(GuestError::NotAttached {
                    pid,
                    problem: "has no open stdin".to_owned(),
                });
            };
            let taken = PIPE_BYTES.saturating_sub(stdin.len()).min(data.len());
            stdin.extend(&data[..taken]);
            if close && taken == data.len() {
                process.close_stdin();
            }
            Ok(taken as u64)
        })
    }

    async fn signal(&self, pid: u32, signal: i32, _group: bool) -> Result<(), CallError> {
        self.with_process(pid, |process, now| {
            if !(1..=SIGNAL_MAX).contains(&signal) {
                return Err(GuestError::Invalid(format!("{signal} is not a signal")));
            }
            process.check_running(pid)?;
            if !HARMLESS_SIGNALS.contains(&signal) {
                process.kill(ExitStatus::Signal(signal), false, now);
            }
            Ok(())
        })
    }

    async fn resize_pty(&self, pid: u32, size: PtySize) -> Result<(), CallError> {
        self.with_process(pid, |process, _| match &mut process.pty {
            Some(pty) => {
                *pty = size;
                Ok(())
            }
            None => Err(GuestError::NotAttached {
                pid,
                problem: "has no terminal".to_owned(),
            }),
        })
    }

    async fn processes(&self) -> Result<Vec<ProcessInfo>, CallError> {
        let now = self.now();
        let state = self.lock();
        let info = |(pid, process): (&u32, &SimProcess)| {
            let age = (now - process.started_at).num_milliseconds();
            ProcessInfo {
                pid: *pid,
                command: process.command.clone(),
                pty: process.pty.is_some(),
                age_ms: process.exit.map_or_else(
                    || u64::try_from(age).unwrap_or_default(),
                    |exit| exit.duration_us / 1000,
                ),
                output_start: process.log.start(),
                output_end: process.log.end(),
                exit: process.exit,
            }
        };
        Ok(state.processes.iter().map(info).collect())
    }

    async fn stat(&self, path: &str) -> Result<FileStat, CallError> {
        Ok(self.lock().files.stat(path)?)
    }

    async fn list_dir(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<DirPage, CallError> {
        Ok(self.lock().files.list(path, after, limit)?)
    }

    async fn read_file(
        &self,
        path: &str,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk, CallError> {
        Ok(self.lock().files.read(path, offset, max_bytes)?)
    }

    async fn open_write(&self, spec: WriteSpec) -> Result<WriteHandle, CallError> {
        Ok(self.lock().files.open_write(spec, self.clock.now())?)
    }

    async fn write_chunk(
        &self,
        handle: WriteHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), CallError> {
        Ok(self.lock().files.write_chunk(handle, offset, &data)?)
    }

    async fn commit_write(&self, handle: WriteHandle, size: u64) -> Result<FileStat, CallError> {
        Ok(self.lock().files.commit(handle, size, self.clock.now())?)
    }

    async fn abort_write(&self, handle: WriteHandle) -> Result<(), CallError> {
        Ok(self.lock().files.abort(handle)?)
    }

    async fn make_dir(&self, path: &str, mode: u32, parents: bool) -> Result<(), CallError> {
        let now = self.clock.now();
        Ok(self.lock().files.make_dir(path, mode, parents, now)?)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), CallError> {
        Ok(self.lock().files.rename(from, to)?)
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<(), CallError> {
        Ok(self.lock().files.remove(path, recursive)?)
    }
}
