//! What must hold when nothing goes wrong any more.

use super::World;
use crate::{
    host::HostSandboxState,
    id::TemplateId,
    operation::{OperationKind, OperationStatus},
    sandbox::{SandboxRecord, SandboxState},
    template::{MINIMAL_TEMPLATE_ID, TemplateState},
};

impl World {
    /// What is not at rest yet, or does not agree with the host.
    pub(super) fn unsettled(&self) -> Option<String> {
        let records = self.store.all_sandboxes();
        for record in &records {
            if record.operation.is_some() || record.state == SandboxState::Pending {
                return Some(format!("in flight: {record:?}"));
            }
        }
        let operations = self.store.all_operations();
        let running = operations
            .iter()
            .find(|operation| operation.status == OperationStatus::Running);
        if let Some(operation) = running {
            return Some(format!("without an end: {operation:?}"));
        }
        let machines = self.host.machines();
        for machine in &machines {
            let record = records.iter().find(|record| record.id == machine.id);
            let ours = |record: &SandboxRecord| {
                record.state != SandboxState::Error || machine.generation > record.generation
            };
            if !record.is_some_and(ours) {
                return Some(format!("leaked: {machine:?}, of {record:?}"));
            }
        }
        for record in &records {
            let machine = machines.iter().find(|machine| machine.id == record.id);
            // It belongs to someone who knows more than this store, until it is destroyed.
            if machine.is_some_and(|machine| machine.generation > record.generation) {
                continue;
            }
            let stands = match machine.map(|machine| &machine.state) {
                Some(HostSandboxState::Running) => SandboxState::Running,
                Some(HostSandboxState::Paused) => SandboxState::Paused,
                _ if record.state == SandboxState::Error => SandboxState::Error,
                _ => SandboxState::Stopped,
            };
            if record.state != stands {
                return Some(format!("{record:?} and its machine {machine:?}"));
            }
        }
        self.unsettled_templates()
    }

    fn unsettled_templates(&self) -> Option<String> {
        let records = self.store.all_sandboxes();
        let templates = self.store.all_templates();
        let named = templates
            .iter()
            .filter(|template| template.id != MINIMAL_TEMPLATE_ID);
        for template in named.clone() {
            let used = records
                .iter()
                .any(|record| record.template_id == template.id);
            let settled = match template.state {
                TemplateState::Making => false,
                TemplateState::Ready | TemplateState::Layer => true,
                TemplateState::Deleting => used,
            };
            if !settled || template.operation.is_some() {
                return Some(format!("unsettled: {template:?}"));
            }
        }
        let named: Vec<TemplateId> = named.map(|template| template.id).collect();
        let held: Vec<TemplateId> = self.host.images().iter().map(|image| image.id).collect();
        (named != held).then(|| format!("templates {named:?} and images {held:?}"))
    }

    /// What clients were told against what is there.
    pub(super) fn check_settled(&self) {
        let records = self.store.all_sandboxes();
        let known: Vec<_> = self.book(|book| {
            let ids = book.sandboxes.keys().copied().collect::<Vec<_>>();
            let facts = ids.into_iter().map(|id| {
                let paused = book
                    .sandboxes
                    .get(&id)
                    .is_some_and(|known| known.surely_paused);
                let gone = book.sandboxes.get(&id).is_some_and(|known| known.gone);
                (
                    id,
                    book.must_exist(id),
                    paused,
                    gone,
                    book.harmed.contains(&id),
                )
            });
            facts.collect()
        });
        for (id, must_exist, paused, gone, harmed) in known {
            let record = records.iter().find(|record| record.id == id);
            let state = record.map(|record| record.state);
            if must_exist && record.is_none() {
                self.violated(|| format!("{id} is lost"));
            }
            if gone && record.is_some() {
                self.violated(|| format!("{id} was destroyed, and is back"));
            }
            let lost = match state {
                Some(SandboxState::Running) => paused,
                Some(SandboxState::Paused) | None => false,
                Some(_) => true,
            };
            if must_exist && !harmed && lost {
                self.violated(|| format!("{id} is lost: {record:?} (told paused: {paused})"));
            }
        }
        self.check_templates();
        self.check_operations();
    }

    fn check_templates(&self) {
        let told: Vec<TemplateId> = self.book(|book| {
            let told = book.templates.keys();
            told.filter(|id| !book.unwanted.contains(id))
                .copied()
                .collect()
        });
        let templates = self.store.all_templates();
        for id in told {
            let ready = templates
                .iter()
                .any(|template| template.id == id && template.state == TemplateState::Ready);
            if !ready {
                self.violated(|| format!("{id} was told made, and is lost"));
            }
        }
    }

    /// An operation that is called a success has done what it was for.
    fn check_operations(&self) {
        let operations = self.store.all_operations();
        let records = self.store.all_sandboxes();
        for operation in &operations {
            let there = operation
                .sandbox_id
                .and_then(|id| records.iter().find(|record| record.id == id));
            let destroyed = operations.iter().any(|other| {
                other.sandbox_id == operation.sandbox_id && other.kind == OperationKind::Destroy
            });
            let done = operation.status == OperationStatus::Succeeded;
            let holds = match (operation.kind, done) {
                (OperationKind::Create, true) => there.is_some() || destroyed,
                // What is left of it can be looked at until someone destroys it.
                (OperationKind::Create, false) => {
                    there.is_none_or(|record| record.state == SandboxState::Error)
                }
                (OperationKind::Destroy, true) => there.is_none(),
                (OperationKind::Snapshot | OperationKind::Import, _) => {
                    let published = &self.lock().truth.published;
                    operation
                        .template_id
                        .is_some_and(|id| published.contains(&id))
                        == done
                }
                _ => true,
            };
            if !holds || operation.finished_at.is_none() {
                self.violated(|| format!("{operation:?} against {there:?}"));
            }
        }
    }

    /// What is there when all was deleted.
    pub(super) fn left(&self) -> Option<String> {
        if let Some(record) = self.store.all_sandboxes().first() {
            return Some(format!("{record:?}"));
        }
        if let Some(machine) = self.host.machines().first() {
            return Some(format!("{machine:?}"));
        }
        if let Some(image) = self.host.images().first() {
            return Some(format!("{image:?}"));
        }
        let templates = self.store.all_templates();
        let mut named = templates.iter().filter(|t| t.id != MINIMAL_TEMPLATE_ID);
        named.next().map(|template| format!("{template:?}"))
    }

    /// The audit log has exactly one entry for each change that was written, and ends with the end.
    pub(super) fn check_audit(&self) {
        let audited = std::mem::take(&mut self.lock().truth.audited);
        let mut log = self.store.all_audit();
        for (resource, entries) in audited {
            let mut kept = Vec::new();
            log.retain(|entry| {
                let of = entry.resource == resource;
                if of {
                    kept.push(entry.clone());
                }
                !of
            });
            if kept != entries {
                self.violated(|| format!("{resource} has the audit log {kept:?}"));
            }
            let last = entries.last().map(|entry| entry.outcome.as_str());
            let minimal = resource == MINIMAL_TEMPLATE_ID.to_string();
            if last != Some("removed") && !minimal {
                self.violated(|| format!("the audit log of {resource} ends with {last:?}"));
            }
        }
        if let Some(entry) = log.first() {
            self.violated(|| format!("an audit entry of nothing: {entry:?}"));
        }
    }
}
