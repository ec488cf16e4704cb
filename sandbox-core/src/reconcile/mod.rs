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
//!    While the host is at work on the machine, it ends with nothing: what is shown in the middle of
//!    an order is not how the machine will stand.
//! 3. A machine newer than its record belongs to someone who knows more than this store: left alone.
//! 4. A record past its deadline is destroyed, whatever its state, or paused where it runs and that
//!    is what its creator chose; but nothing is done about one whose machine its host has paused:
//!    time counts while it runs, and nobody knows when it ceased to.
//! 5. Otherwise the host is right about what runs: a record is stopped when its machine is not
//!    there or has ended, with the host's reason, and running or paused when its machine is so,
//!    whatever it said before, unless the host is at work on it. What a failed create left behind on the host is removed, and
//!    so is a machine older than its stopped record.
//! 6. A machine that no record knows is destroyed once it has been seen so for the whole grace.
//! 7. A sandbox of a template build that does not work in it is destroyed, paused or not. A build whose
//!    lease ran out is begun again, or has failed; one that nobody begins in time has failed, too. The
//!    result of a step that no build has used for long is given up.
//! 8. A template that is being made and has no owner any more is given up; a hidden one is freed
//!    when no sandbox was started from it; an image that no template names goes after the grace.
//!
//! That is for a host that has just been heard. A report that is older than one known before says
//! nothing: all is left as it is. Of a host that has been silent for too long the records become
//! missing, which they cease to be with its next report; what nobody works on any more ends so, and
//! what needs no host is done.
//!
//! Records on other hosts than this one are left alone. Templates are read before
//! sandboxes: a template that is being made is then there together with its sandbox's operation, or
//! has been written since. Builds are read after sandboxes: a build names its sandbox before there is
//! one, so that a build which is not seen to name one will never use it.

mod action;
mod builds;
mod check;
mod heard;
mod preview;
mod templates;
#[cfg(test)]
mod tests;
mod unknown;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    build::BuildRecord,
    clock::Timestamp,
    host::{HostReport, HostSandbox, HostSandboxState},
    id::{HostId, SandboxId, TemplateId},
    lifecycle::Standing,
    operation::OperationKind,
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    template::TemplateRecord,
};

pub use action::{About, Action};
pub use check::{Breach, Invariant, check};
pub use heard::{Heard, Silence};
pub use preview::{PlannedAction, Preview};
pub use templates::note_unknown_images;
pub use unknown::note_unknown;

/// How a host stands, taken after the records were read.
#[derive(Debug, Clone, Copy)]
pub struct HostView<'a> {
    /// Which host.
    pub host_id: HostId,
    /// What it says.
    pub heard: Heard<'a>,
    /// Machines that no record knows, in this report and all those before it, and since when; see
    /// [`note_unknown`].
    pub unknown_since: &'a BTreeMap<SandboxId, Timestamp>,
    /// Images that no template names, in this report and all those before it, and since when; see
    /// [`note_unknown_images`].
    pub unknown_images_since: &'a BTreeMap<TemplateId, Timestamp>,
    /// For how long a machine or an image must be unknown before it is destroyed.
    pub unknown_grace: Duration,
    /// For how long the result of a build's step is kept that no build uses.
    pub layer_retention: Duration,
}

/// All records that there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Records<'a> {
    /// All sandboxes; one that is left out makes its machine unknown.
    pub sandboxes: &'a [SandboxRecord],
    /// All templates; one that is left out makes its image unknown.
    pub templates: &'a [TemplateRecord],
    /// All builds that have not ended; one that is left out makes its sandbox left over.
    pub builds: &'a [BuildRecord],
}

/// What to do, in no particular order: at most one action for each sandbox and each template.
#[must_use]
pub fn plan(records: Records<'_>, view: &HostView<'_>, now: Timestamp) -> Vec<Action> {
    let Records {
        sandboxes,
        templates,
        ..
    } = records;
    let here = |record: &&SandboxRecord| record.host_id.is_none_or(|host| host == view.host_id);
    match view.heard {
        Heard::Stale => Vec::new(),
        Heard::Silent { since } => sandboxes
            .iter()
            .filter(here)
            .filter_map(|record| in_silence(record, since, now))
            .chain(templates::plan_in_silence(sandboxes, templates, view, now))
            .chain(builds::plan(records, view, now))
            .collect(),
        Heard::Report(report) => {
            let worked_in = builds::worked_in(records.builds);
            pairs(sandboxes, &report.sandboxes)
                .filter_map(|(record, machine)| match (record, machine) {
                    (Some(record), machine) if here(&record) => {
                        let seen = Seen::of(record, machine.as_ref());
                        let left_over = builds::is_left_over(record, &worked_in);
                        settle(record, seen, left_over, now)
                            .filter(|action| at_rest(machine) || !action.believes_the_host())
                    }
                    (Some(_), _) => None,
                    (None, Some(machine)) => unknown::end(machine, view, now),
                    (None, None) => None,
                })
                .chain(templates::plan(sandboxes, templates, report, view, now))
                .chain(builds::plan(records, view, now))
                .collect()
        }
    }
}

