//! Machines that no record knows: how long they have been so, and their end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, HostView, waited};
use crate::{
    clock::Timestamp,
    host::{HostReport, HostSandbox},
    id::SandboxId,
    sandbox::SandboxRecord,
};

/// The end of one that has used up its grace.
pub(super) fn end(machine: &HostSandbox, view: &HostView<'_>, now: Timestamp) -> Option<Action> {
    let since = view.unknown_since.get(&machine.id)?;
    waited(*since, now, view.unknown_grace).then_some(Action::DestroyUnknown {
        id: machine.id,
        generation: machine.generation,
    })
}

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
