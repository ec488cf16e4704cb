//! Running a command to its end.
//!
//! ```text
//!  start, waiting ──► ended? ──► done                       (the usual case: one call)
//!        │ no
//!        ▼
//!  read, waiting ──► ... ──► ended ──► done
//!        │ bound reached: detach, and count what comes
//!        │ caller gone or engine stopping: detach, and leave it to itself
//!        │ engine killed: nobody reads any more, which the guest notices by itself
//! ```

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use crate::{
    caller::Caller,
    engine::{Engine, Inner, validate},
    error::Error,
    id::SandboxId,
    process::{
        CHUNK_MAX_BYTES, ExecOutput, Exit, Output, OutputRequest, OutputStream, ProcessSpec, Stdin,
        WhenFull,
    },
};

/// How long the start itself waits for the end. Most commands take less; for the others the process
/// ID must be known soon, since without it nobody can be told to stop waiting.
const START_WAIT: Duration = Duration::from_millis(500);
/// How often a read is repeated whose connection was lost. It names its offset, so repeating it
/// costs and doubles nothing.
const READ_ATTEMPTS: u32 = 5;

/// How long a command waits for a reader that stays away. Far above any pause between two reads
/// here, so that it ends a wait only where this engine was killed.
const READER_PATIENCE_MS: u32 = 10_000;

/// Between two reads of output that is only counted.
const COUNTING_PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Runs a command to its end and gives all it wrote, up to the configured bound. When the
    /// caller goes away, or this process is killed, the command goes on, and waits for no reader.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::InvalidState`], [`Error::Guest`] where it could not be
    /// started, [`Error::GuestUnavailable`] where its end could not be learned.
    pub(super) async fn exec(
        &self,
        caller: &Caller,
        id: SandboxId,
        mut spec: ProcessSpec,
    ) -> Result<ExecOutput, Error> {
        validate::process(&spec)?;
        if spec.stdin == Stdin::Piped {
            return Err(Error::InvalidRequest(
                "`stdin`: nobody could write to a pipe here; give bytes, or start a process"
                    .to_owned(),
            ));
        }
        spec.when_full = WhenFull::Wait;
        spec.reader_patience_ms = Some(READER_PATIENCE_MS);
        let inner = Arc::clone(&self.inner);
        let who = caller.clone();
        let (mut sender, receiver) = oneshot::channel();
        self.inner.tasks.spawn(async move {
            let result = inner.collect(&who, id, spec, &mut sender).await;
            let _ = sender.send(result);
        })?;
        receiver.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> Error {
    Error::Unavailable("the platform is shutting down; the command goes on".to_owned())
}

impl Inner {
    async fn collect(
        &self,
        who: &Caller,
        id: SandboxId,
        spec: ProcessSpec,
        caller: &mut oneshot::Sender<Result<ExecOutput, Error>>,
    ) -> Result<ExecOutput, Error> {
        let wait = self.config.long_poll.min(START_WAIT);
        let started = self
            .call(who, id, |guest| async move {
                guest.start_process(spec, wait).await
            })
            .await?;
        let pid = started.pid;
        let mut gathered = Gathered::new(self.config.exec_output_max_bytes);
        let mut output = started.output;
        let mut paused = false;
        loop {
            let (offset, exit) = (output.next_offset, output.exit);
            let behind = output.dropped_bytes > 0;
            let had_room = gathered.has_room();
            gathered.take(output);
            if let Some(exit) = exit {
                return Ok(gathered.finish(exit));
            }
            if had_room && !gathered.has_room() {
                self.detach(who, id, pid).await?;
            }
            // What is only counted need not travel: it is left to be dropped in the guest, unless
            // the last pause showed that there is not so much of it.
            paused = !gathered.has_room() && (behind || !paused);
            let pause = if paused {
                COUNTING_PAUSE
            } else {
                Duration::ZERO
            };
            output = tokio::select! {
                biased;
                read = self.read_after(who, pause, id, pid, offset) => read?,
                () = caller.closed() => {
                    self.detach(who, id, pid).await?;
                    return Err(stopping());
                }
                () = self.stopped() => {
                    self.detach(who, id, pid).await?;
                    return Err(stopping());
                }
            };
        }
    }

    async fn detach(&self, who: &Caller, id: SandboxId, pid: u32) -> Result<(), Error> {
        self.call(
            who,
            id,
            |guest| async move { guest.detach_output(pid).await },
        )
        .await
    }

    async fn read_after(
        &self,
        who: &Caller,
        pause: Duration,
        id: SandboxId,
        pid: u32,
        offset: u64,
    ) -> Result<Output, Error> {
        if !pause.is_zero() {
            self.clock.sleep(pause).await;
        }
        self.read(who, id, pid, offset).await
    }

    async fn read(
        &self,
        who: &Caller,
        id: SandboxId,
        pid: u32,
        offset: u64,
    ) -> Result<Output, Error> {
        let request = OutputRequest {
            offset,
            max_bytes: CHUNK_MAX_BYTES,
            wait_ms: u32::try_from(self.config.long_poll.as_millis()).unwrap_or(u32::MAX),
        };
        let mut pause = self.config.backoff;
        let mut attempt = 1;
        loop {
            let read = self
                .call(who, id, |guest| async move {
                    guest.read_output(pid, request).await
                })
                .await;
            match read {
                Err(Error::GuestUnavailable(_)) if attempt < READ_ATTEMPTS => {}
                other => return other,
            }
            attempt += 1;
            self.clock.sleep(pause).await;
            pause *= 2;
        }
    }
}

/// Output so far, within a bound.
struct Gathered {
    stdout: BytesMut,
    stderr: BytesMut,
    room: u64,
    dropped: u64,
}

impl Gathered {
    fn new(room: u64) -> Self {
        Self {
            stdout: BytesMut::new(),
            stderr: BytesMut::new(),
            room,
            dropped: 0,
        }
    }

    const fn has_room(&self) -> bool {
        self.room > 0
    }

    fn take(&mut self, output: Output) {
        self.dropped += output.dropped_bytes;
        for chunk in output.chunks {
            self.put(chunk.stream, &chunk.data);
        }
    }

    fn put(&mut self, stream: OutputStream, data: &Bytes) {
        let fits = usize::try_from(self.room).map_or(data.len(), |room| room.min(data.len()));
        self.room -= fits as u64;
        self.dropped += (data.len() - fits) as u64;
        match stream {
            OutputStream::Stdout => self.stdout.extend_from_slice(&data[..fits]),
            OutputStream::Stderr => self.stderr.extend_from_slice(&data[..fits]),
        }
    }

    fn finish(self, exit: Exit) -> ExecOutput {
        ExecOutput {
            status: exit.status,
            timed_out: exit.timed_out,
            stdout: self.stdout.freeze(),
            stderr: self.stderr.freeze(),
            dropped_bytes: self.dropped,
            duration: Duration::from_micros(exit.duration_us),
        }
    }
}
