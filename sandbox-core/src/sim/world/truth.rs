//! What really came about, as the network sees it: every write that the store took, everything that
//! the host said. And what may never be seen there.

use std::collections::{BTreeMap, BTreeSet};

use super::{World, build_truth::BuildTruth};
use crate::{
    audit::AuditEntry,
    build::BuildRecord,
    clock::Clock,
    host::{HostReport, HostSandboxState, HostSnapshot},
    id::{SandboxId, TemplateId},
    operation::{OperationKind, OperationStatus},
    sandbox::{SandboxRecord, SandboxState},
    store::{SandboxWrite, TemplateChange, TemplateWrite},
    template::{TemplateRecord, TemplateState},
};

/// What came about so far.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Counts what is noted here, so that one thing can be told to be before another.
    tick: u64,
    records: BTreeMap<SandboxId, SandboxRecord>,
    removed: BTreeSet<SandboxId>,
    pub(super) templates: BTreeMap<TemplateId, TemplateRecord>,
    /// Templates that were ready once, or ready to be published.
    pub(super) published: BTreeSet<TemplateId>,
    /// Audit entries that went with writes, by the written ID of what was written.
    pub(super) audited: BTreeMap<String, Vec<AuditEntry>>,
    /// When the host last said that a machine runs.
    said_running: BTreeMap<SandboxId, u64>,
    /// When a record last became other than running.
    not_running_since: BTreeMap<SandboxId, u64>,
    /// Who wrote the mark of the operation in flight, or its lease last.
    owners: BTreeMap<SandboxId, usize>,
    /// Machines that ran once, and those of them that the host showed otherwise since.
    ran: BTreeSet<SandboxId>,
    shown_ended: BTreeSet<SandboxId>,
    pub(super) builds: BuildTruth,
}

impl Truth {
    fn next(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub(super) fn audit(&mut self, entry: &AuditEntry) {
        let entries = self.audited.entry(entry.resource.clone()).or_default();
        entries.push(entry.clone());
    }
}

impl World {
    /// The record as it was written last.
    pub(super) fn recorded(&self, id: SandboxId) -> Option<SandboxRecord> {
        self.lock().truth.records.get(&id).cloned()
    }

    /// Whether a write takes an operation from an engine whose lease on it lasts. A destroy may.
    fn robs(&self, before: &SandboxRecord, next: Option<&SandboxRecord>, plane: usize) -> bool {
        let Some(operation) = &before.operation else {
            return false;
        };
        if operation.kind == OperationKind::Destroy || operation.lease_until <= self.clock.now() {
            return false;
        }
        let raised = next.is_some_and(|next| next.generation > before.generation);
        let goes_on = match next.and_then(|next| next.operation.as_ref()) {
            Some(current) if current.kind == OperationKind::Destroy => true,
            Some(current) => current.id == operation.id && !raised,
            None => false,
        };
        let inner = self.lock();
        let owner = inner.truth.owners.get(&before.id);
        !goes_on && !inner.clocks_jump && owner.is_some_and(|owner| *owner != plane)
    }

    pub(super) fn inserted(&self, write: &SandboxWrite, plane: usize) {
        let record = &write.record;
        let (again, audited, rival) = {
            let truth = &mut self.lock().truth;
            let rival = truth.records.values().find(|other| {
                other.idempotency_key.is_some()
                    && (other.team_id, &other.idempotency_key)
                        == (record.team_id, &record.idempotency_key)
            });
            let rival = rival.map(|rival| rival.id);
            let again =
                truth.removed.contains(&record.id) || truth.records.contains_key(&record.id);
            let tick = truth.next();
            truth.not_running_since.insert(record.id, tick);
            truth.owners.insert(record.id, plane);
            truth.records.insert(record.id, record.clone());
            if let Some(entry) = &write.audit {
                truth.audit(entry);
            }
            (again, write.audit.is_some(), rival)
        };
        self.recorded_as(record);
        if again || record.version != 1 {
            self.violated(|| format!("{} was inserted again", record.id));
        }
        if let Some(rival) = rival {
            self.violated(|| format!("{} and {rival} have one key", record.id));
        }
        if !audited {
            self.violated(|| format!("{} was inserted without an audit entry", record.id));
        }
    }

    pub(super) fn updated(&self, write: &SandboxWrite, plane: usize) {
        let next = &write.record;
        let (before, guessed, slandered) = {
            let truth = &mut self.lock().truth;
            let tick = truth.next();
            let before = truth.records.insert(next.id, next.clone());
            let was = before.as_ref().map(|before| before.state);
            let since = truth.not_running_since.get(&next.id).copied().unwrap_or(0);
            let said = truth.said_running.get(&next.id).copied().unwrap_or(0);
            let guessed = next.state == SandboxState::Running
                && was != Some(SandboxState::Running)
                && said < since;
            let slandered = next.state == SandboxState::Stopped
                && was != Some(SandboxState::Stopped)
                && truth.ran.contains(&next.id)
                && !truth.shown_ended.contains(&next.id);
            let begins = write
                .operations
                .iter()
                .any(|operation| operation.status == OperationStatus::Running);
            if next.state != SandboxState::Running && (was == Some(SandboxState::Running) || begins)
            {
                truth.not_running_since.insert(next.id, tick);
            }
            if let Some(entry) = &write.audit {
                truth.audit(entry);
            }
            (before, guessed, slandered)
        };
        self.recorded_as(next);
        if let Some(before) = &before
            && self.robs(before, Some(next), plane)
        {
            self.violated(|| format!("{} was taken from an owner at work", next.id));
        }
        if next.operation.is_some() {
            self.lock().truth.owners.insert(next.id, plane);
        }
        match before {
            None => self.violated(|| format!("{} was written when it was gone", next.id)),
            Some(before) => {
                if next.version != before.version + 1 {
                    let (from, to) = (before.version, next.version);
                    self.violated(|| format!("{} went from version {from} to {to}", next.id));
                }
                if next.generation < before.generation {
                    self.violated(|| format!("{} went back a generation", next.id));
                }
                let changed = before.state != next.state
                    || before.operation.as_ref().map(|operation| operation.id)
                        != next.operation.as_ref().map(|operation| operation.id);
                if changed && write.audit.is_none() {
                    self.violated(|| format!("{} changed without an audit entry", next.id));
                }
            }
        }
        if guessed {
            self.violated(|| format!("{} is called running, and its host never said so", next.id));
        }
        if slandered {
            self.violated(|| format!("{} is called stopped, and its host never said so", next.id));
        }
        if let Some(template) = &write.template {
            self.template_written(template);
        }
    }

