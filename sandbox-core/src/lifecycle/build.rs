//! A build's life: every write of its record.
//!
//! ```text
//!              claim                         publish
//!  pending ────────────► running ────────────────────────► success
//!     │  ▲                 │ │ │
//!     │  └─── hand back ───┘ │ └── a step fails, or nobody is left to try again ──► failed
//!     │    (its worker stops,│
//!     │     dies or is cut   │ cancel
//!     │     off; once)       ▼
//!     └── cancel ────► cancelled
//! ```
//!
//! Nothing leaves `success`, `failed` or `cancelled`. A running build has a worker under a lease; once
//! that has run out, anyone may hand it back or end it.

use crate::{
    audit::AuditEntry,
    build::{BuildFailure, BuildRecord, BuildStatus, BuildStep},
    clock::Timestamp,
    id::{SandboxId, TemplateId},
    lifecycle::Stamp,
    store::{BuildWrite, TemplateWrite},
};

/// How often a build is begun at most: a second time where the first ended without its own fault.
pub const ATTEMPTS_MAX: u32 = 2;

/// The write that records a new build.
#[must_use]
pub fn submit(record: BuildRecord, stamp: Stamp) -> BuildWrite {
    BuildWrite {
        audit: Some(audit(&record, "build.create", "it was asked for", stamp)),
        steps: Vec::new(),
        templates: Vec::new(),
        record,
    }
}

/// The write by which a worker takes a build that waits; absent where it does not wait any more. The
/// sandbox that it will work in is named before it is made, so that none is ever made that no build
/// names.
#[must_use]
pub fn claim(
    record: &BuildRecord,
    sandbox_id: SandboxId,
    lease_until: Timestamp,
    stamp: Stamp,
) -> Option<BuildWrite> {
    if record.status != BuildStatus::Pending {
        return None;
    }
    let (mut next, stamp) = following(record, stamp);
    next.status = BuildStatus::Running;
    next.attempt += 1;
    next.current_step = 0;
    next.sandbox_id = Some(sandbox_id);
    next.lease_until = Some(lease_until);
    next.started_at = next.started_at.or(Some(stamp.at));
    let reason = format!("a worker began attempt {}", next.attempt);
    Some(told(next, "build.start", &reason, stamp))
}

/// The write that notes how far a build has come, and that its worker is at work.
#[must_use]
pub fn progress(
    record: &BuildRecord,
    current_step: u32,
    steps: Vec<BuildStep>,
    lease_until: Timestamp,
    stamp: Stamp,
) -> BuildWrite {
    let (mut next, _) = following(record, stamp);
    next.current_step = current_step;
    next.lease_until = Some(lease_until);
    BuildWrite {
        record: next,
        steps,
        templates: Vec::new(),
        audit: None,
    }
}

/// The write that gives a running build back to the queue, so that it is begun again, or ends it where
/// it was begun often enough. With `counts` the attempt was one; otherwise it was broken off by
/// whoever runs it, and is not held against the build.
#[must_use]
pub fn hand_back(
    record: &BuildRecord,
    failure: BuildFailure,
    counts: bool,
    waits_until: Timestamp,
    stamp: Stamp,
) -> BuildWrite {
    if counts && record.attempt.saturating_sub(record.handed_back) >= ATTEMPTS_MAX {
        return fail(record, failure, Vec::new(), stamp);
    }
    let (mut next, stamp) = following(record, stamp);
    next.status = BuildStatus::Pending;
    next.sandbox_id = None;
    next.lease_until = Some(waits_until);
    next.current_step = 0;
    // The attempt's number stays taken: pieces of the log have it in their places.
    if !counts {
        next.handed_back += 1;
    }
    told(next, "build.retry", &failure.message, stamp)
}

/// The write that settles a build which nobody works on, or has begun in time.
#[must_use]
pub fn abandon(record: &BuildRecord, waits_until: Timestamp, stamp: Stamp) -> BuildWrite {
    let failed = |message: &str| BuildFailure {
        message: message.to_owned(),
        step: None,
        error_id: None,
    };
    match record.status {
        BuildStatus::Running => {
            let died = failed("the platform stopped while it was built");
            hand_back(record, died, true, waits_until, stamp)
        }
        _ => fail(
            record,
            failed("no worker began it in time"),
            Vec::new(),
            stamp,
        ),
    }
}

/// The write that ends a build without a template.
#[must_use]
pub fn fail(
    record: &BuildRecord,
    failure: BuildFailure,
    steps: Vec<BuildStep>,
    stamp: Stamp,
) -> BuildWrite {
    let (mut next, stamp) = ended(record, BuildStatus::Failed, stamp);
    let reason = failure.message.clone();
    next.failure = Some(failure);
    BuildWrite {
        steps,
        ..told(next, "build.end", &reason, stamp)
    }
}

/// The write that ends a build because someone wants it; absent where it has ended already.
#[must_use]
pub fn cancel(record: &BuildRecord, stamp: Stamp) -> Option<BuildWrite> {
    if record.status.ended() {
        return None;
    }
    let (next, stamp) = ended(record, BuildStatus::Cancelled, stamp);
    Some(told(next, "build.cancel", "it was asked for", stamp))
}

/// The write that ends a build with its template, which becomes visible in the same write.
#[must_use]
pub fn succeed(
    record: &BuildRecord,
    template: TemplateId,
    steps: Vec<BuildStep>,
    templates: Vec<TemplateWrite>,
    stamp: Stamp,
) -> BuildWrite {
    let (mut next, stamp) = ended(record, BuildStatus::Success, stamp);
    next.template_id = Some(template);
    next.current_step = next.total_steps;
    BuildWrite {
        steps,
        templates,
        ..told(next, "build.end", "its template is there", stamp)
    }
}

fn ended(record: &BuildRecord, status: BuildStatus, stamp: Stamp) -> (BuildRecord, Stamp) {
    let (mut next, stamp) = following(record, stamp);
    next.status = status;
    next.lease_until = None;
    next.sandbox_id = None;
    next.finished_at = Some(stamp.at);
    (next, stamp)
}

fn following(record: &BuildRecord, stamp: Stamp) -> (BuildRecord, Stamp) {
    let stamp = stamp.after(record.updated_at);
    let mut next = record.clone();
    next.version += 1;
    next.updated_at = stamp.at;
    (next, stamp)
}

fn told(record: BuildRecord, action: &str, reason: &str, stamp: Stamp) -> BuildWrite {
    BuildWrite {
        audit: Some(audit(&record, action, reason, stamp)),
        steps: Vec::new(),
        templates: Vec::new(),
        record,
    }
}

fn audit(record: &BuildRecord, action: &str, reason: &str, stamp: Stamp) -> AuditEntry {
    AuditEntry {
        id: stamp.audit_id,
        at: stamp.at,
        actor: stamp.actor,
        resource: record.id.to_string(),
        action: action.to_owned(),
        outcome: record.status.as_str().to_owned(),
        reason: reason.to_owned(),
    }
}
