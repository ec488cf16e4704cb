//! Reading a process's output on and on, from an offset.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use sandbox_core::{
    api::Api,
    error::Error,
    id::SandboxId,
    process::{Output, OutputRequest},
};
use tokio::time::sleep;

/// How long one question for output waits for an answer, in milliseconds.
pub(crate) const LONG_POLL_MS: u32 = 10_000;
/// The most output in one answer, in bytes: small enough to be one event.
const PIECE_BYTES_MAX: u32 = 64 * 1024;
/// How often a read is repeated whose connection was lost. It names its offset, so repeating it
/// costs and doubles nothing.
const ATTEMPTS: u32 = 6;
const BACKOFF: Duration = Duration::from_millis(50);
/// How often a reader whose client is slow shows that it is there, well within the patience that
/// the platform's own clients ask of their processes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A reader of one process's output.
///
/// Asking for what follows an offset says that everything before it has been taken: a process that
/// waits for its readers then keeps it no longer. So the next piece is asked for only when the one
/// before has been handed to the client's connection.
pub(crate) struct Reader {
    pub(crate) api: Arc<dyn Api>,
    pub(crate) id: SandboxId,
    pub(crate) pid: u32,
    offset: u64,
    /// What was asked for last: everything before it has been taken.
    taken: u64,
    look_every: Duration,
}

impl Reader {
    /// A reader that has everything before `offset`.
    pub(crate) fn new(api: Arc<dyn Api>, id: SandboxId, pid: u32, offset: u64) -> Self {
        Self {
            api,
            id,
            pid,
            offset,
            taken: offset,
            look_every: LOOK_EVERY,
        }
    }

    /// For a process that waits only so long for a reader that stays away.
    pub(crate) fn within(mut self, patience: Duration) -> Self {
        self.look_every = self.look_every.min(patience / 4);
        self
    }

    /// What follows, waiting for it up to `wait_ms`. Moves on behind it.
    pub(crate) async fn next(&mut self, wait_ms: u32) -> Result<Output, Error> {
        let request = OutputRequest {
            offset: self.offset,
            max_bytes: PIECE_BYTES_MAX,
            wait_ms,
        };
        self.taken = self.offset;
        let mut pause = BACKOFF;
        let mut attempt = 1;
        let output = loop {
            match self.api.read_output(self.id, self.pid, request).await {
                Err(Error::GuestUnavailable(_)) if attempt < ATTEMPTS => {}
                read => break read?,
            }
            attempt += 1;
            sleep(pause).await;
            pause *= 2;
        };
        self.offset = output.next_offset;
        Ok(output)
    }

    /// Hands on what was read. However long the client takes over it, the process is shown that it
    /// has a reader, and nothing more is taken.
    pub(crate) async fn while_sending<T>(&self, sending: impl Future<Output = T>) -> T {
        let sending = pin!(sending);
        tokio::select! {
            biased;
            sent = sending => sent,
            never = self.keep_looking() => match never {},
        }
    }

    async fn keep_looking(&self) -> Infallible {
        let look = OutputRequest {
            offset: self.taken,
            max_bytes: 1,
            wait_ms: 0,
        };
        loop {
            sleep(self.look_every).await;
            // What is wrong shows in the next read.
            let _ = self.api.read_output(self.id, self.pid, look).await;
        }
    }
}
