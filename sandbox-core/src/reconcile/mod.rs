//! What to do when the store and a host disagree: [`plan`], a pure and total function.
//!
//! Lives here: every decision about a record that nobody works on, and about a machine that no
//! record knows. Never lives here: doing any of it. The engine carries each [`Action`] out by
//! compare-and-set on the version that it was planned on, and chooses nothing; an action that comes
//! too late does nothing, and the next round plans anew.
//!
//! **The store is read before the host.** A machine that starts between the two reads then shows
//! as running against a record that is still pending under a live lease, and is left alone. Read
//! the other way round, a record would be running against a report from before its machine was
//! there, and would be called stopped for ever.
//!
//! Rules, in this order:
//! 1. A record with a live lease has an owner at work: never touched.
//! 2. A lease that ran out: a destroy is done again; a create whose machine runs is complete; any
//!    other create is undone, on the host and in the store. A pause, resume or snapshot ends with
//!    the state that the host shows; it has succeeded where that is what it was for.
//! 3. A record past its deadline is destroyed, whatever its state; but not one whose machine its host
//!    has paused: time counts while it runs, and nobody knows when it ceased to.
//! 4. A machine newer than its record belongs to someone who knows more than this store: left alone.
//! 5. Otherwise the host is right about what runs: a record is stopped when its machine is not
//!    there or has ended, with the host's reason, and running or paused when its machine is so,
//!    whatever it said before. What a failed create left behind on the host is removed, and
//!    so is a machine older than its stopped record.
//! 6. A machine that no record knows is destroyed once it has been seen so for the whole grace.
//! 7. A template that is being made and has no owner any more is given up; a hidden one is freed
//!    when no sandbox was started from it; an image that no template names goes after the grace.
//!
//! Records on other hosts than the reporting one are left alone. Templates are read before
//! sandboxes: a template that is being made is then there together with its sandbox's operation, or
//! has been written since.

mod action;
mod templates;
#[cfg(test)]
mod tests;
mod unknown;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    clock::Timestamp,
    host::{HostReport, HostSandbox, HostSandboxState},
    id::{SandboxId, TemplateId},
    lifecycle::Standing,
    operation::OperationKind,
    sandbox::{SandboxRecord, SandboxState},
    template::TemplateRecord,
};

pub use action::{About, Action};
pub use templates::note_unknown_images;
pub use unknown::note_unknown;

/// How a host stands, taken after the records were read.
#[derive(Debug, Clone, Copy)]
pub struct HostView<'a> {
    /// What it reported.
    pub report: &'a HostReport,
    /// Machines that no record knows, in this report and all those before it, and since when; see
    /// [`note_unknown`].
    pub unknown_since: &'a BTreeMap<SandboxId, Timestamp>,
    /// Images that no template names, in this report and all those before it, and since when; see
    /// [`note_unknown_images`].
    pub unknown_images_since: &'a BTreeMap<TemplateId, Timestamp>,
    /// For how long a machine or an image must be unknown before it is destroyed.
    pub unknown_grace: Duration,
}

/// What to do, in no particular order: at most one action for each sandbox and each template.
///
/// `records` and `templates` must be all there are; one that is left out makes its machine or image
/// unknown.
#[must_use]
pub fn plan(
    records: &[SandboxRecord],
    templates: &[TemplateRecord],
    view: &HostView<'_>,
    now: Timestamp,
) -> Vec<Action> {
    let machines: BTreeMap<SandboxId, &HostSandbox> = view
        .report
        .sandboxes
        .iter()
        .map(|machine| (machine.id, machine))
        .collect();
    let known: BTreeSet<SandboxId> = records.iter().map(|record| record.id).collect();
    let here = |record: &&SandboxRecord| {
        record
            .host_id
            .is_none_or(|host| host == view.report.host_id)
    };
    let for_records = records
        .iter()
        .filter(here)
        .filter_map(|record| settle(record, Seen::of(record, machines.get(&record.id)), now));
    let for_machines = machines
        .values()
        .filter(|machine| !known.contains(&machine.id))
        .filter(|machine| {
            view.unknown_since
                .get(&machine.id)
                .is_some_and(|since| waited(*since, now, view.unknown_grace))
        })
        .map(|machine| Action::DestroyUnknown {
            id: machine.id,
            generation: machine.generation,
        });
    for_records
        .chain(for_machines)
        .chain(templates::plan(records, templates, view, now))
        .collect()
}

