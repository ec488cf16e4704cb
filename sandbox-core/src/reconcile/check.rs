//! What may never be in a plan, whoever made it.
//!
//! The rules are not those of [`plan`](super::plan) written down again, but what must hold of any
//! plan; tests, every round of the engine, and the administrators' view of a plan all ask
//! [`check`]. An action that breaks one of them is not carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{About, Action, Heard, HostView, Records, waited};
use crate::{
    build::BuildRecord,
    clock::Timestamp,
    host::{HostSandbox, HostSandboxState},
    id::{BuildId, SandboxId, TemplateId},
    lifecycle::{Event, Rule, Standing, rule},
    operation::OperationKind,
    sandbox::{SandboxRecord, SandboxState},
    template::{TemplateRecord, TemplateState},
};

/// What holds of every plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
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
    pub invariant: Invariant,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = match self.invariant {
            Invariant::Single => "there is another action on it",
            Invariant::Version => "it was planned on a version that was not read",
            Invariant::Lease => "someone is at work on it",
            Invariant::Paused => "it is paused, and nobody wants it destroyed",
            Invariant::Grace => "its grace has not passed",
            Invariant::Heard => "its host has not said so",
            Invariant::Table => "the transition table does not allow it",
            Invariant::Used => "it can be used, or is",
        };
        write!(f, "{}: {says}", self.about)
    }
}

/// What of a plan breaks a rule. The arguments are those of [`plan`](super::plan), and its answer.
#[must_use]
pub fn check(
    records: Records<'_>,
    view: &HostView<'_>,
    now: Timestamp,
    actions: &[Action],
) -> Vec<Breach> {
    // Most plans are empty: nothing is made ready for those.
    if actions.is_empty() {
        return Vec::new();
    }
    let known = Known {
        records: records
            .sandboxes
            .iter()
            .map(|record| (record.id, record))
            .collect(),
        builds: records
            .builds
            .iter()
            .map(|record| (record.id, record))
            .collect(),
        templates: records
            .templates
            .iter()
            .map(|record| (record.id, record))
            .collect(),
        machines: match view.heard {
            // Of two with one ID the first counts, as it does for the plan.
            Heard::Report(report) => {
                let machines = report.sandboxes.iter().rev();
                machines.map(|one| (one.id, one)).collect()
            }
            Heard::Stale | Heard::Silent { .. } => BTreeMap::new(),
        },
        used: records
            .sandboxes
            .iter()
            .map(|record| record.template_id)
            .collect(),
        now,
    };
    let mut seen = BTreeSet::new();
    let mut breaches = Vec::new();
    for (number, action) in actions.iter().enumerate() {
        let about = action.about();
        let mut broken = known.broken(action, view);
        if !seen.insert(about) {
            broken.insert(Invariant::Single);
        }
        breaches.extend(broken.into_iter().map(|invariant| Breach {
            action: number,
            about,
            invariant,
        }));
    }
    breaches
}

struct Known<'a> {
    builds: BTreeMap<BuildId, &'a BuildRecord>,
    records: BTreeMap<SandboxId, &'a SandboxRecord>,
    templates: BTreeMap<TemplateId, &'a TemplateRecord>,
    machines: BTreeMap<SandboxId, &'a HostSandbox>,
    used: BTreeSet<TemplateId>,
    now: Timestamp,
}

impl Known<'_> {
    fn broken(&self, action: &Action, view: &HostView<'_>) -> BTreeSet<Invariant> {
        let mut broken = BTreeSet::new();
        let has_grace = |since: Option<&Timestamp>| {
            !since.is_some_and(|since| waited(*since, self.now, view.unknown_grace))
        };
        if !heard_enough(action, view.heard) {
            broken.insert(Invariant::Heard);
        }
        match action.about() {
            About::Sandbox(id) => match (self.records.get(&id), action.version()) {
                (None, None) => {
                    if has_grace(view.unknown_since.get(&id)) {
                        broken.insert(Invariant::Grace);
                    }
                }
                (Some(record), Some(version)) if record.version == version => {
                    broken.extend(self.on_record(action, record));
                }
                _ => {
                    broken.insert(Invariant::Version);
                }
            },
            About::Template(id) => match (self.templates.get(&id), action.version()) {
                (None, None) => {
                    if has_grace(view.unknown_images_since.get(&id)) {
                        broken.insert(Invariant::Grace);
                    }
                }
                (Some(record), Some(version)) if record.version == version => {
                    let legal = match action {
                        Action::GiveUpTemplate { .. } => record.state == TemplateState::Making,
                        Action::ForgetLayer { .. } => record.state == TemplateState::Layer,
                        _ => record.state == TemplateState::Deleting && !self.used.contains(&id),
                    };
                    if !legal {
                        broken.insert(Invariant::Used);
                    }
                    let own = record.operation.as_ref();
                    if record.origin.is_none() && own.is_some_and(|own| own.lease_until > self.now)
                    {
                        broken.insert(Invariant::Lease);
                    }
                }
                _ => {
                    broken.insert(Invariant::Version);
                }
            },
            About::Build(id) => match (self.builds.get(&id), action.version()) {
                (Some(build), Some(version)) if build.version == version => {
                    if build.lease_until.is_some_and(|until| until > self.now) {
                        broken.insert(Invariant::Lease);
                    }
                    if build.status.ended() {
                        broken.insert(Invariant::Table);
                    }
                }
                _ => {
                    broken.insert(Invariant::Version);
                }
            },
        }
        broken
    }

    fn on_record(&self, action: &Action, record: &SandboxRecord) -> BTreeSet<Invariant> {
        let mut broken = BTreeSet::new();
        let operation = record.operation.as_ref();
        if operation.is_some_and(|operation| operation.lease_until > self.now) {
            broken.insert(Invariant::Lease);
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
            broken.insert(Invariant::Heard);
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
        let is_worked_in = || self.builds.values().any(|build| build.works_in(record.id));
        if matches!(action, Action::EndBuildSandbox { .. })
            && (record.build_id.is_none() || is_worked_in())
        {
            broken.insert(Invariant::Used);
        }
        if paused && kept && destroys(action) {
            broken.insert(Invariant::Paused);
        }
        let kind = operation.map(|operation| operation.kind);
        let legal = event(action).is_none_or(|event| {
            matches!(
                rule(record.state, kind, event),
                Rule::Become(..) | Rule::Remove
            )
        });
        if !legal {
            broken.insert(Invariant::Table);
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
                | Action::EndBuild { .. }
                | Action::ForgetLayer { .. }
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
        Action::Expire { .. } | Action::EndBuildSandbox { .. } => Event::BeginDestroy,
        Action::PauseUnused { .. } => Event::BeginPause,
        Action::SettleOperation { standing, .. } => standing.end(),
        Action::CleanUp { .. }
        | Action::DestroyUnknown { .. }
        | Action::GiveUpTemplate { .. }
        | Action::FreeTemplate { .. }
        | Action::EndBuild { .. }
        | Action::ForgetLayer { .. }
        | Action::DeleteUnknownImage { .. } => return None,
    })
}