    pub(super) fn removed(&self, id: SandboxId, version: u64, entry: &AuditEntry, plane: usize) {
        let before = {
            let truth = &mut self.lock().truth;
            truth.audit(entry);
            truth.removed.insert(id);
            truth.records.remove(&id)
        };
        self.note("store: gone", id.uuid().as_u128(), || id.to_string());
        if before
            .as_ref()
            .is_some_and(|before| self.robs(before, None, plane))
        {
            self.violated(|| format!("{id} was taken from an owner at work"));
        }
        // A host that was restarted no longer knows which orders are old.
        let machines = self.host.machines();
        let forgetful = self.lock().host_restarts;
        if let Some(machine) = machines.iter().find(|machine| machine.id == id)
            && !forgetful
        {
            self.violated(|| format!("{id} is called gone, and its host has {machine:?}"));
        }
        if before.is_none_or(|before| before.version != version) {
            self.violated(|| format!("{id} was removed at another version than it had"));
        }
    }

    pub(super) fn template_written(&self, write: &TemplateWrite) {
        self.template_written_by(write, None);
    }

    /// A template was written; `by` is the build that this belongs to.
    pub(super) fn template_written_by(&self, write: &TemplateWrite, by: Option<&BuildRecord>) {
        let id = write.change.id();
        let (version, expected, before) = {
            let truth = &mut self.lock().truth;
            if let Some(entry) = &write.audit {
                truth.audit(entry);
            }
            let before = match &write.change {
                TemplateChange::Insert(record) | TemplateChange::Update(record) => {
                    if matches!(record.state, TemplateState::Ready | TemplateState::Layer) {
                        truth.published.insert(id);
                    }
                    truth.templates.insert(id, record.clone())
                }
                TemplateChange::Remove(..) => truth.templates.remove(&id),
            };
            let expected = before.as_ref().map_or(0, |before| before.version);
            let (version, expected) = match &write.change {
                TemplateChange::Insert(record) | TemplateChange::Update(record) => {
                    (record.version, expected + 1)
                }
                TemplateChange::Remove(_, version) => (*version, expected),
            };
            (version, expected, before)
        };
        self.note("store: template", id.uuid().as_u128(), || {
            format!("{id} {:?}", write.change)
        });
        if version != expected {
            self.violated(|| format!("{id} was written at version {version}, not {expected}"));
        }
        self.check_naming(write, before.as_ref(), by);
    }

    fn recorded_as(&self, record: &SandboxRecord) {
        self.note(record.state.as_str(), record.id.uuid().as_u128(), || {
            let operation = record.operation.as_ref();
            format!(
                "{} v{} g{} +{}: {}",
                record.id,
                record.version,
                record.generation,
                operation.map_or("", |operation| operation.kind.as_str()),
                record.reason,
            )
        });
    }

    /// The host has said that a machine runs.
    pub(super) fn running_told(&self, id: SandboxId) {
        self.note("host: runs", id.uuid().as_u128(), || id.to_string());
        let truth = &mut self.lock().truth;
        let tick = truth.next();
        truth.said_running.insert(id, tick);
        truth.ran.insert(id);
    }

    /// The host has been told that an image may go.
    pub(super) fn image_went(&self, id: TemplateId) {
        if let Some(orphan) = self.host.without_image().first() {
            self.violated(|| format!("{id} is gone, and {orphan} lies on it"));
        }
    }

    pub(super) fn image_told(&self, order: &HostSnapshot) {
        let id = order.image;
        self.note("host: image", id.uuid().as_u128(), || id.to_string());
    }

    /// The host has given a report. It counts from the moment at which it was given.
    pub(super) fn reported(&self, report: &HostReport) {
        let at = self.clock.now();
        let inner = &mut *self.lock();
        inner
            .trace
            .note(at, "host: report", u128::from(report.sequence), || {
                format!("{:?}", report.sandboxes)
            });
        let truth = &mut inner.truth;
        let tick = truth.next();
        let mut alive = BTreeSet::new();
        for machine in &report.sandboxes {
            let record = truth.records.get(&machine.id);
            if record.is_some_and(|record| machine.generation > record.generation) {
                continue;
            }
            match machine.state {
                HostSandboxState::Running => {
                    truth.said_running.insert(machine.id, tick);
                    truth.ran.insert(machine.id);
                    alive.insert(machine.id);
                }
                HostSandboxState::Paused => {
                    alive.insert(machine.id);
                }
                HostSandboxState::Creating | HostSandboxState::Stopped { .. } => {}
            }
        }
        let ended = truth.ran.difference(&alive).copied();
        truth.shown_ended.extend(ended);
    }
}
