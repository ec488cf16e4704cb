//! A build as a person sees it: what its steps print, each line with its step's number, and below
//! that, on a terminal, the step at work.
//!
//! ```text
//!  #2 [2/5] ./configure
//!  #2 checking for cc… yes
//!  #2 done in 3.1 s
//!  ⠹ [3/5] make (12s)
//! ```

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandbox_core::build::{BuildEvent, BuildStatus, BuildStep, LogEntry, LogStream};

use crate::cli::{failure::Failure, view};

const TICK: Duration = Duration::from_millis(100);
/// A line that is longer is told in parts.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// As much of a command as goes into one line.
const CMD_CHARS_MAX: usize = 100;

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Stdout,
    Stderr,
    Nowhere,
}

pub(super) struct Screen {
    to: To,
    bar: ProgressBar,
    lines: Lines,
}

impl Screen {
    /// Lines alone.
    pub(super) fn plain(to: To) -> Self {
        Self {
            to,
            bar: ProgressBar::hidden(),
            lines: Lines::default(),
        }
    }

    /// Lines on stderr, with a bar below where that is a terminal.
    pub(super) fn with_bar() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        let mut screen = Self::plain(To::Stderr);
        screen.bar = bar;
        screen
    }

    /// Shows an event.
    pub(super) fn show(&mut self, event: &BuildEvent) -> Result<(), Failure> {
        match event {
            BuildEvent::Progress(record) => {
                let (status, attempt) = (record.status, record.attempt);
                if status == BuildStatus::Pending {
                    self.bar.set_message("waits for a worker");
                }
                if let Some(words) = self.lines.attempt(attempt) {
                    self.line(&words)?;
                }
                self.lines.total = record.total_steps;
            }
            BuildEvent::StepStarted(step) => {
                let head = self.lines.head(step);
                self.bar.set_message(head.clone());
                self.bar.reset_elapsed();
                self.line(&format!("#{} {head}", step.step))?;
            }
            BuildEvent::Output(entry) => {
                for line in self.lines.take(entry) {
                    self.line(&line)?;
                }
            }
            BuildEvent::StepEnded(step) => {
                for line in self.lines.end(step) {
                    self.line(&line)?;
                }
            }
            BuildEvent::Ended(_) => {
                for line in self.lines.rest() {
                    self.line(&line)?;
                }
                self.bar.finish_and_clear();
            }
            _ => {}
        }
        Ok(())
    }

    /// A word of ours between the lines.
    pub(super) fn note(&self, words: &str) {
        self.bar.suspend(|| view::note(words));
    }

    fn line(&self, line: &str) -> Result<(), Failure> {
        match self.to {
            To::Nowhere => Ok(()),
            To::Stdout => view::line(line),
            To::Stderr => {
                // What nobody reads is no reason to end a build.
                self.bar.suspend(|| {
                    let _ = writeln!(std::io::stderr(), "{line}");
                });
                Ok(())
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What was printed, as lines: pure.
#[derive(Debug, Default)]
struct Lines {
    total: u32,
    attempt: u32,
    /// What was printed behind the last end of a line.
    open: BTreeMap<(u32, bool), Vec<u8>>,
}

impl Lines {
    /// A step, in a line.
    fn head(&self, step: &BuildStep) -> String {
        let mut cmd: String = view::plain(&step.cmd);
        if let Some((cut, _)) = cmd.char_indices().nth(CMD_CHARS_MAX) {
            cmd.truncate(cut);
            cmd.push('…');
        }
        format!("[{}/{}] {cmd}", step.step, self.total)
    }

    /// What to say where the build begins again.
    fn attempt(&mut self, attempt: u32) -> Option<String> {
        let before = std::mem::replace(&mut self.attempt, attempt);
        let again = before > 0 && attempt > before;
        again.then(|| {
            self.open.clear();
            "the build was broken off and begins again".to_owned()
        })
    }

    /// The lines that are whole now.
    fn take(&mut self, entry: &LogEntry) -> Vec<String> {
        let open = self
            .open
            .entry((entry.step, entry.stream == LogStream::Stdout))
            .or_default();
        open.extend_from_slice(&entry.data);
        if entry.stream == LogStream::Note && !open.ends_with(b"\n") {
            open.push(b'\n');
        }
        let mut lines = Vec::new();
        while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = open.drain(..=end).collect();
            lines.push(shown(entry.step, &line));
        }
        if open.len() > LINE_BYTES_MAX {
            lines.push(shown(entry.step, open));
            open.clear();
        }
        lines
    }

    /// What is left of a step, and how it ended.
    fn end(&mut self, step: &BuildStep) -> Vec<String> {
        let mut lines = Vec::new();
        for place in [(step.step, true), (step.step, false)] {
            let left = self.open.remove(&place).filter(|left| !left.is_empty());
            lines.extend(left.map(|left| shown(step.step, &left)));
        }
        let number = step.step;
        lines.push(match (step.ok, step.cached, step.exit_code) {
            (Some(true), true, _) => format!("#{number} cached"),
            (Some(true), false, _) => format!("#{number} done in {}", seconds(step.elapsed_ms)),
            (_, _, Some(code)) => format!("#{number} failed with exit code {code}"),
            (_, _, None) => format!("#{number} failed"),
        });
        lines
    }

    /// What was never ended by a line's end.
    fn rest(&mut self) -> Vec<String> {
        let open = std::mem::take(&mut self.open).into_iter();
        let open = open.filter(|(_, left)| !left.is_empty());
        open.map(|((step, _), left)| shown(step, &left)).collect()
    }
}

/// A line as it is shown: without what a terminal would obey, and as it stood last where it was
/// written over.
fn shown(step: u32, line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').next().unwrap_or_default();
    let text = view::plain(&text.replace('\t', "    "));
    format!("#{step} {text}").trim_end().to_owned()
}

/// A time in seconds, such as `3.1 s`.
pub(super) fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use sandbox_core::{
        build::{BuildPhase, LogCursor},
        clock::Timestamp,
        id::BuildId,
    };
    use uuid::Uuid;

    use super::*;

    fn entry(step: u32, stream: LogStream, data: &[u8]) -> LogEntry {
        LogEntry {
            cursor: LogCursor::new(1, 1),
            step,
            stream,
            data: data.to_vec(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn step(ok: bool, cached: bool, exit_code: Option<i32>) -> BuildStep {
        BuildStep {
            build_id: BuildId::from_uuid(Uuid::nil()),
            attempt: 1,
            step: 2,
            phase: BuildPhase::Recipe,
            cmd: "make\nall".to_owned(),
            exit_code,
            ok: Some(ok),
            elapsed_ms: 3145,
            cached,
            dropped_bytes: 0,
        }
    }

    #[test]
    fn r45_lines_have_their_step_and_are_put_together_per_stream() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(&entry(2, LogStream::Stdout, b"on")), [""; 0]);
        assert_eq!(
            lines.take(&entry(2, LogStream::Stderr, b"oops\n")),
            ["#2 oops"]
        );
        let more = lines.take(&entry(2, LogStream::Stdout, b"e\r\ntwo\n\nthr"));
        assert_eq!(more, ["#2 one", "#2 two", "#2"]);
        let ended = lines.end(&step(true, false, Some(0)));
        assert_eq!(ended, ["#2 thr", "#2 done in 3.1 s"]);
        assert_eq!(lines.end(&step(true, true, None)), ["#2 cached"]);
        let failed = lines.end(&step(false, false, Some(2)));
        assert_eq!(failed, ["#2 failed with exit code 2"]);
        assert_eq!(
            lines.take(&entry(3, LogStream::Note, b"a word")),
            ["#3 a word"]
        );
        lines.take(&entry(4, LogStream::Stdout, b"left"));
        assert_eq!(lines.rest(), ["#4 left"]);
    }

    #[test]
    fn trap_33_what_a_build_prints_commands_no_terminal() {
        let mut lines = Lines::default();
        let told = lines.take(&entry(1, LogStream::Stdout, b"10%\r20%\r\x1b[2Jx\ty\xff\n"));
        assert_eq!(told, ["#1 \u{fffd}[2Jx    y\u{fffd}"]);
        let long = lines.take(&entry(1, LogStream::Stdout, &[b'x'; LINE_BYTES_MAX + 1]));
        assert_eq!(long[0].len(), LINE_BYTES_MAX + 1 + "#1 ".len());
        lines.total = 3;
        assert_eq!(
            lines.head(&step(true, false, None)),
            "[2/3] make\u{fffd}all"
        );
    }

    #[test]
    fn r31_a_build_that_begins_again_says_so() {
        let mut lines = Lines::default();
        assert_eq!(lines.attempt(0), None);
        assert_eq!(lines.attempt(1), None);
        assert!(
            lines
                .attempt(2)
                .is_some_and(|words| words.contains("again"))
        );
        assert_eq!(lines.attempt(2), None);
    }
}
