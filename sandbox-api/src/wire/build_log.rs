//! A build's log as events: text, although characters may be cut in two between pieces.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sandbox_core::build::{LogEntry, LogStream};
use serde::Serialize;
use utoipa::ToSchema;

/// The data of `stdout`, `stderr` and `note` events.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct BuildLogEvent {
    /// The step that it belongs to.
    step: u32,
    /// The text. What is not UTF-8 is replaced by U+FFFD.
    data: String,
    /// When it came.
    at: DateTime<Utc>,
}

/// The beginnings of characters that wait for their ends, by attempt, step and stream.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    cut: BTreeMap<(u64, u32, &'static str), Vec<u8>>,
}

impl Texts {
    /// The text of a piece: a character that is cut in two comes with the piece that has its end.
    pub(crate) fn event(&mut self, entry: &LogEntry) -> BuildLogEvent {
        let place = (entry.cursor.attempt(), entry.step, entry.stream.as_str());
        let mut bytes = self.cut.remove(&place).unwrap_or_default();
        bytes.extend_from_slice(&entry.data);
        if let Some(at) = unfinished(&bytes) {
            self.cut.insert(place, bytes.split_off(at));
        }
        BuildLogEvent {
            step: entry.step,
            data: String::from_utf8_lossy(&bytes).into_owned(),
            at: entry.at,
        }
    }

    /// What is left at the end: characters without an end, each with its step and stream.
    pub(crate) fn rest(&mut self, at: DateTime<Utc>) -> Vec<(LogStream, BuildLogEvent)> {
        let cut = std::mem::take(&mut self.cut);
        let event = |((_, step, stream), bytes): ((u64, u32, &str), Vec<u8>)| {
            let stream = LogStream::ALL
                .into_iter()
                .find(|it| it.as_str() == stream)?;
            let data = String::from_utf8_lossy(&bytes).into_owned();
            Some((stream, BuildLogEvent { step, data, at }))
        };
        cut.into_iter().filter_map(event).collect()
    }
}

/// Where a character begins whose end is missing.
fn unfinished(bytes: &[u8]) -> Option<usize> {
    /// The most bytes of a character but one.
    const LONGEST: usize = 3;
    let last = bytes.len().saturating_sub(LONGEST);
    let at = last + bytes[last..].iter().rposition(|byte| byte & 0xc0 != 0x80)?;
    let error = std::str::from_utf8(&bytes[at..]).err()?;
    // With no length it ended too early, instead of being wrong.
    (error.error_len().is_none() && error.valid_up_to() == 0).then_some(at)
}

#[cfg(test)]
mod tests {
    use sandbox_core::build::LogCursor;

    use super::*;

    fn entry(number: u64, stream: LogStream, data: &[u8]) -> LogEntry {
        LogEntry {
            cursor: LogCursor::new(1, number),
            step: 2,
            stream,
            data: data.to_vec(),
            at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn r32_text_survives_being_cut_anywhere() {
        let text = "a\u{e4}\u{20ac}\u{1f600}z";
        for cut in 0..=text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            let mut texts = Texts::default();
            let first = texts.event(&entry(1, LogStream::Stdout, one)).data;
            let between = texts.event(&entry(2, LogStream::Stderr, "\u{e4}".as_bytes()));
            let second = texts.event(&entry(3, LogStream::Stdout, two)).data;
            assert_eq!(between.data, "\u{e4}");
            assert_eq!(first + &second, text, "cut at {cut}");
            assert_eq!(texts.rest(DateTime::UNIX_EPOCH), []);
        }
    }

    #[test]
    fn r32_what_is_no_text_is_replaced_and_never_waited_for_in_vain() {
        let mut texts = Texts::default();
        let mut told = |data: &[u8]| texts.event(&entry(1, LogStream::Stdout, data)).data;
        assert_eq!(told(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(told(b"\xe2\x82"), "");
        assert_eq!(told(b"x\xc3"), "\u{fffd}x");
        let rest = texts.rest(DateTime::UNIX_EPOCH);
        let (stream, event) = rest.first().unwrap();
        assert_eq!(
            (*stream, event.data.as_str()),
            (LogStream::Stdout, "\u{fffd}")
        );
        assert_eq!(unfinished(b""), None);
        assert_eq!(unfinished(&[0x80; 5]), None);
    }
}