fn waited(since: Timestamp, now: Timestamp, grace: Duration) -> bool {
    now.signed_duration_since(since)
        .to_std()
        .is_ok_and(|waited| waited >= grace)
}

/// A host's view of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen<'a> {
    Absent,
    Creating,
    Running,
    Paused,
    Ended(&'a str),
    Older,
    Newer,
}

impl<'a> Seen<'a> {
    fn of(record: &SandboxRecord, machine: Option<&&'a HostSandbox>) -> Self {
        let Some(machine) = machine else {
            return Self::Absent;
        };
        match machine.generation.cmp(&record.generation) {
            std::cmp::Ordering::Less => Self::Older,
            std::cmp::Ordering::Greater => Self::Newer,
            std::cmp::Ordering::Equal => match &machine.state {
                HostSandboxState::Creating => Self::Creating,
                HostSandboxState::Running => Self::Running,
                HostSandboxState::Paused => Self::Paused,
                HostSandboxState::Stopped { reason } => Self::Ended(reason),
            },
        }
    }

    fn standing(self) -> Standing {
        match self {
            Self::Running => Standing::Running,
            Self::Paused => Standing::Paused,
            Self::Absent | Self::Creating | Self::Ended(_) | Self::Older | Self::Newer => {
                Standing::Stopped {
                    reason: self.why_stopped(),
                }
            }
        }
    }

    fn why_stopped(self) -> String {
        match self {
            Self::Ended(reason) => reason.to_owned(),
            Self::Creating => "its host never finished making its machine".to_owned(),
            Self::Newer => "its host has a newer machine than the one that is recorded".to_owned(),
            _ => "its host no longer holds its machine".to_owned(),
        }
    }
}

/// How a record's machine stands, by a report that was given after the record was read.
#[must_use]
pub fn standing(record: &SandboxRecord, report: &HostReport) -> Standing {
    let machine = report
        .sandboxes
        .iter()
        .find(|machine| machine.id == record.id);
    Seen::of(record, machine.as_ref()).standing()
}

fn settle(record: &SandboxRecord, seen: Seen<'_>, now: Timestamp) -> Option<Action> {
    let (id, version) = (record.id, record.version);
    match &record.operation {
        Some(operation) if operation.lease_until > now => None,
        Some(operation) => Some(match (operation.kind, seen) {
            (OperationKind::Destroy, _) => Action::RedoDestroy { id, version },
            (OperationKind::Create, Seen::Running) => Action::CompleteCreate { id, version },
            (OperationKind::Create | OperationKind::Import, _) => {
                Action::UndoCreate { id, version }
            }
            (OperationKind::Pause | OperationKind::Resume | OperationKind::Snapshot, seen) => {
                Action::SettleOperation {
                    id,
                    version,
                    standing: seen.standing(),
                }
            }
        }),
        None if record.expires_at.is_some_and(|at| at <= now)
            && (seen != Seen::Paused || record.state == SandboxState::Error) =>
        {
            Some(Action::Expire { id, version })
        }
        None => idle(record, seen),
    }
}

/// A record with no operation and no reason to expire.
fn idle(record: &SandboxRecord, seen: Seen<'_>) -> Option<Action> {
    let (id, version) = (record.id, record.version);
    let clean_up = || Action::CleanUp {
        id,
        version,
        generation: record.generation,
    };
    match (record.state, seen) {
        (SandboxState::Running, Seen::Running)
        | (SandboxState::Paused, Seen::Paused)
        | (SandboxState::Error, Seen::Absent)
        | (_, Seen::Newer) => None,
        (SandboxState::Error, _) | (SandboxState::Stopped, Seen::Older) => Some(clean_up()),
        (_, Seen::Running) => Some(Action::MarkRunning { id, version }),
        (_, Seen::Paused) => Some(Action::MarkPaused { id, version }),
        // What a stopped sandbox has on its host is kept.
        (SandboxState::Stopped, Seen::Absent | Seen::Creating | Seen::Ended(_)) => None,
        // Of a paused one the memory is lost; to say anything else would be a lie.
        (
            SandboxState::Running
            | SandboxState::Missing
            | SandboxState::Pending
            | SandboxState::Paused,
            Seen::Absent | Seen::Creating | Seen::Ended(_) | Seen::Older,
        ) => Some(Action::MarkStopped {
            id,
            version,
            reason: seen.why_stopped(),
        }),
    }
}
