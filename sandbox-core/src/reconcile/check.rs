//! What may never be in a plan, whoever made it.
//!
//! The rules are not those of [`plan`](super::plan) written down again, but what must hold of any
//! plan; tests, every round of the engine, and the administrators' view of a plan all ask
//! [`check`]. An action that breaks one of them is not carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{About, Action, Heard, HostView, waited};
use crate::{
    clock::Timestamp,
    host::{HostSandbox, HostSandboxState},
    id::{SandboxId, TemplateId},
    lifecycle::{Event, Rule, Standing, rule},
    operation::OperationKind,
    sandbox::{SandboxRecord, SandboxState},
    template::{TemplateRecord, TemplateState},
};

/// A rule that an action breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rules {
    /// One sandbox or template has one action at most.
    Single,
    /// An action is planned on the version that was read, of a record that was read.
    Version,
    /// Nobody's work is touched while its lease lasts.
    Lease,
    /// What is paused is never destroyed but on someone's order.
    Paused,
    /// What no record knows has its grace.
    Grace,
    /// Nothing is destroyed, and nothing called running, paused or stopped, on the word of a host
    /// that is silent or of an old report; nor called so while the host is at work on it.
    Heard,
    /// The transition table allows it.
    Table,
    /// The files of a template stay while a sandbox was started from it, or while it can be used.
    Used,
}

/// A broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breach {
    /// Which action, by its place in the plan.
    pub action: usize,
    /// What it is about.
    pub about: About,
    /// Which rule.
    pub rule: Rules,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = match self.rule {
            Rules::Single => "there is another action on it",
            Rules::Version => "it was planned on a version that was not read",
            Rules::Lease => "someone is at work on it",
            Rules::Paused => "it is paused, and nobody wants it destroyed",
            Rules::Grace => "its grace has not passed",
            Rules::Heard => "its host has not said so",
            Rules::Table => "the transition table does not allow it",
            Rules::Used => "it can be used, or is",
        };
        write!(f, "{}: {says}", self.about)
    }
}

/// What of a plan breaks a rule. The arguments are those of [`plan`](super::plan), and its answer.
#[must_use]
pub fn check(
    records: &[SandboxRecord],
    templates: &[TemplateRecord],
    view: &HostView<'_>,
    now: Timestamp,
    actions: &[Action],
) -> Vec<Breach> {
    // Most plans are empty: nothing is made ready for those.
    if actions.is_empty() {
        return Vec::new();
    }
    let known = Known {
        records: records.iter().map(|record| (record.id, record)).collect(),
        templates: templates.iter().map(|record| (record.id, record)).collect(),
        machines: match view.heard {
            // Of two with one ID the first counts, as it does for the plan.
            Heard::Report(report) => {
                let machines = report.sandboxes.iter().rev();
                machines.map(|one| (one.id, one)).collect()
            }
            Heard::Stale | Heard::Silent { .. } => BTreeMap::new(),
        },
        used: records.iter().map(|record| record.template_id).collect(),
        now,
    };
    let mut seen = BTreeSet::new();
    let mut breaches = Vec::new();
    for (number, action) in actions.iter().enumerate() {
        let about = action.about();
        let mut broken = known.broken(action, view);
        if !seen.insert(about) {
            broken.insert(Rules::Single);
        }
        breaches.extend(broken.into_iter().map(|rule| Breach {
            action: number,
            about,
            rule,
        }));
    }
    breaches
}

struct Known<'a> {
    records: BTreeMap<SandboxId, &'a SandboxRecord>,
    templates: BTreeMap<TemplateId, &'a TemplateRecord>,
    machines: BTreeMap<SandboxId, &'a HostSandbox>,
    used: BTreeSet<TemplateId>,
    now: Timestamp,
}

