//! Templates and images: what is half-made, hidden, or nobody's.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, HostView, waited};
use crate::{
    clock::Timestamp,
    host::HostImage,
    id::TemplateId,
    sandbox::SandboxRecord,
    template::{MINIMAL_TEMPLATE_ID, TemplateRecord, TemplateState},
};

/// What to do about templates, and about images that no template names.
pub(super) fn plan(
    sandboxes: &[SandboxRecord],
    templates: &[TemplateRecord],
    view: &HostView<'_>,
    now: Timestamp,
) -> Vec<Action> {
    let used: BTreeSet<TemplateId> = sandboxes.iter().map(|record| record.template_id).collect();
    let known: BTreeSet<TemplateId> = templates.iter().map(|record| record.id).collect();
    let here = |record: &&TemplateRecord| {
        record
            .host_id
            .is_none_or(|host| host == view.report.host_id)
    };
    let for_templates = templates.iter().filter(here).filter_map(|record| {
        let (id, version) = (record.id, record.version);
        match record.state {
            TemplateState::Making if !has_owner(record, sandboxes, now) => {
                Some(Action::GiveUpTemplate { id, version })
            }
            TemplateState::Deleting if !used.contains(&id) => {
                Some(Action::FreeTemplate { id, version })
            }
            TemplateState::Making | TemplateState::Ready | TemplateState::Deleting => None,
        }
    });
    let for_images = view
        .report
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
    for_templates.chain(for_images).collect()
}

/// A template that is made of a sandbox is kept by that sandbox's operation, any other by its own
/// lease.
fn has_owner(record: &TemplateRecord, sandboxes: &[SandboxRecord], now: Timestamp) -> bool {
    let Some(operation) = &record.operation else {
        return false;
    };
    match record.origin {
        None => operation.lease_until > now,
        Some(origin) => sandboxes.iter().any(|sandbox| {
            sandbox.id == origin
                && sandbox
                    .operation
                    .as_ref()
                    .is_some_and(|current| current.id == operation.id)
        }),
    }
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
