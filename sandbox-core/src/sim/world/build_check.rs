//! What must hold of template builds when nothing goes wrong any more.

use std::time::Duration;

use super::{
    World,
    client::{BUILT, Nature, nature},
};
use crate::{
    build::{BuildRecord, BuildStatus},
    clock::{Clock, Timestamp},
    id::BuildId,
    lifecycle::build::ATTEMPTS_MAX,
};

/// How long a build may stand past its lease when all engines are up: a round of the reconciler, and
/// what it was still waiting for when the faults ended.
const OVERDUE_MAX: Duration = Duration::from_secs(120);

impl World {
    /// What of builds is not at rest yet.
    pub(super) fn unsettled_builds(&self) -> Option<String> {
        let unended = self
            .store
            .all_builds()
            .into_iter()
            .find(|build| !build.status.ended());
        if let Some(build) = unended {
            return Some(format!("no end of {build:?}"));
        }
        let sandboxes = self.store.all_sandboxes();
        let machines = self.host.machines();
        let left = sandboxes.iter().find(|record| {
            // One that belongs to someone who knows more than this store is left alone.
            let foreign = machines
                .iter()
                .any(|machine| machine.id == record.id && machine.generation > record.generation);
            self.lock().truth.builds.has_had(record.id) && !foreign
        });
        left.map(|record| format!("its build is over: {record:?}"))
    }

    /// Nobody leaves a build alone for long; `since` is when the faults ended.
    pub(super) fn check_leases(&self, since: Timestamp) {
        let now = self.clock.now();
        let overdue = |build: &BuildRecord| {
            let until = build.lease_until.map_or(since, |until| until.max(since));
            let past = now.signed_duration_since(until).to_std();
            !build.status.ended() && past.is_ok_and(|past| past > OVERDUE_MAX)
        };
        for build in self.store.all_builds() {
            if overdue(&build) {
                self.violated(|| format!("nobody sees to {build:?}"));
            }
        }
    }

    /// What clients were told against what is there.
    pub(super) fn check_builds(&self) {
        let builds: Vec<BuildRecord> = self.lock().truth.builds.all().cloned().collect();
        for build in &builds {
            self.check_build(build);
        }
        let told: Vec<BuildId> = self.book(|book| book.builds.keys().copied().collect());
        for id in told {
            if !builds.iter().any(|build| build.id == id) {
                self.violated(|| format!("{id} was asked for, and was never written"));
            }
        }
    }

    fn check_build(&self, build: &BuildRecord) {
        let id = build.id;
        let (told, fine, harmed) = {
            let inner = self.lock();
            let asked = inner.book.builds.get(&id);
            let own = inner.truth.builds.sandboxes_of(id);
            (
                asked.and_then(|asked| asked.ended),
                inner.calm,
                own.iter().any(|id| inner.book.harmed.contains(id)),
            )
        };
        if told.is_some_and(|told| told != build.status) {
            self.violated(|| format!("{told:?} was told of {build:?}"));
        }
        // What the platform is at fault for is tried again, and told only after that.
        let tried_once = build.attempt.saturating_sub(build.handed_back) < ATTEMPTS_MAX;
        let blamed = build.failure.as_ref().is_some_and(|failure| {
            failure.step.is_some() && !failure.message.contains("the build took longer")
        });
        let blamed = blamed && tried_once;
        let disputed = !build.name.as_str().starts_with(BUILT);
        match nature(build) {
            Nature::Sound if blamed && !harmed => {
                self.violated(|| format!("its recipe is sound: {build:?}"));
            }
            Nature::Sound if fine && !disputed && build.status == BuildStatus::Failed => {
                self.violated(|| format!("it failed on a fine day: {build:?}"));
            }
            Nature::Doomed if build.status == BuildStatus::Success => {
                self.violated(|| format!("its recipe can't succeed: {build:?}"));
            }
            _ => {}
        }
    }
}
