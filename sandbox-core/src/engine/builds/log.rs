//! A build's log as its worker writes it: as it comes, and bounded.
//!
//! Of each step the beginning is kept as it comes and the end when it is there, with a note between
//! them that says how much is missing. The whole log is bounded, too.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    build::{LogCursor, LogEntry, LogStream},
    engine::{Inner, builds::hold::WRITE_ATTEMPTS},
    id::BuildId,
    process::{Output, OutputStream},
    store::StoreError,
};

/// Bytes from a step's beginning that are kept.
const HEAD_BYTES: usize = 256 * 1024;
/// Bytes from a step's end that are kept beyond that.
const TAIL_BYTES: usize = 32 * 1024;
/// Bytes of all steps' beginnings. The ends are kept in any case: there are few steps.
const BUILD_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a step's end that an error shows.
const SHOWN_BYTES: usize = 2048;
/// Bytes that wait for a store which does not answer. What comes beyond is counted as dropped.
const WAITING_BYTES: usize = 1024 * 1024;

/// A build's log.
pub(super) struct Log {
    inner: Arc<Inner>,
    build: BuildId,
    attempt: u32,
    number: u64,
    step: u32,
    room: Room,
    waiting: Vec<LogEntry>,
    waiting_bytes: usize,
}

/// What there is room for: pure.
#[derive(Debug)]
struct Room {
    build: usize,
    step: usize,
    tail: VecDeque<(LogStream, Bytes)>,
    tail_bytes: usize,
    /// Bytes of this step that are kept nowhere.
    dropped: u64,
    /// The last of all that came.
    shown: VecDeque<u8>,
}

impl Room {
    const fn new() -> Self {
        Self {
            build: BUILD_BYTES,
            step: HEAD_BYTES,
            tail: VecDeque::new(),
            tail_bytes: 0,
            dropped: 0,
            shown: VecDeque::new(),
        }
    }

    fn next_step(&mut self) {
        let build = self.build;
        *self = Self::new();
        self.build = build;
    }

    /// Takes what comes and returns what is kept at once.
    fn take(&mut self, stream: LogStream, mut data: Bytes) -> Option<Bytes> {
        let last = data.len().saturating_sub(SHOWN_BYTES);
        self.shown.extend(&data[last..]);
        let excess = self.shown.len().saturating_sub(SHOWN_BYTES);
        self.shown.drain(..excess);
        let head = data.split_to(data.len().min(self.step).min(self.build));
        self.step -= head.len();
        self.build -= head.len();
        if !data.is_empty() {
            // From here on only the end is kept, or the text would have gaps that nobody sees.
            self.step = 0;
            self.tail_bytes += data.len();
            self.tail.push_back((stream, data));
            self.shorten();
        }
        (!head.is_empty()).then_some(head)
    }

    fn shorten(&mut self) {
        while self.tail_bytes > TAIL_BYTES {
            let Some((stream, mut data)) = self.tail.pop_front() else {
                return;
            };
            let cut = data.len().min(self.tail_bytes - TAIL_BYTES);
            let _ = data.split_to(cut);
            self.tail_bytes -= cut;
            self.dropped += cut as u64;
            if !data.is_empty() {
                self.tail.push_front((stream, data));
            }
        }
    }

    /// What is kept at a step's end.
    fn rest(&mut self) -> Vec<(LogStream, Bytes)> {
        let mut rest = Vec::new();
        if self.dropped > 0 {
            let note = format!("\n[{} bytes of output are left out here]\n", self.dropped);
            rest.push((LogStream::Note, Bytes::from(note)));
        }
        rest.extend(self.tail.drain(..));
        self.tail_bytes = 0;
        rest
    }
}