/// Each record with its machine, each machine without a record, by ID: one walk along both.
fn pairs<'r, 'm>(
    records: &'r [SandboxRecord],
    machines: &'m [HostSandbox],
) -> impl Iterator<Item = (Option<&'r SandboxRecord>, Option<&'m HostSandbox>)> {
    let mut records = by_id(records, |record| record.id).peekable();
    let mut machines = by_id(machines, |machine| machine.id).peekable();
    std::iter::from_fn(move || {
        let record_id = records.peek().map(|record| record.id);
        let alone = |machine: &&HostSandbox| record_id.is_none_or(|record| machine.id < record);
        if let Some(machine) = machines.next_if(alone) {
            return Some((None, Some(machine)));
        }
        let record = records.next()?;
        Some((
            Some(record),
            machines.next_if(|machine| machine.id == record.id),
        ))
    })
}

/// Items by ID, each once. Stores and hosts give them so, and then nothing is made ready.
fn by_id<T, K: Ord>(items: &[T], id: impl Fn(&T) -> K) -> impl Iterator<Item = &T> {
    let (in_order, mut apart) = match items.is_sorted_by(|one, next| id(one) < id(next)) {
        true => (items, Vec::new()),
        false => (&items[..0], items.iter().collect()),
    };
    apart.sort_by_key(|item| id(item));
    apart.dedup_by_key(|item| id(item));
    in_order.iter().chain(apart)
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

    /// How it stands, if only for now: see [`at_rest`](at_rest).
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

/// How a record's machine stands, by a report that was given after the record was read. `None`
/// while its host is at work on it.
#[must_use]
pub fn standing(record: &SandboxRecord, report: &HostReport) -> Option<Standing> {
    let machine = report
        .sandboxes
        .iter()
        .find(|machine| machine.id == record.id);
    at_rest(machine).then(|| Seen::of(record, machine.as_ref()).standing())
}

/// Whether a machine stands as it is shown until someone orders otherwise, or it ends.
fn at_rest(machine: Option<&HostSandbox>) -> bool {
    machine.is_none_or(|machine| !machine.at_work)
}

fn settle(
    record: &SandboxRecord,
    seen: Seen<'_>,
    left_over: bool,
    now: Timestamp,
) -> Option<Action> {
    let (id, version) = (record.id, record.version);
    match &record.operation {
        Some(operation) if operation.lease_until > now => None,
        Some(operation) => Some(match (operation.kind, seen) {
            (OperationKind::Create, Seen::Running) => Action::CompleteCreate { id, version },
            (kind, seen) => unowned(record, kind, seen.standing()),
        }),
        None if left_over && seen != Seen::Newer => Some(Action::EndBuildSandbox { id, version }),
        None if record.expires_at.is_some_and(|at| at <= now) => {
            match (record.on_timeout, record.state, seen) {
                (_, _, Seen::Newer) => idle(record, seen),
                (OnTimeout::Destroy, SandboxState::Error, _) => {
                    Some(Action::Expire { id, version })
                }
                // What was missing has a lifetime again once it is found.
                (OnTimeout::Destroy, state, seen)
                    if seen != Seen::Paused && state != SandboxState::Missing =>
                {
                    Some(Action::Expire { id, version })
                }
                (OnTimeout::Pause, SandboxState::Running, Seen::Running) => {
                    Some(Action::PauseUnused { id, version })
                }
                _ => idle(record, seen),
            }
        }
        None => idle(record, seen),
    }
}

/// An operation whose lease ran out, with its machine standing so.
fn unowned(record: &SandboxRecord, kind: OperationKind, standing: Standing) -> Action {
    let (id, version) = (record.id, record.version);
    match kind {
        OperationKind::Destroy => Action::RedoDestroy { id, version },
        OperationKind::Create | OperationKind::Import => Action::UndoCreate { id, version },
        OperationKind::Pause | OperationKind::Resume | OperationKind::Snapshot => {
            Action::SettleOperation {
                id,
                version,
                standing,
            }
        }
    }
}

/// A record whose host has been silent for too long.
fn in_silence(record: &SandboxRecord, since: Timestamp, now: Timestamp) -> Option<Action> {
    let (id, version) = (record.id, record.version);
    let reason = format!(
        "its host has not been heard since {}",
        since.format("%Y-%m-%d %H:%M:%S UTC")
    );
    match (&record.operation, record.state) {
        (Some(operation), _) if operation.lease_until > now => None,
        (Some(operation), _) => Some(unowned(
            record,
            operation.kind,
            Standing::Unknown { reason },
        )),
        // A deadline waits for the host: nobody can use what does not answer.
        (None, SandboxState::Running | SandboxState::Paused | SandboxState::Stopped) => {
            Some(Action::MarkMissing {
                id,
                version,
                reason,
            })
        }
        (None, SandboxState::Pending | SandboxState::Error | SandboxState::Missing) => None,
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
