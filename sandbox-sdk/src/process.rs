//! A handle on a process in a sandbox.

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use sandbox_core::process::{CHUNK_MAX_BYTES, Exit, Output, OutputRequest, OutputStream, PtySize};

use crate::{Error, Result, Sandbox};

/// How long one question for output waits for an answer, in milliseconds.
const LONG_POLL_MS: u32 = 10_000;

/// A process in a sandbox. Dropping the handle ends nothing.
#[derive(Debug, Clone)]
pub struct Process {
    sandbox: Sandbox,
    pid: u32,
    /// What its start brought along.
    first: Option<Output>,
}

/// Something that a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It wrote to stdout, or to its terminal.
    Stdout(Bytes),
    /// It wrote to stderr.
    Stderr(Bytes),
    /// It wrote this many bytes that were dropped before they were read.
    Dropped(u64),
    /// It ended. Always the last event.
    Exit(Exit),
}

impl Process {
    pub(crate) fn new(sandbox: Sandbox, pid: u32, first: Option<Output>) -> Self {
        Self {
            sandbox,
            pid,
            first,
        }
    }

    /// Its process ID in the sandbox.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its output from the beginning, as it comes, until it ends.
    ///
    /// ```no_run
    /// # async fn example(sandbox: sandbox_sdk::Sandbox) -> Result<(), sandbox_sdk::Error> {
    /// use futures::TryStreamExt;
    /// use sandbox_sdk::ProcessEvent;
    ///
    /// let process = sandbox.shell("for i in 1 2 3; do echo $i; sleep 1; done").spawn().await?;
    /// let mut events = std::pin::pin!(process.events());
    /// while let Some(event) = events.try_next().await? {
    ///     match event {
    ///         ProcessEvent::Stdout(bytes) => print!("{}", String::from_utf8_lossy(&bytes)),
    ///         ProcessEvent::Exit(exit) => println!("ended with {:?}", exit.status),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn events(&self) -> impl Stream<Item = Result<ProcessEvent>> + Send + use<> {
        match self.first.clone() {
            Some(first) => self.follow(
                Cursor {
                    offset: first.next_offset,
                    ended: false,
                },
                Some(first),
            ),
            None => self.follow(
                Cursor {
                    offset: 0,
                    ended: false,
                },
                None,
            ),
        }
    }

    /// Its output from an offset on. The offset of the next byte is the sum of what came before it:
    /// the lengths of all outputs and of all that was dropped.
    pub fn events_from(
        &self,
        offset: u64,
    ) -> impl Stream<Item = Result<ProcessEvent>> + Send + use<> {
        self.follow(
            Cursor {
                offset,
                ended: false,
            },
            None,
        )
    }

    fn follow(
        &self,
        cursor: Cursor,
        first: Option<Output>,
    ) -> impl Stream<Item = Result<ProcessEvent>> + Send + use<> {
        let sandbox = self.sandbox.clone();
        let pid = self.pid;
        let state = (cursor, first, sandbox);
        stream::try_unfold(state, move |(mut cursor, mut ready, sandbox)| async move {
            if cursor.ended {
                return Ok::<_, Error>(None);
            }
            let output = match ready.take() {
                Some(output) => output,
                None => {
                    let request = OutputRequest {
                        offset: cursor.offset,
                        max_bytes: CHUNK_MAX_BYTES,
                        wait_ms: LONG_POLL_MS,
                    };
                    sandbox.api.read_output(sandbox.id, pid, request).await?
                }
            };
            cursor.offset = output.next_offset;
            cursor.ended = output.exit.is_some();
            let events = stream::iter(events_of(output).into_iter().map(Ok));
            Ok(Some((events, (cursor, None, sandbox))))
        })
        .try_flatten()
    }

    /// Waits for its end. What it writes meanwhile stays to be read.
    ///
    /// # Errors
    /// When the sandbox ends before, or does not answer.
    pub async fn wait(&self) -> Result<Exit> {
        let mut events = std::pin::pin!(self.events());
        while let Some(event) = events.try_next().await? {
            if let ProcessEvent::Exit(exit) = event {
                return Ok(exit);
            }
        }
        Err(Error::Internal(
            "a process's output ended without its exit".to_owned(),
        ))
    }

    /// Writes all of `data` to its stdin or terminal, waiting where it does not read.
    ///
    /// # Errors
    /// When stdin is not open, or the process ends before it has read all.
    pub async fn write_stdin(&self, data: impl Into<Bytes>) -> Result<()> {
        let mut rest: Bytes = data.into();
        while !rest.is_empty() {
            let piece = rest.slice(..rest.len().min(CHUNK_MAX_BYTES as usize));
            let taken = self
                .sandbox
                .api
                .write_stdin(self.sandbox.id, self.pid, piece, false)
                .await?;
            // Never more than was given.
            let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(rest.len());
            rest = rest.slice(taken..);
        }
        Ok(())
    }

    /// Closes its stdin: it reads end of file.
    ///
    /// # Errors
    /// When stdin is not open.
    pub async fn close_stdin(&self) -> Result<()> {
        let api = &self.sandbox.api;
        api.write_stdin(self.sandbox.id, self.pid, Bytes::new(), true)
            .await
            .map(drop)
    }

    /// Sends a signal, by its Linux number, to it and its children: to its process group, also when
    /// it has ended and only they live on.
    ///
    /// # Errors
    /// When all of them have ended.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        self.sandbox
            .api
            .signal(self.sandbox.id, self.pid, signal, true)
            .await
    }

    /// Kills it and its children, as [`signal`](Self::signal) does.
    ///
    /// # Errors
    /// When all of them have ended.
    pub async fn kill(&self) -> Result<()> {
        const SIGKILL: i32 = 9;
        self.signal(SIGKILL).await
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// When it has none.
    pub async fn resize(&self, size: PtySize) -> Result<()> {
        self.sandbox
            .api
            .resize_pty(self.sandbox.id, self.pid, size)
            .await
    }
}

struct Cursor {
    offset: u64,
    ended: bool,
}

pub(crate) fn events_of(output: Output) -> Vec<ProcessEvent> {
    let dropped = (output.dropped_bytes > 0).then_some(ProcessEvent::Dropped(output.dropped_bytes));
    let chunks = output.chunks.into_iter().map(|chunk| match chunk.stream {
        OutputStream::Stdout => ProcessEvent::Stdout(chunk.data),
        OutputStream::Stderr => ProcessEvent::Stderr(chunk.data),
    });
    dropped
        .into_iter()
        .chain(chunks)
        .chain(output.exit.map(ProcessEvent::Exit))
        .collect()
}
