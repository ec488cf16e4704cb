//! A simulated process: a script, caught up with the time whenever someone looks.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, Bytes};
use chrono::TimeDelta;

use super::script::Step;
use crate::{
    clock::Timestamp,
    guest::GuestError,
    process::{
        Exit, ExitStatus, Output, OutputChunk, OutputStream, ProcessSpec, PtySize, WhenFull,
    },
};

const SIGKILL: i32 = 9;
/// Bytes that `spew` writes at a time.
const SPEW_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone)]
pub(super) struct SimProcess {
    pub(super) command: String,
    pub(super) started_at: Timestamp,
    pub(super) exit: Option<Exit>,
    pub(super) pty: Option<PtySize>,
    pub(super) log: Log,
    /// Open while some; what was written and not yet read.
    pub(super) stdin: Option<VecDeque<u8>>,
    stdin_rest: VecDeque<u8>,
    steps: VecDeque<Step>,
    ready_at: Timestamp,
    kill_at: Option<Timestamp>,
}

impl SimProcess {
    pub(super) fn new(
        command: String,
        steps: VecDeque<Step>,
        log: Log,
        timeout: Option<Duration>,
        now: Timestamp,
    ) -> Self {
        Self {
            command,
            started_at: now,
            exit: None,
            pty: None,
            log,
            stdin: None,
            stdin_rest: VecDeque::new(),
            steps,
            ready_at: now,
            kill_at: timeout
                .and_then(|timeout| TimeDelta::from_std(timeout).ok())
                .and_then(|timeout| now.checked_add_signed(timeout)),
        }
    }

    pub(super) fn close_stdin(&mut self) {
        if let Some(rest) = self.stdin.take() {
            self.stdin_rest = rest;
        }
    }

    pub(super) fn kill(&mut self, status: ExitStatus, timed_out: bool, at: Timestamp) {
        if self.exit.is_none() {
            let ran = (at - self.started_at)
                .num_microseconds()
                .unwrap_or_default();
            self.exit = Some(Exit {
                status,
                timed_out,
                duration_us: u64::try_from(ran).unwrap_or_default(),
            });
        }
    }

    pub(super) fn check_running(&self, pid: u32) -> Result<(), GuestError> {
        match self.exit {
            None => Ok(()),
            Some(_) => Err(GuestError::NotAttached {
                pid,
                problem: "has ended".to_owned(),
            }),
        }
    }

    /// Does everything that is due by now.
    pub(super) fn catch_up(&mut self, now: Timestamp) {
        while self.exit.is_none() {
            let step_at = self.ready_at;
            if let Some(kill_at) = self.kill_at
                && kill_at <= now
                && kill_at <= step_at
            {
                self.kill(ExitStatus::Signal(SIGKILL), true, kill_at);
                return;
            }
            if step_at > now {
                return;
            }
            let Some(step) = self.steps.pop_front() else {
                self.kill(ExitStatus::Code(0), false, step_at);
                return;
            };
            if let Some(rest) = self.run(step, step_at) {
                self.steps.push_front(rest);
                // It waits for a reader or a writer; time passes for it meanwhile.
                if self.ready_at == now {
                    return;
                }
                self.ready_at = now;
            }
        }
    }

    /// Runs a step, and gives back what is left of it if it has to wait.
    fn run(&mut self, step: Step, at: Timestamp) -> Option<Step> {
        match step {
            Step::Write(stream, mut data) => {
                let taken = self.log.write(stream, &data, at);
                data.advance(taken);
                (!data.is_empty()).then_some(Step::Write(stream, data))
            }
            Step::Spew(0) => None,
            Step::Spew(left) => {
                let piece = Bytes::from(vec![b'x'; left.min(SPEW_BYTES) as usize]);
                let taken = self.log.write(OutputStream::Stdout, &piece, at) as u64;
                if taken == piece.len() as u64 && left > taken {
                    self.steps.push_front(Step::Spew(left - taken));
                    return None;
                }
                (left > taken).then_some(Step::Spew(left - taken))
            }
            Step::CopyStdin => {
                let open = self.stdin.is_some();
                let source = self.stdin.as_mut().unwrap_or(&mut self.stdin_rest);
                let data: Vec<u8> = source.iter().copied().collect();
                let taken = self.log.write(OutputStream::Stdout, &data.into(), at);
                source.drain(..taken);
                (open || !source.is_empty()).then_some(Step::CopyStdin)
            }
            Step::Sleep(duration) => {
                self.ready_at = TimeDelta::from_std(duration)
                    .ok()
                    .and_then(|duration| at.checked_add_signed(duration))
                    .unwrap_or(Timestamp::MAX_UTC);
                None
            }
            // Done when the process was started.
            Step::Poke(..) => None,
            Step::Exit(code) => {
                self.kill(ExitStatus::Code(code), false, at);
                None
            }
        }
    }

