//! Reading a process's output on and on, from an offset.

use std::{sync::Arc, time::Duration};

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

/// A reader of one process's output.
pub(crate) struct Reader {
    pub(crate) api: Arc<dyn Api>,
    pub(crate) id: SandboxId,
    pub(crate) pid: u32,
    pub(crate) offset: u64,
}

impl Reader {
    /// What follows, waiting for it up to `wait_ms`. Moves on behind it.
    pub(crate) async fn next(&mut self, wait_ms: u32) -> Result<Output, Error> {
        let request = OutputRequest {
            offset: self.offset,
            max_bytes: PIECE_BYTES_MAX,
            wait_ms,
        };
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
}
