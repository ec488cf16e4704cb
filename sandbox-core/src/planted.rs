//! Known mistakes of this field, to be put back one at a time: a proof that can't fail proves
//! nothing, so a test shows that the simulation finds each.
//!
//! Without the feature `planted-bugs` the function `planted` is a constant `false` and nothing of
//! this is left in the program. With it, a mistake is planted for one thread, which is where a
//! simulated world lives.

use crate::{
    host::HostImage,
    operation::OperationKind,
    sandbox::{SandboxRecord, SandboxState},
    template::TemplateRecord,
};

/// A known mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The reconciler sees no mark of a pause, resume or snapshot that is at work (trap 3).
    NoPreMark,
    /// After an order that failed, the record says `running` without the host being asked (trap 4).
    RunningByGuess,
    /// The store writes whatever is there now (trap 2).
    UnconditionalUpdate,
    /// The reconciler reads the host first and the store second (trap 1).
    HostBeforeStore,
    /// A sandbox that the host paused by itself is in one report and in no later one (trap 5).
    ReportDrained,
    /// The background work waits for a word from the host and never looks by itself (trap 10).
    NoPolling,
    /// A machine that no record knew a moment ago is destroyed at once (trap 11).
    OrphanWithoutGrace,
    /// A page of zeros counts as unchanged when memory is saved (trap 24).
    ZeroPageUnchanged,
    /// A destroy that the host could not do counts as done.
    DestroyNotAwaited,
    /// A retry under the same key makes another sandbox (trap 38).
    KeyIgnored,
    /// The template is published, and its operation called done, when the host made none (trap 15).
    PublishedWithoutImage,
    /// The reconciler takes up operations of other engines while their leases last (trap 10).
    LeaseIgnored,
    /// A report that was overtaken by a newer one is acted upon (trap 5).
    StaleTrusted,
    /// Files of a template go while sandboxes lie on them, and its record with them (trap 21).
    FreedInUse,
    /// A build is written, and its template published, whatever became of it meanwhile: cancelled, or
    /// taken by another worker (trap 14).
    BuildWrittenBlindly,
    /// The sandbox of a build names no build, so that it is listed, and nobody ends it when its
    /// worker dies (trap 13).
    BuildSandboxUnnamed,
    /// The reconciler takes builds back while the leases of their workers last (trap 14).
    BuildLeaseIgnored,
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    impl Bug {
        /// All of them.
        pub const ALL: [Self; 17] = [
            Self::NoPreMark,
            Self::RunningByGuess,
            Self::UnconditionalUpdate,
            Self::HostBeforeStore,
            Self::ReportDrained,
            Self::NoPolling,
            Self::OrphanWithoutGrace,
            Self::ZeroPageUnchanged,
            Self::DestroyNotAwaited,
            Self::KeyIgnored,
            Self::PublishedWithoutImage,
            Self::LeaseIgnored,
            Self::StaleTrusted,
            Self::FreedInUse,
            Self::BuildWrittenBlindly,
            Self::BuildSandboxUnnamed,
            Self::BuildLeaseIgnored,
        ];

        /// Runs something on this thread with the mistake in it.
        pub fn during<T>(self, run: impl FnOnce() -> T) -> T {
            /// Also where `run` panics.
            struct Pulled;
            impl Drop for Pulled {
                fn drop(&mut self) {
                    PLANTED.set(None);
                }
            }
            PLANTED.set(Some(self));
            let _pulled = Pulled;
            run()
        }
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::planted;

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

/// A record as it would be if nothing were marked before the order leaves.
pub(crate) fn without_mark(record: &mut SandboxRecord) {
    let kind = record.operation.as_ref().map(|operation| operation.kind);
    if let Some(OperationKind::Pause | OperationKind::Snapshot) = kind {
        record.state = SandboxState::Running;
        record.operation = None;
    }
}

/// What a host would say of a template whose image it did not make.
pub(crate) fn no_image(template: &TemplateRecord) -> HostImage {
    HostImage {
        id: template.id,
        kind: template.kind,
        size: template.size,
        disk_bytes: 0,
        memory_bytes: 0,
        users: 0,
        deleting: false,
    }
}
