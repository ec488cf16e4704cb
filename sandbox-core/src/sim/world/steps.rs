//! The names of the engine's steps, as the network sees them: each write to the store and each order
//! to the host, with the operation that it belongs to. Nobody keeps a list of them by hand.

use std::fmt;

use crate::{
    audit::Actor,
    build::BuildStatus,
    operation::{OperationKind, OperationStatus},
    sandbox::SandboxRecord,
    store::{BuildWrite, SandboxWrite, TemplateChange, TemplateWrite},
    template::{MINIMAL_TEMPLATE_ID, TemplateKind, TemplateState},
};

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// What it is part of: an operation's kind, or a part of the platform.
    pub of: &'static str,
    /// What it does.
    pub does: &'static str,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.of, self.does)
    }
}

/// What can befall a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The request is lost: nothing happens, and whoever asked is told so.
    FailBefore,
    /// It happens, and whoever asked is told that it failed.
    FailAfter,
    /// Whoever asks dies before it happens.
    CrashBefore,
    /// Whoever asks dies when it has happened.
    CrashAfter,
    /// It happens twice.
    Twice,
}

impl Fault {
    /// All of them, in the order of the report's columns.
    pub const ALL: [Self; 5] = [
        Self::FailBefore,
        Self::FailAfter,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Twice,
    ];
}

const fn step(of: &'static str, does: &'static str) -> Step {
    Step { of, does }
}

pub(super) fn insert(_: &SandboxWrite) -> Step {
    step(OperationKind::Create.as_str(), "write the first record")
}

/// What a write of a record is for; `before` is what it replaces.
pub(super) fn update(write: &SandboxWrite, before: Option<&SandboxRecord>) -> Step {
    let begun = write
        .operations
        .iter()
        .find(|operation| operation.status == OperationStatus::Running);
    if let Some(begun) = begun {
        return step(begun.kind.as_str(), "write the mark");
    }
    if let Some(ended) = write.operations.first() {
        let does = match &ended.status {
            OperationStatus::Failed { .. } => "write the failure",
            _ => "write the success",
        };
        return step(ended.kind.as_str(), does);
    }
    match (&write.record.operation, &write.audit) {
        (Some(operation), _) => {
            let raised = before.is_some_and(|before| before.generation < write.record.generation);
            let does = match raised {
                true => "write the lease and a new generation",
                false => "write the lease",
            };
            step(operation.kind.as_str(), does)
        }
        (None, Some(_)) => step("reconciler", mark(write)),
        (None, None) => step("use", "write the deadline"),
    }
}

const fn mark(write: &SandboxWrite) -> &'static str {
    use crate::sandbox::SandboxState::{Error, Missing, Paused, Pending, Running, Stopped};
    match write.record.state {
        Running => "write that it runs",
        Paused => "write that it is paused",
        Stopped => "write that it has stopped",
        Missing => "write that its host is silent",
        Pending | Error => "write the record",
    }
}

pub(super) fn remove(kind: Option<OperationKind>) -> Step {
    step(
        kind.map_or("reconciler", OperationKind::as_str),
        "remove the record",
    )
}

pub(super) fn template(write: &TemplateWrite) -> Step {
    let failed = write
        .operation
        .as_ref()
        .is_some_and(|operation| matches!(operation.status, OperationStatus::Failed { .. }));
    match &write.change {
        TemplateChange::Insert(record) if record.id == MINIMAL_TEMPLATE_ID => {
            step("start", "write the template `minimal`")
        }
        TemplateChange::Insert(_) => step("import", "write the first record"),
        TemplateChange::Update(record) => match record.state {
            TemplateState::Making => step("import", "write the lease"),
            TemplateState::Ready if write.operation.is_some() => {
                step("import", "write the success")
            }
            TemplateState::Layer => step("build", "note that a layer is used"),
            TemplateState::Ready => step("reconciler", "write the size of `minimal`"),
            TemplateState::Deleting if failed => match record.origin {
                Some(_) => step("snapshot", "write that the template is given up"),
                None => step("import", "write the failure"),
            },
            TemplateState::Deleting => match &write.audit {
                Some(audit) if audit.action == "template.create" => {
                    step("snapshot", "write that the template is given up")
                }
                _ => step("delete template", "write that it is hidden"),
            },
        },
        TemplateChange::Remove(..) => step("delete template", "remove the record"),
    }
}

