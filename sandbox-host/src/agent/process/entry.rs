//! One process, from its start until it is forgotten.
//!
//! ```text
//! running ──reaped──► draining what its pipes hold ──► ended (exit is visible)
//!                       │ waits only where the log is full, has `WhenFull::Wait` and is attended
//! children of an ended process can be signalled while its process group has any
//! pipes stay open past the end while other processes hold them; what comes is still logged
//! ```

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{sys::signal, unistd::Pid};
use sandbox_core::{
    guest::GuestError,
    process::{
        CHUNK_MAX_BYTES, Exit, ExitStatus, Output, OutputRequest, OutputStream, ProcessInfo,
    },
};
use tokio::{io::unix::AsyncFd, sync::Notify};

use super::{attendance::Attendance, output_log::OutputLog};
use crate::agent::sys;

/// Read from a pipe at once; what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// A terminal can't say how much it holds; it is less than this.
const TERMINAL_HOLDS_BYTES: u64 = 256 * 1024;

/// Output kept for all processes together, and its bound.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            limit,
        }
    }

    fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    fn changed(&self, before: u64, after: u64) {
        // Wraps around for a decrease, which is what subtracting means.
        self.used
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

pub(crate) struct Entry {
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) started: Instant,
    state: Mutex<State>,
    /// There is more output, or the end.
    changed: Notify,
    /// There is room in the log.
    room: Notify,
    budget: Arc<Budget>,
    pty: bool,
}

struct State {
    log: OutputLog,
    attendance: Attendance,
    sources: [Option<Source>; 2],
    /// Where input goes: a pipe, or the terminal.
    input: Option<Arc<AsyncFd<OwnedFd>>>,
    timed_out: bool,
    exit: Option<Exit>,
    /// Where the log ended when all that the process wrote itself was in it.
    exit_at: Option<u64>,
    /// A reader has been given the end.
    read_out: bool,
    /// Its process group was seen to be empty. Until then the kernel gives the group's number to no
    /// other process.
    group_gone: bool,
}

struct Source {
    file: Arc<AsyncFd<OwnedFd>>,
    stream: OutputStream,
    /// Once the process has ended: how much of what it left is still to be read.
    left_behind_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadStep {
    Read,
    Blocked,
    NoRoom,
    End,
}

/// A reader whose question is not yet answered, however that comes about.
struct Reading<'entry>(&'entry Entry);

impl<'entry> Reading<'entry> {
    fn begin(entry: &'entry Entry) -> Self {
        entry.state().attendance.arrive();
        Self(entry)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.state().attendance.leave(Instant::now());
    }
}

/// The open files of a new process.
pub(crate) struct Files {
    pub(crate) outputs: Vec<(OutputStream, Arc<AsyncFd<OwnedFd>>)>,
    pub(crate) input: Option<Arc<AsyncFd<OwnedFd>>>,
    pub(crate) pty: bool,
}