impl Log {
    pub(super) fn new(inner: Arc<Inner>, build: BuildId, attempt: u32) -> Self {
        Self {
            inner,
            build,
            attempt,
            number: 0,
            step: 0,
            room: Room::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    pub(super) fn begin_step(&mut self, step: u32) {
        self.step = step;
        self.room.next_step();
    }

    /// Whether a step's beginning is kept whole so far.
    pub(super) const fn has_room(&self) -> bool {
        self.room.step > 0 && self.room.build > 0
    }

    /// Takes what a process has written.
    pub(super) fn output(&mut self, output: &Output) {
        self.room.dropped += output.dropped_bytes;
        if output.dropped_bytes > 0 {
            self.room.step = 0;
        }
        for chunk in &output.chunks {
            let stream = match chunk.stream {
                OutputStream::Stdout => LogStream::Stdout,
                OutputStream::Stderr => LogStream::Stderr,
            };
            self.put(stream, chunk.data.clone());
        }
    }

    /// A remark of the platform's.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let mut text = text.into();
        text.push('\n');
        self.put(LogStream::Note, Bytes::from(text));
    }

    fn put(&mut self, stream: LogStream, data: Bytes) {
        if let Some(kept) = self.room.take(stream, data) {
            self.push(stream, &kept);
        }
    }

    fn push(&mut self, stream: LogStream, data: &Bytes) {
        if self.waiting_bytes + data.len() > WAITING_BYTES {
            self.room.dropped += data.len() as u64;
            return;
        }
        self.number += 1;
        self.waiting_bytes += data.len();
        self.waiting.push(LogEntry {
            cursor: LogCursor::new(self.attempt, self.number),
            step: self.step,
            stream,
            data: data.to_vec(),
            at: self.inner.now(),
        });
    }

    /// Ends a step and returns how many bytes of it were dropped.
    pub(super) async fn end_step(&mut self) -> u64 {
        for (stream, data) in self.room.rest() {
            self.push(stream, &data);
        }
        self.flush().await;
        self.room.dropped
    }

    /// Writes what waits. What can't be written now is written the next time.
    pub(super) async fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self
            .inner
            .store
            .append_build_log(self.build, self.waiting.clone());
        match written.await {
            Ok(()) => {
                self.waiting.clear();
                self.waiting_bytes = 0;
                self.inner.builds.tell_news();
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_))) => {
                tracing::debug!(build = %self.build, %error, "log not written yet");
            }
            // Trying again changes nothing.
            Err(error) => {
                tracing::warn!(build = %self.build, %error, "a piece of the log is lost");
                self.room.dropped += self.waiting_bytes as u64;
                self.waiting.clear();
                self.waiting_bytes = 0;
            }
        }
    }

    /// Writes what waits before the build ends, with as much patience as its end is written with.
    pub(super) async fn settle(&mut self) {
        let mut pause = self.inner.config.backoff;
        for _ in 1..WRITE_ATTEMPTS {
            self.flush().await;
            if self.waiting.is_empty() {
                return;
            }
            self.inner.clock.sleep(pause).await;
            pause *= 2;
        }
        self.flush().await;
    }

    /// The end of what the step at work has written.
    pub(super) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.room.shown.iter().copied().collect();
        // Not every store keeps a NUL in a text.
        let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
        text.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(parts: &[(LogStream, Bytes)]) -> usize {
        let own = parts
            .iter()
            .filter(|(stream, _)| *stream != LogStream::Note);
        own.map(|(_, data)| data.len()).sum()
    }

    proptest! {
        /// Every byte is kept or counted, and no more is kept than there is room for.
        #[test]
        fn r29_a_steps_output_is_bounded_and_what_is_missing_is_counted(
            sizes in prop::collection::vec(0..200_000usize, 0..12),
        ) {
            let mut room = Room::new();
            let mut kept = 0;
            for size in &sizes {
                let data = Bytes::from(vec![b'x'; *size]);
                kept += room.take(LogStream::Stdout, data).map_or(0, |head| head.len());
            }
            let rest = room.rest();
            let all: usize = sizes.iter().sum();
            prop_assert_eq!((kept + texts(&rest)) as u64 + room.dropped, all as u64);
            prop_assert!(kept <= HEAD_BYTES && texts(&rest) <= TAIL_BYTES);
            let noted = rest.iter().any(|(stream, _)| *stream == LogStream::Note);
            prop_assert_eq!(noted, room.dropped > 0);
        }
    }

    #[test]
    fn r33_the_end_of_a_steps_output_is_what_an_error_shows() {
        let mut room = Room::new();
        room.take(LogStream::Stdout, Bytes::from(vec![b'x'; 10_000_000]));
        room.take(LogStream::Stderr, Bytes::from_static(b"no such file\n"));
        let shown: Vec<u8> = room.shown.iter().copied().collect();
        assert!(shown.ends_with(b"no such file\n"));
        assert_eq!(shown.len(), SHOWN_BYTES);
    }
}
