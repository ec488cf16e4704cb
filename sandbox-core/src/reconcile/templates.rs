//! Templates and images: what is half-made, hidden, or nobody's.

#[cfg(test)]
mod tests;

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
};

use super::{Action, HostView, waited};
use crate::{
    clock::Timestamp,
    host::{HostImage, HostReport},
    id::{OperationId, SandboxId, TemplateId},
    sandbox::SandboxRecord,
    template::{MINIMAL_TEMPLATE_ID, TemplateRecord, TemplateState},
};

/// What to do about templates, and about images that no template names.
pub(super) fn plan(
    sandboxes: &[SandboxRecord],
    templates: &[TemplateRecord],
    report: &HostReport,
    view: &HostView<'_>,
    now: Timestamp,
) -> Vec<Action> {
    // Looked for only where a template is hidden: there may be very many sandboxes.
    let used = LazyCell::new(|| -> BTreeSet<TemplateId> {
        sandboxes.iter().map(|record| record.template_id).collect()
    });
    let known: BTreeSet<TemplateId> = templates.iter().map(|record| record.id).collect();
    let for_hidden = templates
        .iter()
        .filter(|record| is_here(record, view))
        .filter(|record| record.state == TemplateState::Deleting && !used.contains(&record.id))
        .map(|record| Action::FreeTemplate {
            id: record.id,
            version: record.version,
        });
    let for_images = report
        .images
        .iter()
        .filter(|image| {
            image.id != MINIMAL_TEMPLATE_ID && !known.contains(&image.id) && !image.deleting
        })
        .filter(|image| {
            view.unknown_images_since
                .get(&image.id)
                .is_some_and(|since| waited(*since, now, view.unknown_grace))
        })
        .map(|image| Action::DeleteUnknownImage { image: image.id });
    plan_in_silence(sandboxes, templates, view, now)
        .into_iter()
        .chain(for_hidden)
        .chain(for_images)
        .collect()
}

/// What can be done about templates without their host.
pub(super) fn plan_in_silence(
    sandboxes: &[SandboxRecord],
    templates: &[TemplateRecord],
    view: &HostView<'_>,
    now: Timestamp,
) -> Vec<Action> {
    // Looked for only where a template is made of a sandbox.
    let at_work = LazyCell::new(|| -> BTreeSet<(SandboxId, OperationId)> {
        let operations = sandboxes.iter().filter_map(|sandbox| {
            let operation = sandbox.operation.as_ref()?;
            Some((sandbox.id, operation.id))
        });
        operations.collect()
    });
    // One that is made of a sandbox is kept by that sandbox's operation, any other by its own lease.
    let has_owner = |record: &TemplateRecord| match (&record.operation, record.origin) {
        (None, _) => false,
        (Some(operation), None) => operation.lease_until > now,
        (Some(operation), Some(origin)) => at_work.contains(&(origin, operation.id)),
    };
    templates
        .iter()
        .filter(|record| is_here(record, view))
        .filter(|record| record.state == TemplateState::Making && !has_owner(record))
        .map(|record| Action::GiveUpTemplate {
            id: record.id,
            version: record.version,
        })
        .collect()
}

fn is_here(record: &TemplateRecord, view: &HostView<'_>) -> bool {
    record.host_id.is_none_or(|host| host == view.host_id)
}

/// Images that no template names, with the time at which each was first seen so. `before` is the
/// last answer.
#[must_use]
pub fn note_unknown_images(
    before: &BTreeMap<TemplateId, Timestamp>,
    templates: &[TemplateRecord],
    images: &[HostImage],
    now: Timestamp,
) -> BTreeMap<TemplateId, Timestamp> {
    let known: BTreeSet<TemplateId> = templates.iter().map(|record| record.id).collect();
    images
        .iter()
        .filter(|image| image.id != MINIMAL_TEMPLATE_ID && !known.contains(&image.id))
        .map(|image| (image.id, before.get(&image.id).copied().unwrap_or(now)))
        .collect()
}
