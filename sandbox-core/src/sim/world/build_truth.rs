//! What really came about of template builds, and what may never be seen there.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::{
    build::{BuildRecord, BuildStatus, LogCursor, LogEntry},
    clock::Clock,
    id::{BuildId, SandboxId, TemplateId},
    lifecycle::build::ATTEMPTS_MAX,
    store::{BuildWrite, TemplateChange, TemplateWrite},
    template::{TemplateRecord, TemplateState},
};

/// What came about of builds so far.
#[derive(Debug, Default)]
pub(super) struct BuildTruth {
    records: BTreeMap<BuildId, BuildRecord>,
    /// Who claimed the attempt at work.
    workers: BTreeMap<BuildId, usize>,
    /// Every sandbox that a claim has named.
    sandboxes: BTreeMap<SandboxId, BuildId>,
    log: BTreeMap<(BuildId, LogCursor), LogEntry>,
}

impl BuildTruth {
    /// Every build that there ever was, as it was written last.
    pub(super) fn all(&self) -> impl Iterator<Item = &BuildRecord> {
        self.records.values()
    }

    pub(super) fn get(&self, id: BuildId) -> Option<&BuildRecord> {
        self.records.get(&id)
    }

    /// What is wrong with a record that was written over another.
    fn wrong(&self, before: &BuildRecord, next: &BuildRecord, plane: usize) -> Option<String> {
        use BuildStatus::{Cancelled, Failed, Pending, Running, Success};
        let own = self.workers.get(&next.id) == Some(&plane);
        let moved = (before.status, next.status);
        let same_attempt = next.attempt == before.attempt;
        if next.version != before.version + 1 {
            let (from, to) = (before.version, next.version);
            return Some(format!("went from version {from} to {to}"));
        }
        if before.status.ended() {
            return Some(format!("had ended, and went {moved:?}"));
        }
        if next.attempt.saturating_sub(next.handed_back) > ATTEMPTS_MAX {
            return Some(format!("is begun too often: {next:?}"));
        }
        if next.handed_back < before.handed_back || next.handed_back > next.attempt {
            return Some(format!("counts attempts wrongly: {next:?}"));
        }
        let right = match moved {
            (Pending, Running) => {
                let fresh = |id: &SandboxId| !self.sandboxes.contains_key(id);
                next.attempt == before.attempt + 1 && next.sandbox_id.as_ref().is_some_and(fresh)
            }
            (Running, Running) => own && same_attempt && next.sandbox_id == before.sandbox_id,
            (Running, Pending) => same_attempt && next.sandbox_id.is_none(),
            (Running, Success) => own && same_attempt,
            (Pending | Running, Failed | Cancelled) => same_attempt && next.sandbox_id.is_none(),
            _ => false,
        };
        (!right).then(|| format!("went {moved:?} by engine {plane}: {before:?} to {next:?}"))
    }
}

impl World {
    /// A build as it was written last.
    pub(super) fn built(&self, id: BuildId) -> Option<BuildRecord> {
        self.lock().truth.builds.get(id).cloned()
    }

    /// A build was written, and its templates with it.
    pub(super) fn build_written(&self, write: &BuildWrite, plane: usize) {
        let next = &write.record;
        let id = next.id;
        for template in &write.templates {
            self.template_written_by(template, Some(next));
        }
        self.note(next.status.as_str(), id.uuid().as_u128(), || {
            format!(
                "{id} v{} attempt {} step {}: {:?} {:?} {:?}",
                next.version,
                next.attempt,
                next.current_step,
                next.sandbox_id,
                next.template_id,
                next.failure
            )
        });
        let now = self.clock.now();
        let (before, wrong, robbed) = {
            let inner = &mut *self.lock();
            let clocks_jump = inner.clocks_jump;
            let truth = &mut inner.truth;
            if let Some(entry) = &write.audit {
                truth.audit(entry);
            }
            let builds = &mut truth.builds;
            let before = builds.records.get(&id).cloned();
            let wrong = match &before {
                Some(before) => builds.wrong(before, next, plane),
                None => builds.wrongly_new(next),
            };
            let robbed = before.as_ref().is_some_and(|before| {
                before.status == BuildStatus::Running
                    && next.status != BuildStatus::Cancelled
                    && builds.workers.get(&id) != Some(&plane)
                    && before.lease_until.is_some_and(|until| until > now)
            });
            if let Some(sandbox) = next.sandbox_id {
                builds.sandboxes.insert(sandbox, id);
            }
            let claims = before.as_ref().map(|before| before.status) != Some(next.status);
            if claims && next.status == BuildStatus::Running {
                builds.workers.insert(id, plane);
            }
            builds.records.insert(id, next.clone());
            (before, wrong, robbed && !clocks_jump)
        };
        if let Some(wrong) = wrong {
            self.violated(|| format!("{id} {wrong}"));
        }
        if robbed {
            self.violated(|| format!("{id} was taken from a worker at work: {next:?}"));
        }
        let changed = before.is_none_or(|before| before.status != next.status);
        if changed != write.audit.is_some() {
            self.violated(|| format!("{id}: changed {changed}, audited {:?}", write.audit));
        }
        let strays = write.steps.iter().any(|step| {
            step.build_id != id || step.attempt != next.attempt || step.step > next.total_steps
        });
        if strays {
            self.violated(|| format!("{id} has steps of another: {:?}", write.steps));
        }
        self.check_outcome(write);
    }

