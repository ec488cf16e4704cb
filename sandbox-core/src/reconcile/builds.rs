//! Template builds that nobody works on, and what they leave behind.

use std::collections::BTreeSet;

use super::{Action, HostView, Records, waited};
use crate::{
    build::{BuildRecord, BuildStatus},
    clock::Timestamp,
    id::SandboxId,
    sandbox::SandboxRecord,
    template::TemplateState,
};

/// The sandboxes that builds work in.
pub(super) fn worked_in(builds: &[BuildRecord]) -> BTreeSet<SandboxId> {
    builds
        .iter()
        .filter(|build| build.status == BuildStatus::Running)
        .filter_map(|build| build.sandbox_id)
        .collect()
}

/// Whether a sandbox belongs to a build that does not work in it: nobody will ever use it.
pub(super) fn is_left_over(record: &SandboxRecord, worked_in: &BTreeSet<SandboxId>) -> bool {
    record.build_id.is_some() && !worked_in.contains(&record.id)
}

/// What can be done about builds and their layers, whatever the host says.
pub(super) fn plan(
    records: Records<'_>,
    view: &HostView<'_>,
    now: Timestamp,
) -> impl Iterator<Item = Action> {
    let builds = records
        .builds
        .iter()
        .filter(move |build| is_due(build, now))
        .map(|build| Action::EndBuild {
            id: build.id,
            version: build.version,
        });
    let retention = view.layer_retention;
    let layers = records
        .templates
        .iter()
        .filter(move |template| {
            template.state == TemplateState::Layer && waited(template.updated_at, now, retention)
        })
        .map(|template| Action::ForgetLayer {
            id: template.id,
            version: template.version,
        });
    builds.chain(layers)
}

/// Whether nobody is at work on a build any more, or nobody has begun it for too long.
pub(super) fn is_due(build: &BuildRecord, now: Timestamp) -> bool {
    !build.status.ended() && build.lease_until.is_none_or(|until| until <= now)
}
