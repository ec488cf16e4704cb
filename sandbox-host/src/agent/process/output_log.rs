//! The output of one process as a log of bytes that has a bound.
//!
//! ```text
//!            start            acknowledged                end
//!   dropped    │   read and kept   │     not yet read      │
//!  ────────────┼───────────────────┼───────────────────────┼──► offset
//!              └──────── at most `retain` bytes ───────────┘
//! ```
//! With `WhenFull::Wait`, what has been read is dropped too.
//!
//! Pure: bytes go in, answers come out. Who waits for what is decided elsewhere.

use std::collections::VecDeque;

use bytes::Bytes;
use sandbox_core::process::{OutputChunk, OutputStream, WhenFull};

/// Runs are joined up to this length, so that many small writes cost no run each.
const RUN_MAX_BYTES: usize = 32 * 1024;

/// An offset behind the end of the log was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BeyondEnd;

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Piece {
    pub(crate) dropped_bytes: u64,
    pub(crate) chunks: Vec<OutputChunk>,
    pub(crate) next_offset: u64,
}

#[derive(Debug)]
struct Run {
    stream: OutputStream,
    data: Vec<u8>,
    /// Bytes at the start of `data` that have been dropped.
    gone: usize,
}

impl Run {
    fn live(&self) -> &[u8] {
        &self.data[self.gone..]
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OutputLog {
    runs: VecDeque<Run>,
    start: u64,
    end: u64,
    acknowledged: u64,
    retain: u64,
    when_full: WhenFull,
}

impl OutputLog {
    /// An empty log that keeps `retain` bytes, at least one.
    pub(crate) fn new(retain: u32, when_full: WhenFull) -> Self {
        Self {
            runs: VecDeque::new(),
            start: 0,
            end: 0,
            acknowledged: 0,
            retain: u64::from(retain.max(1)),
            when_full,
        }
    }

    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are kept.
    pub(crate) const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// How many bytes may be appended now. What is appended beyond it drops the oldest bytes. A log
    /// whose readers stay away (`attended` is false) does not wait for them.
    pub(crate) fn room(&self, attended: bool) -> u64 {
        match self.when_full {
            WhenFull::DropOldest => u64::MAX,
            WhenFull::Wait if !attended => u64::MAX,
            WhenFull::Wait => self
                .retain
                .saturating_sub(self.end - self.acknowledged.max(self.start)),
        }
    }

    /// From now on there is always room.
    pub(crate) fn detach(&mut self) {
        self.when_full = WhenFull::DropOldest;
    }

    /// Adds bytes at the end and drops as many at the start as the bound asks for.
    pub(crate) fn append(&mut self, stream: OutputStream, data: &[u8]) {
        self.end += data.len() as u64;
        // What would be dropped at once is not copied either.
        let kept = data
            .len()
            .min(usize::try_from(self.retain).unwrap_or(usize::MAX));
        let kept = &data[data.len() - kept..];
        if kept.len() < data.len() {
            self.runs.clear();
            self.start = self.end - kept.len() as u64;
        }
        match self.runs.back_mut() {
            Some(run) if run.stream == stream && run.data.len() + kept.len() <= RUN_MAX_BYTES => {
                run.data.extend_from_slice(kept);
            }
            _ if kept.is_empty() => {}
            _ => self.runs.push_back(Run {
                stream,
                data: kept.to_vec(),
                gone: 0,
            }),
        }
        self.shrink_to(self.retain);
    }

    /// Drops the oldest bytes until at most this many are kept.
    pub(crate) fn shrink_to(&mut self, kept_bytes: u64) {
        let mut excess = self.len().saturating_sub(kept_bytes);
        self.start += excess;
        while excess > 0 {
            let Some(run) = self.runs.front_mut() else {
                return;
            };
            let here = run.live().len() as u64;
            if here > excess {
                // Fits: `excess` is below a `usize`.
                run.gone += excess as usize;
                return;
            }
            excess -= here;
            self.runs.pop_front();
        }
    }

    /// A reader has everything before `offset`. A log that waits for readers keeps it no longer.
    pub(crate) fn acknowledge(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset.min(self.end));
        if self.when_full == WhenFull::Wait {
            self.shrink_to(self.end - self.acknowledged);
        }
    }

    /// What stands at `offset`, at most `max_bytes` of it.
    pub(crate) fn read(&self, offset: u64, max_bytes: usize) -> Result<Piece, BeyondEnd> {
        if offset > self.end {
            return Err(BeyondEnd);
        }
        let from = offset.max(self.start);
        let mut piece = Piece {
            dropped_bytes: from - offset,
            chunks: Vec::new(),
            next_offset: from,
        };
        let mut run_start = self.start;
        let mut left = max_bytes;
        for run in &self.runs {
            let run_end = run_start + run.live().len() as u64;
            if run_end > from && left > 0 {
                let skip = from.saturating_sub(run_start) as usize;
                let taken = &run.live()[skip..];
                let taken = &taken[..taken.len().min(left)];
                left -= taken.len();
                piece.next_offset += taken.len() as u64;
                piece.chunks.push(OutputChunk {
                    stream: run.stream,
                    data: Bytes::copy_from_slice(taken),
                });
            }
            run_start = run_end;
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Append(bool, Vec<u8>),
        Read(usize),
        /// The reader stays away until it reads again.
        Leave,
        Detach,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..90))
                .prop_map(|(err, data)| Step::Append(err, data)),
            3 => (0usize..120).prop_map(Step::Read),
            1 => Just(Step::Leave),
            1 => Just(Step::Detach),
        ];
        proptest::collection::vec(step, 0..80)
    }

    fn stream(err: bool) -> OutputStream {
        if err {
            OutputStream::Stderr
        } else {
            OutputStream::Stdout
        }
    }

    proptest! {
        /// The log against the whole history: what a reader that follows `next_offset` gets, plus
        /// what it is told was dropped, is the history, with the stream of every byte.
        #[test]
        fn r5_no_byte_is_lost_or_doubled_and_drops_are_counted_exactly(
            steps in steps(), retain in 1u32..200, wait: bool,
        ) {
            let when_full = if wait { WhenFull::Wait } else { WhenFull::DropOldest };
            let mut log = OutputLog::new(retain, when_full);
            let mut history: Vec<(OutputStream, u8)> = Vec::new();
            let (mut offset, mut detached, mut attended) = (0u64, false, true);
            for step in steps {
                match step {
                    Step::Append(err, mut data) => {
                        let room = log.room(attended);
                        data.truncate(usize::try_from(room).unwrap_or(usize::MAX));
                        log.append(stream(err), &data);
                        history.extend(data.iter().map(|byte| (stream(err), *byte)));
                    }
                    Step::Read(max) => {
                        log.acknowledge(offset);
                        let piece = log.read(offset, max).unwrap();
                        if wait && !detached && attended {
                            prop_assert_eq!(piece.dropped_bytes, 0);
                        }
                        let mut at = (offset + piece.dropped_bytes) as usize;
                        for chunk in &piece.chunks {
                            for byte in &chunk.data {
                                prop_assert_eq!(history[at], (chunk.stream, *byte));
                                at += 1;
                            }
                        }
                        prop_assert_eq!(at as u64, piece.next_offset);
                        let got: usize = piece.chunks.iter().map(|chunk| chunk.data.len()).sum();
                        prop_assert!(got <= max);
                        prop_assert!(got == max || piece.next_offset == history.len() as u64);
                        offset = piece.next_offset;
                        attended = true;
                    }
                    Step::Leave => attended = false,
                    Step::Detach => {
                        log.detach();
                        detached = true;
                    }
                }
                prop_assert_eq!(log.end(), history.len() as u64);
                prop_assert!(log.len() <= u64::from(retain));
                let held: usize = log.runs.iter().map(|run| run.live().len()).sum();
                prop_assert_eq!(log.len(), held as u64);
            }
        }
    }

    #[test]
    fn r5_a_waiting_log_has_no_room_until_its_reader_has_moved_on() {
        let mut log = OutputLog::new(10, WhenFull::Wait);
        log.append(OutputStream::Stdout, b"0123456789");
        assert_eq!(log.room(true), 0);
        let piece = log.read(0, 4).unwrap();
        assert_eq!(log.room(true), 0, "reading is not yet having");
        log.acknowledge(piece.next_offset);
        assert_eq!(log.room(true), 4);
        assert_eq!(log.room(false), u64::MAX, "nobody to wait for");
        log.detach();
        assert_eq!(log.room(true), u64::MAX);
    }

    #[test]
    fn an_offset_behind_the_end_is_refused() {
        let log = OutputLog::new(10, WhenFull::DropOldest);
        assert_eq!(log.read(1, 1), Err(BeyondEnd));
    }
}