    /// Success has a template that is there; nothing else has any.
    fn check_outcome(&self, write: &BuildWrite) {
        let next = &write.record;
        let id = next.id;
        if next.status != BuildStatus::Success {
            if !write.templates.is_empty() || next.template_id.is_some() {
                self.violated(|| format!("{id} is no success, and published: {write:?}"));
            }
            let reasoned = next.failure.as_ref().is_some_and(|f| !f.message.is_empty());
            if (next.status == BuildStatus::Failed) != reasoned {
                self.violated(|| format!("{id} failed, or not, without saying so: {next:?}"));
            }
            return;
        }
        let made = next.template_id;
        let there = made.and_then(|made| self.lock().truth.templates.get(&made).cloned());
        let ready = there.as_ref().is_some_and(|template| {
            template.state == TemplateState::Ready
                && (&template.name, template.team_id) == (&next.name, next.team_id)
        });
        if !ready {
            self.violated(|| format!("{id} is a success, and its template is {there:?}"));
        }
        let held = |made: TemplateId| self.host.images().iter().any(|image| image.id == made);
        if !made.is_some_and(held) {
            self.violated(|| format!("{id} is a success, and its host has no image of {made:?}"));
        }
    }

    /// What a write of a template may not do to its name; `by` is the build that it belongs to.
    pub(super) fn check_naming(
        &self,
        write: &TemplateWrite,
        before: Option<&TemplateRecord>,
        by: Option<&BuildRecord>,
    ) {
        let TemplateChange::Update(next) = &write.change else {
            return;
        };
        let id = next.id;
        let Some(before) = before else {
            return;
        };
        let to_build = |record: &TemplateRecord| {
            by.is_some_and(|by| {
                by.status == BuildStatus::Success
                    && (&by.name, by.team_id) == (&record.name, record.team_id)
            })
        };
        let renamed = (&before.name, before.team_id) != (&next.name, next.team_id);
        if renamed && !(to_build(next) && before.state == TemplateState::Layer) {
            self.violated(|| format!("{id} changed its name without a build: {next:?}"));
        }
        let origin = next.origin;
        let built = origin.is_some_and(|origin| {
            let builds = &self.lock().truth.builds;
            builds.sandboxes.contains_key(&origin)
        });
        let becomes_ready =
            before.state != TemplateState::Ready && next.state == TemplateState::Ready;
        if built && becomes_ready && !to_build(next) {
            self.violated(|| format!("{id} was published without its build: {next:?}"));
        }
        if by.is_some() && next.state == TemplateState::Deleting {
            if !to_build(before) {
                self.violated(|| format!("{id} was replaced by what has another name: {by:?}"));
            }
            self.book(|book| book.unwanted.insert(id));
        }
    }

    /// Pieces of a log were written. They are written once and never changed.
    pub(super) fn logged(&self, id: BuildId, entries: &[LogEntry]) {
        let changed = {
            let log = &mut self.lock().truth.builds.log;
            let mut changed = None;
            for entry in entries {
                let there = log
                    .entry((id, entry.cursor))
                    .or_insert_with(|| entry.clone());
                if there != entry {
                    changed = Some((there.clone(), entry.clone()));
                }
            }
            changed
        };
        self.note("store: log", entries.len() as u128, || {
            format!("{id} {:?}", entries.iter().map(|entry| entry.cursor))
        });
        if let Some((was, is)) = changed {
            self.violated(|| format!("{id}: a piece of its log changed from {was:?} to {is:?}"));
        }
    }

    /// Compares a piece that a client has read with what was written.
    pub(super) fn check_read(&self, id: BuildId, entry: &LogEntry) {
        let written = {
            let builds = &self.lock().truth.builds;
            builds.log.get(&(id, entry.cursor)).cloned()
        };
        if written.as_ref() != Some(entry) {
            self.violated(|| format!("{id}: {entry:?} was read, and {written:?} written"));
        }
    }
}

impl BuildTruth {
    fn wrongly_new(&self, new: &BuildRecord) -> Option<String> {
        if new.status != BuildStatus::Pending || new.version != 1 || new.attempt != 0 {
            return Some(format!("was new as {new:?}"));
        }
        new.idempotency_key.as_ref()?;
        let same = |other: &&BuildRecord| {
            (other.team_id, &other.idempotency_key) == (new.team_id, &new.idempotency_key)
        };
        let rival = self.records.values().find(same)?;
        Some(format!("and {} have one key", rival.id))
    }

    /// Whether a sandbox is one that a claim has named.
    pub(super) fn has_had(&self, sandbox: SandboxId) -> bool {
        self.sandboxes.contains_key(&sandbox)
    }

    /// The sandboxes that a build has had.
    pub(super) fn sandboxes_of(&self, id: BuildId) -> BTreeSet<SandboxId> {
        let own = self.sandboxes.iter().filter(|(_, of)| **of == id);
        own.map(|(sandbox, _)| *sandbox).collect()
    }
}