impl Entry {
    pub(crate) fn new(
        pid: u32,
        command: String,
        started: Instant,
        log: OutputLog,
        reader_patience: Option<Duration>,
        files: Files,
        budget: Arc<Budget>,
    ) -> Arc<Self> {
        let mut outputs = files.outputs.into_iter().map(|(stream, file)| Source {
            file,
            stream,
            left_behind_bytes: None,
        });
        let entry = Arc::new(Self {
            pid,
            command,
            started,
            state: Mutex::new(State {
                log,
                attendance: Attendance::new(reader_patience, started),
                sources: [outputs.next(), outputs.next()],
                input: files.input,
                timed_out: false,
                exit: None,
                exit_at: None,
                read_out: false,
                group_gone: false,
            }),
            changed: Notify::new(),
            room: Notify::new(),
            budget,
            pty: files.pty,
        });
        for index in 0..2 {
            if let Some(file) = entry.source_file(index) {
                tokio::spawn(Arc::clone(&entry).pump(index, file));
            }
        }
        entry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source_file(&self, index: usize) -> Option<Arc<AsyncFd<OwnedFd>>> {
        self.state().sources[index]
            .as_ref()
            .map(|source| Arc::clone(&source.file))
    }

    /// Brings one output into the log until its end.
    async fn pump(self: Arc<Self>, index: usize, file: Arc<AsyncFd<OwnedFd>>) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            // Readiness is taken before the read that may clear it.
            let Ok(mut ready) = file.readable().await else {
                return;
            };
            match self.read_step(index) {
                ReadStep::Read => tokio::task::yield_now().await,
                ReadStep::Blocked => ready.clear_ready(),
                ReadStep::NoRoom => self.wait_for_room(room).await,
                ReadStep::End => return,
            }
        }
    }

    /// Until there is room, or readers have stayed away for too long.
    async fn wait_for_room(&self, room: impl Future<Output = ()>) {
        let patience = self.state().attendance.left(Instant::now());
        match patience {
            None => room.await,
            // Which of the two it was shows in the state.
            Some(left) => drop(tokio::time::timeout(left, room).await),
        }
    }

    /// Reads once from one output, without waiting.
    fn read_step(&self, index: usize) -> ReadStep {
        let mut state = self.state();
        let step = self.read_into(&mut state, index);
        if step != ReadStep::NoRoom {
            state.notice_drained();
        }
        drop(state);
        if step != ReadStep::Blocked {
            self.changed.notify_waiters();
        }
        step
    }

    fn read_into(&self, state: &mut State, index: usize) -> ReadStep {
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> =
                std::cell::RefCell::new(vec![0; READ_BYTES]);
        }
        let State {
            log,
            attendance,
            sources,
            ..
        } = state;
        let Some(source) = &mut sources[index] else {
            return ReadStep::End;
        };
        let attended = attendance.is_attended(Instant::now());
        let mut room = log.room(attended);
        if room != u64::MAX {
            // Waiting logs share what is left, but each always moves.
            room = room.min(self.budget.free().max(1024u64.saturating_sub(log.len())));
        }
        if room == 0 {
            return ReadStep::NoRoom;
        }
        let wanted = usize::try_from(room).unwrap_or(usize::MAX).min(READ_BYTES);
        let read = BUFFER.with_borrow_mut(|buffer| {
            let count = nix::unistd::read(source.file.get_ref(), &mut buffer[..wanted])?;
            let before = log.len();
            log.append(source.stream, &buffer[..count]);
            if log.room(attended) == u64::MAX {
                let grown = log.len().saturating_sub(before);
                let excess = grown.saturating_sub(self.budget.free());
                log.shrink_to(log.len() - excess);
            }
            self.budget.changed(before, log.len());
            Ok(count)
        });
        match read {
            Ok(count) if count > 0 => {
                if let Some(left) = &mut source.left_behind_bytes {
                    *left = left.saturating_sub(count as u64);
                }
                ReadStep::Read
            }
            Err(nix::Error::EINTR) => ReadStep::Read,
            Err(nix::Error::EAGAIN) => {
                if let Some(left) = &mut source.left_behind_bytes {
                    *left = 0;
                }
                ReadStep::Blocked
            }
            // The end, which a terminal calls EIO: nobody has it open any more.
            Ok(_) | Err(_) => {
                sources[index] = None;
                ReadStep::End
            }
        }
    }

    /// The process is over. Takes what it left in its pipes, after which its end shows.
    pub(crate) fn reaped(&self, status: ExitStatus, duration: Duration) {
        let mut state = self.state();
        state.exit = Some(Exit {
            status,
            timed_out: state.timed_out && status == ExitStatus::Signal(libc::SIGKILL),
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        });
        state.input = None;
        for index in 0..2 {
            if let Some(source) = &mut state.sources[index] {
                source.left_behind_bytes = Some(if self.pty {
                    TERMINAL_HOLDS_BYTES
                } else {
                    sys::readable_bytes(source.file.get_ref())
                });
            }
            // At an empty pipe this finds out whether anyone else has it open.
            loop {
                let step = self.read_into(&mut state, index);
                let left = state.sources[index]
                    .as_ref()
                    .and_then(|source| source.left_behind_bytes);
                if step != ReadStep::Read || left.is_none_or(|left| left == 0) {
                    break;
                }
            }
        }
        state.notice_drained();
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_reaped(&self) -> bool {
        self.state().exit.is_some()
    }

    /// Whether a reader has been given its end.
    pub(crate) fn is_read_out(&self) -> bool {
        let state = self.state();
        state.read_out
    }

    pub(crate) fn retained_bytes(&self) -> u64 {
        self.state().log.len()
    }

    pub(crate) fn set_timed_out(&self) {
        self.state().timed_out = true;
    }

    /// Waits up to `wait` for the end or a full first piece.
    pub(crate) async fn first_output(&self, wait: Duration) -> Output {
        let _reading = Reading::begin(self);
        let enough = |state: &State| {
            state.exit_at.is_some()
                || state.log.end() >= u64::from(CHUNK_MAX_BYTES)
                || state.log.room(true) == 0
        };
        self.wait_until(wait, enough).await;
        // Offset 0 is never behind the end.
        self.state()
            .output(0, CHUNK_MAX_BYTES as usize)
            .unwrap_or_default()
    }

    pub(crate) async fn read_output(&self, request: OutputRequest) -> Result<Output, GuestError> {
        let max_bytes = request.max_bytes.min(CHUNK_MAX_BYTES) as usize;
        let _reading = Reading::begin(self);
        {
            let mut state = self.state();
            if request.offset > state.log.end() {
                return Err(GuestError::Invalid(format!(
                    "offset {} is behind the end of the output, {}",
                    request.offset,
                    state.log.end()
                )));
            }
            let before = state.log.len();
            state.log.acknowledge(request.offset);
            self.budget.changed(before, state.log.len());
        }
        self.room.notify_waiters();
        let something = |state: &State| {
            state.log.end() > request.offset || state.exit_at.is_some_and(|at| request.offset >= at)
        };
        self.wait_until(Duration::from_millis(request.wait_ms.into()), something)
            .await;
        self.state()
            .output(request.offset, max_bytes)
            .ok_or_else(|| GuestError::Invalid("offset behind the end of the output".into()))
    }

    async fn wait_until(&self, wait: Duration, done: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(&self.state()) {
                    return;
                }
                changed.await;
            }
        };
        if wait.is_zero() {
            return;
        }
        // Whether it is done or time is up shows in the state.
        let _ = tokio::time::timeout(wait, waiting).await;
    }

    pub(crate) fn detach_output(&self) {
        self.state().log.detach();
        self.room.notify_waiters();
    }

    fn ended(&self) -> GuestError {
        self.not_attached("has ended")
    }

    fn not_attached(&self, problem: &str) -> GuestError {
        GuestError::NotAttached {
            pid: self.pid,
            problem: problem.into(),
        }
    }

    /// The file that takes input.
    pub(crate) fn input(&self) -> Result<Arc<AsyncFd<OwnedFd>>, GuestError> {
        let state = self.state();
        if state.exit.is_some() {
            return Err(self.ended());
        }
        state
            .input
            .clone()
            .ok_or_else(|| self.not_attached("has no open stdin"))
    }

    /// Writes for at most `wait`; returns what was taken.
    pub(crate) async fn write_stdin(
        &self,
        data: &[u8],
        close: bool,
        wait: Duration,
    ) -> Result<u64, GuestError> {
        let input = self.input()?;
        let mut taken = 0;
        let writing = async {
            while taken < data.len() {
                match write_ready(&input, &data[taken..]).await {
                    Ok(count) => taken += count,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        match tokio::time::timeout(wait, writing).await {
            Ok(Err(_)) => {
                self.close_input();
                return Err(self.not_attached("has no open stdin"));
            }
            // Not all of it: the rest, and the closing, is for another call.
            Err(_) => return Ok(taken as u64),
            Ok(Ok(())) => {}
        }
        if close {
            if self.pty {
                const END_OF_TRANSMISSION: &[u8] = &[4];
                // A terminal that takes nothing now gets its end with the process's.
                let _ = nix::unistd::write(input.get_ref(), END_OF_TRANSMISSION);
            } else {
                self.close_input();
            }
        }
        Ok(taken as u64)
    }

    fn close_input(&self) {
        self.state().input = None;
    }

    /// The terminal's master side.
    pub(crate) fn terminal(&self) -> Result<Arc<AsyncFd<OwnedFd>>, GuestError> {
        if !self.pty {
            return Err(self.not_attached("has no terminal"));
        }
        self.input()
    }

    /// Fails where the process has ended and its number may be another's.
    pub(crate) fn check_running(&self) -> Result<(), GuestError> {
        if self.is_reaped() {
            return Err(self.ended());
        }
        Ok(())
    }

    /// Fails where all of the process group has ended and its number may be another's.
    pub(crate) fn check_group(&self) -> Result<(), GuestError> {
        self.look_at_group();
        if self.state().group_gone {
            return Err(self.ended());
        }
        Ok(())
    }

    /// Notes when the group of an ended process is empty. Asked after each child that was reaped:
    /// orphans come to the agent, so the last of a group does not go unseen.
    pub(crate) fn look_at_group(&self) {
        let mut state = self.state();
        if state.exit.is_some() && !state.group_gone {
            let leader = Pid::from_raw(self.pid.cast_signed());
            let another_has_its_number = signal::kill(leader, None).is_ok();
            state.group_gone = another_has_its_number || signal::killpg(leader, None).is_err();
        }
    }

    pub(crate) fn info(&self) -> ProcessInfo {
        let state = self.state();
        let exit = state.exit.filter(|_| state.exit_at.is_some());
        let age_ms = match exit {
            Some(exit) => exit.duration_us / 1000,
            None => u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        ProcessInfo {
            pid: self.pid,
            command: self.command.clone(),
            pty: self.pty,
            age_ms,
            output_start: state.log.start(),
            output_end: state.log.end(),
            exit,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.budget.changed(self.retained_bytes(), 0);
    }
}

impl State {
    /// Once all that the process left behind is in the log, its end shows.
    fn notice_drained(&mut self) {
        let drained = self
            .sources
            .iter()
            .flatten()
            .all(|source| source.left_behind_bytes == Some(0));
        if self.exit.is_some() && self.exit_at.is_none() && drained {
            self.exit_at = Some(self.log.end());
        }
    }

    fn output(&mut self, offset: u64, max_bytes: usize) -> Option<Output> {
        let piece = self.log.read(offset, max_bytes).ok()?;
        let at_end = self.exit_at.is_some_and(|at| piece.next_offset >= at);
        self.read_out |= at_end;
        Some(Output {
            dropped_bytes: piece.dropped_bytes,
            chunks: piece.chunks,
            next_offset: piece.next_offset,
            exit: self.exit.filter(|_| at_end),
        })
    }
}

/// Writes once, when the file takes something.
pub(crate) async fn write_ready(file: &AsyncFd<OwnedFd>, data: &[u8]) -> io::Result<usize> {
    loop {
        // Tried first: mostly it is ready.
        match nix::unistd::write(file.get_ref(), data) {
            Err(nix::Error::EAGAIN) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(count) => return Ok(count),
        }
        let mut ready = file.writable().await?;
        match ready.try_io(|file| Ok(nix::unistd::write(file.get_ref(), data)?)) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}
