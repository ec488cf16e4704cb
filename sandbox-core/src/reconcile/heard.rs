//! What a host's word is worth: new, old, or none.
//!
//! ```text
//!  report ──► number ≥ the newest known ──► Report
//!    │            └── less ────────────────► Stale
//!  none  ──► someone heard it lately ──────► nothing to plan on
//!                 └── nobody for too long ─► Silent
//! ```

use std::time::Duration;

use super::waited;
use crate::{
    clock::Timestamp,
    host::{HostReport, HostSeen, ReportNumber},
};

/// What a host says.
#[derive(Debug, Clone, Copy)]
pub enum Heard<'a> {
    /// How everything stands there.
    Report(&'a HostReport),
    /// How everything stood there before what is known already.
    Stale,
    /// Nothing, to anyone, since then, and for longer than is to be waited.
    Silent {
        /// Since when.
        since: Timestamp,
    },
}

impl<'a> Heard<'a> {
    /// A report's worth beside the newest that is known.
    #[must_use]
    pub fn of(report: &'a HostReport, newest: Option<ReportNumber>) -> Self {
        match newest.is_some_and(|newest| report.number() < newest) {
            true => Self::Stale,
            false => Self::Report(report),
        }
    }
}

/// For how long nobody has heard a host.
///
/// It is measured here by what others note, and by no clock of theirs: for as long as the note that
/// all share is replaced, someone hears the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    note: Option<HostSeen>,
    since: Timestamp,
}

impl Silence {
    /// The host gave no report, and this is the note that is there. `before` is the last answer,
    /// absent after a report.
    #[must_use]
    pub fn goes_on(before: Option<Self>, note: Option<HostSeen>, now: Timestamp) -> Self {
        match before {
            Some(before) if before.note == note => before,
            _ => Self { note, since: now },
        }
    }

    /// What this comes to, once it has lasted for longer than is to be waited.
    #[must_use]
    pub fn heard(&self, now: Timestamp, patience: Duration) -> Option<Heard<'static>> {
        let since = self.note.map_or(self.since, |note| note.seen_at);
        waited(self.since, now, patience).then_some(Heard::Silent { since })
    }
}
