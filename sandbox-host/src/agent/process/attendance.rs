//! Whether a process that waits for its readers still has any.
//!
//! ```text
//!            reader asks                      patience over
//!  attended ◄──────────── attended, nobody here ─────────► unattended
//!     │ answered               ▲                               │
//!     └────────────────────────┘        reader asks            │
//!     ◄────────────────────────────────────────────────────────┘
//! ```
//!
//! Pure: the time comes in with each question.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(crate) struct Attendance {
    /// How long readers may stay away; for ever where absent.
    patience: Option<Duration>,
    /// Readers whose questions are not yet answered.
    present: u32,
    seen: Instant,
}

impl Attendance {
    /// Whoever starts a process counts as seen.
    pub(crate) const fn new(patience: Option<Duration>, now: Instant) -> Self {
        Self {
            patience,
            present: 0,
            seen: now,
        }
    }

    pub(crate) const fn arrive(&mut self) {
        self.present += 1;
    }

    pub(crate) fn leave(&mut self, now: Instant) {
        self.present = self.present.saturating_sub(1);
        self.seen = self.seen.max(now);
    }

    /// How long the process goes on waiting if nobody comes; `None` is for ever.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let patience = self.patience?;
        if self.present > 0 {
            return Some(patience);
        }
        Some(patience.saturating_sub(now.saturating_duration_since(self.seen)))
    }

    pub(crate) fn is_attended(&self, now: Instant) -> bool {
        self.present > 0 || self.left(now).is_none_or(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn r36_patience_runs_from_the_last_answer() {
        let start = Instant::now();
        let mut attendance = Attendance::new(Some(PATIENCE), start);
        assert!(attendance.is_attended(start + PATIENCE - SECOND));
        assert!(!attendance.is_attended(start + PATIENCE));

        let later = start + PATIENCE * 5;
        attendance.arrive();
        attendance.arrive();
        assert!(attendance.is_attended(later));
        attendance.leave(later);
        assert!(
            attendance.is_attended(later + PATIENCE * 2),
            "one is still here"
        );
        attendance.leave(later + SECOND);
        assert_eq!(attendance.left(later + SECOND * 4), Some(SECOND * 7));
        assert!(!attendance.is_attended(later + SECOND + PATIENCE));
    }

    #[test]
    fn without_a_limit_it_waits_for_ever() {
        let start = Instant::now();
        let attendance = Attendance::new(None, start);
        assert!(attendance.is_attended(start + PATIENCE * 1_000_000));
        assert_eq!(attendance.left(start), None);
    }
}