impl Known<'_> {
    fn broken(&self, action: &Action, view: &HostView<'_>) -> BTreeSet<Rules> {
        let mut broken = BTreeSet::new();
        if !heard_enough(action, view.heard) {
            broken.insert(Rules::Heard);
        }
        match action.about() {
            About::Sandbox(id) => match (self.records.get(&id), action.version()) {
                (None, None) => {
                    let since = view.unknown_since.get(&id);
                    if !since.is_some_and(|since| waited(*since, self.now, view.unknown_grace)) {
                        broken.insert(Rules::Grace);
                    }
                }
                (Some(record), Some(version)) if record.version == version => {
                    broken.extend(self.on_record(action, record));
                }
                _ => {
                    broken.insert(Rules::Version);
                }
            },
            About::Template(id) => match (self.templates.get(&id), action.version()) {
                (None, None) => {
                    let since = view.unknown_images_since.get(&id);
                    if !since.is_some_and(|since| waited(*since, self.now, view.unknown_grace)) {
                        broken.insert(Rules::Grace);
                    }
                }
                (Some(record), Some(version)) if record.version == version => {
                    let legal = match action {
                        Action::GiveUpTemplate { .. } => record.state == TemplateState::Making,
                        _ => record.state == TemplateState::Deleting && !self.used.contains(&id),
                    };
                    if !legal {
                        broken.insert(Rules::Used);
                    }
                    let own = record.operation.as_ref();
                    if record.origin.is_none() && own.is_some_and(|own| own.lease_until > self.now)
                    {
                        broken.insert(Rules::Lease);
                    }
                }
                _ => {
                    broken.insert(Rules::Version);
                }
            },
        }
        broken
    }

    fn on_record(&self, action: &Action, record: &SandboxRecord) -> BTreeSet<Rules> {
        let mut broken = BTreeSet::new();
        let operation = record.operation.as_ref();
        if operation.is_some_and(|operation| operation.lease_until > self.now) {
            broken.insert(Rules::Lease);
        }
        let machine = self.machines.get(&record.id);
        let unsteady = machine.is_some_and(|machine| machine.at_work);
        let called = matches!(
            action,
            Action::MarkStopped { .. }
                | Action::MarkRunning { .. }
                | Action::MarkPaused { .. }
                | Action::CompleteCreate { .. }
                | Action::SettleOperation { .. }
        );
        if unsteady && called {
            broken.insert(Rules::Heard);
        }
        let paused = machine.is_some_and(|machine| {
            machine.generation >= record.generation && machine.state == HostSandboxState::Paused
        });
        // What could not be created was never anybody's; an order to destroy is someone's.
        let kept = record.state != SandboxState::Error
            && operation.is_none_or(|operation| {
                !matches!(
                    operation.kind,
                    OperationKind::Create | OperationKind::Destroy
                )
            });
        if paused && kept && destroys(action) {
            broken.insert(Rules::Paused);
        }
        let kind = operation.map(|operation| operation.kind);
        let legal = event(action).is_none_or(|event| {
            matches!(
                rule(record.state, kind, event),
                Rule::Become(..) | Rule::Remove
            )
        });
        if !legal {
            broken.insert(Rules::Table);
        }
        broken
    }
}

/// Whether something that a machine holds is lost by it.
const fn destroys(action: &Action) -> bool {
    matches!(
        action,
        Action::Expire { .. }
            | Action::CleanUp { .. }
            | Action::UndoCreate { .. }
            | Action::MarkStopped { .. }
            | Action::DestroyUnknown { .. }
    )
}

/// Whether the host's word is enough for an action.
const fn heard_enough(action: &Action, heard: Heard<'_>) -> bool {
    match heard {
        Heard::Report(_) => !matches!(
            action,
            Action::MarkMissing { .. }
                | Action::SettleOperation {
                    standing: Standing::Unknown { .. },
                    ..
                }
        ),
        Heard::Stale => false,
        Heard::Silent { .. } => matches!(
            action,
            Action::MarkMissing { .. }
                | Action::SettleOperation {
                    standing: Standing::Unknown { .. },
                    ..
                }
                | Action::RedoDestroy { .. }
                | Action::UndoCreate { .. }
                | Action::GiveUpTemplate { .. }
        ),
    }
}

/// What an action does to a record; absent where it does nothing to it.
const fn event(action: &Action) -> Option<Event> {
    Some(match action {
        Action::MarkStopped { .. } => Event::MachineEnded,
        Action::MarkRunning { .. } => Event::MachineFound,
        Action::MarkPaused { .. } => Event::PausedFound,
        Action::MarkMissing { .. } => Event::HostSilent,
        Action::CompleteCreate { .. } => Event::CreateSucceeded,
        Action::UndoCreate { .. } => Event::CreateUndone,
        Action::RedoDestroy { .. } => Event::ExtendLease,
        Action::Expire { .. } => Event::BeginDestroy,
        Action::PauseUnused { .. } => Event::BeginPause,
        Action::SettleOperation { standing, .. } => match standing {
            Standing::Running => Event::EndedRunning,
            Standing::Paused => Event::EndedPaused,
            Standing::Stopped { .. } => Event::EndedStopped,
            Standing::Unknown { .. } => Event::EndedMissing,
        },
        Action::CleanUp { .. }
        | Action::DestroyUnknown { .. }
        | Action::GiveUpTemplate { .. }
        | Action::FreeTemplate { .. }
        | Action::DeleteUnknownImage { .. } => return None,
    })
}
