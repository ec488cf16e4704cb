//! What happened in a world, in order: always as one hash, and as lines where they are asked for.

use crate::clock::Timestamp;

#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(with_lines: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            lines: with_lines.then(Vec::new),
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.hash ^= self.hash >> 29;
    }

    /// Notes that something happened: what, at what moment, and to whom.
    pub(super) fn note(
        &mut self,
        at: Timestamp,
        what: &str,
        whom: u128,
        line: impl FnOnce() -> String,
    ) {
        self.events += 1;
        self.mix(at.timestamp_micros().cast_unsigned());
        for byte in what.bytes() {
            self.mix(u64::from(byte));
        }
        self.mix(whom as u64);
        self.mix((whom >> 64) as u64);
        if let Some(lines) = &mut self.lines {
            let time = at.format("%H:%M:%S%.6f");
            lines.push(format!("{time} {what} {}", line()));
        }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