    /// When something happens by itself next.
    pub(super) fn due_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.exit.is_some() {
            return None;
        }
        let step_at = Some(self.ready_at).filter(|at| *at > now);
        step_at.into_iter().chain(self.kill_at).min()
    }

    pub(super) fn read(&self, offset: u64, max_bytes: u64) -> Output {
        let mut output = self.log.read(offset, max_bytes);
        output.exit = self.exit.filter(|_| output.next_offset >= self.log.end());
        output
    }
}

/// A bounded log of output.
#[derive(Debug, Clone)]
pub(super) struct Log {
    start: u64,
    chunks: VecDeque<OutputChunk>,
    bytes: u64,
    retain_bytes: u64,
    when_full: WhenFull,
    /// How long readers may stay away, and when one was seen last.
    patience: Option<TimeDelta>,
    seen_at: Timestamp,
}

impl Log {
    pub(super) fn new(spec: &ProcessSpec, now: Timestamp) -> Self {
        Self {
            start: 0,
            chunks: VecDeque::new(),
            bytes: 0,
            retain_bytes: u64::from(spec.retain_bytes),
            when_full: spec.when_full,
            patience: spec
                .reader_patience_ms
                .map(|patience_ms| TimeDelta::milliseconds(patience_ms.into())),
            seen_at: now,
        }
    }

    /// A reader is here.
    pub(super) fn attend(&mut self, now: Timestamp) {
        self.seen_at = self.seen_at.max(now);
    }

    fn is_attended(&self, at: Timestamp) -> bool {
        self.patience
            .is_none_or(|patience| at - self.seen_at < patience)
    }

    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    pub(super) const fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// Whether its process waits for a reader.
    pub(super) fn is_full(&self) -> bool {
        self.when_full == WhenFull::Wait && self.bytes >= self.retain_bytes
    }

    pub(super) const fn detach(&mut self) {
        self.when_full = WhenFull::DropOldest;
    }

    /// Takes what it can and says how much that was.
    fn write(&mut self, stream: OutputStream, data: &Bytes, at: Timestamp) -> usize {
        let room = self.retain_bytes - self.bytes;
        let taken = match self.when_full {
            WhenFull::DropOldest => data.len(),
            WhenFull::Wait if !self.is_attended(at) => data.len(),
            WhenFull::Wait => usize::try_from(room).map_or(data.len(), |room| room.min(data.len())),
        };
        if taken > 0 {
            self.bytes += taken as u64;
            self.chunks.push_back(OutputChunk {
                stream,
                data: data.slice(..taken),
            });
        }
        let excess = self.bytes.saturating_sub(self.retain_bytes);
        self.forget_until(self.start + excess);
        taken
    }

    /// With a waiting writer, what was asked beyond has been taken.
    pub(super) fn taken_until(&mut self, offset: u64) {
        if self.when_full == WhenFull::Wait {
            self.forget_until(offset.min(self.end()));
        }
    }

    fn forget_until(&mut self, offset: u64) {
        while self.start < offset {
            let Some(first) = self.chunks.front_mut() else {
                return;
            };
            let excess = offset - self.start;
            if excess >= first.data.len() as u64 {
                self.start += first.data.len() as u64;
                self.bytes -= first.data.len() as u64;
                self.chunks.pop_front();
            } else {
                first.data.advance(excess as usize);
                self.start += excess;
                self.bytes -= excess;
            }
        }
    }

    fn read(&self, offset: u64, max_bytes: u64) -> Output {
        let from = offset.clamp(self.start, self.end());
        let mut output = Output {
            dropped_bytes: from.saturating_sub(offset),
            next_offset: from,
            ..Output::default()
        };
        let mut position = self.start;
        for chunk in &self.chunks {
            let end = position + chunk.data.len() as u64;
            let room = max_bytes - (output.next_offset - from);
            if end > output.next_offset && room > 0 {
                let skip = output.next_offset - position;
                let take = room.min(chunk.data.len() as u64 - skip);
                output.chunks.push(OutputChunk {
                    stream: chunk.stream,
                    data: chunk.data.slice(skip as usize..(skip + take) as usize),
                });
                output.next_offset += take;
            }
            position = end;
        }
        output
    }
}