/// A build's own writes.
pub(super) fn build(write: &BuildWrite) -> Step {
    let record = &write.record;
    let Some(audit) = &write.audit else {
        return match write.steps.first() {
            None => step("build", "write the lease"),
            Some(begun) if begun.ok.is_none() => step("build", "write that a step begins"),
            Some(_) => step("build", "write that a step has ended"),
        };
    };
    // Its worker, or someone who finds that it has none.
    let by_worker = audit.actor == Actor::system("builder");
    step(
        "build",
        match (record.status, by_worker) {
            (BuildStatus::Pending, true) => "hand it back",
            (BuildStatus::Pending, false) => "take it back",
            (BuildStatus::Running, _) => "claim it",
            (BuildStatus::Success, _) => match write.templates.as_slice() {
                // Nothing about it changes.
                [TemplateWrite { audit: None, .. }] => "publish what has the name",
                [_] => "publish the template",
                _ => "publish the template in place of another",
            },
            (BuildStatus::Failed, true) => "write the failure",
            (BuildStatus::Failed, false) => "write that nobody builds it",
            (BuildStatus::Cancelled, _) => "cancel it",
        },
    )
}

/// What a build's life consists of.
#[cfg(test)]
pub(super) const BUILD_STEPS: [Step; 16] = [
    BUILD_CONTEXT,
    BUILD_SUBMIT,
    BUILD_LOG,
    step("build", "claim it"),
    step("build", "write the lease"),
    step("build", "write that a step begins"),
    step("build", "write that a step has ended"),
    step("build", "note that a layer is used"),
    step("build", "publish the template"),
    step("build", "publish the template in place of another"),
    step("build", "publish what has the name"),
    step("build", "write the failure"),
    step("build", "write that nobody builds it"),
    step("build", "cancel it"),
    step("build", "hand it back"),
    step("build", "take it back"),
];

pub(super) const BUILD_SUBMIT: Step = step("build", "write the first record");
pub(super) const BUILD_LOG: Step = step("build", "write the log");
pub(super) const BUILD_CONTEXT: Step = step("build", "keep a context");
pub(super) const NOTE_HOST: Step = step("reconciler", "note that the host was heard");
pub(super) const SWEEP: Step = step("reconciler", "remove old operations");
pub(super) const ORDER_CREATE: Step = step("create", "order the machine");
pub(super) const ORDER_PAUSE: Step = step("pause", "order the pause");
pub(super) const ORDER_RESUME: Step = step("resume", "order the resume");
pub(super) const ORDER_IMPORT: Step = step("import", "order the image");
pub(super) const ORDER_DELETE_IMAGE: Step = step("delete template", "order the image's end");

/// Every order that there is, but for the ends of machines, which have several reasons.
#[cfg(test)]
pub(super) const ORDERS: [Step; 7] = [
    ORDER_CREATE,
    ORDER_PAUSE,
    ORDER_RESUME,
    order_image(TemplateKind::Snapshot),
    order_image(TemplateKind::Image),
    ORDER_IMPORT,
    ORDER_DELETE_IMAGE,
];

pub(super) const fn order_image(kind: TemplateKind) -> Step {
    match kind {
        TemplateKind::Snapshot => step("snapshot", "order the snapshot"),
        TemplateKind::Image => step("snapshot", "order the flattened disk"),
    }
}

/// Of a destroy, of a create that is undone, or of what nobody knows.
pub(super) fn order_destroy(record: Option<&SandboxRecord>) -> Step {
    let kind = record
        .and_then(|record| record.operation.as_ref())
        .map(|operation| operation.kind);
    let of = match kind {
        Some(kind) => kind.as_str(),
        None => "reconciler",
    };
    step(of, "order the machine's end")
}
