//! Memory for machines that no record knows.

use std::collections::{BTreeMap, BTreeSet};

use crate::{clock::Timestamp, host::HostReport, id::SandboxId, sandbox::SandboxRecord};

/// Carries the list of unknown machines from one report to the next: those that became known or
/// went away drop out, so that a machine must be unknown without a break to use up its grace.
#[must_use]
pub fn note_unknown(
    before: &BTreeMap<SandboxId, Timestamp>,
    records: &[SandboxRecord],
    report: &HostReport,
    now: Timestamp,
) -> BTreeMap<SandboxId, Timestamp> {
    let known: BTreeSet<SandboxId> = records.iter().map(|record| record.id).collect();
    report
        .sandboxes
        .iter()
        .map(|machine| machine.id)
        .filter(|id| !known.contains(id))
        .map(|id| (id, before.get(&id).copied().unwrap_or(now)))
        .collect()
}
