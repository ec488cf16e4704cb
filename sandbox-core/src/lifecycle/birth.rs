//! A sandbox's first record.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    audit::AuditEntry,
    clock::Timestamp,
    id::{BuildId, HostId, OperationId, SandboxId, TeamId, TemplateId},
    lifecycle::Stamp,
    name::TemplateName,
    operation::{Operation, OperationKind, OperationRecord, OperationStatus},
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    size::MachineSize,
    store::SandboxWrite,
};

/// A request for a sandbox that has been found good, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSandbox {
    /// What it starts from, by name.
    pub template: TemplateName,
    /// What it starts from.
    pub template_id: TemplateId,
    /// Its machine's size.
    pub size: MachineSize,
    /// Lifetime in seconds since it was last used.
    pub timeout_sec: Option<u64>,
    /// What becomes of it at the end of that.
    pub on_timeout: OnTimeout,
    /// The client's own labels.
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of every process in it.
    pub env: BTreeMap<String, String>,
    /// The key under which a retry finds it.
    pub idempotency_key: Option<String>,
    /// The template build that it belongs to.
    pub build_id: Option<BuildId>,
}

impl NewSandbox {
    /// Whether a record was made by a request like this one.
    #[must_use]
    pub fn made(&self, record: &SandboxRecord) -> bool {
        self.template == record.template
            && self.size == record.size
            && self.timeout_sec == record.timeout_sec
            && self.on_timeout == record.on_timeout
            && self.metadata == record.metadata
            && self.env == record.env
    }
}

/// The first write of a sandbox: pending, its create operation in flight.
#[must_use]
pub fn birth(
    new: NewSandbox,
    id: SandboxId,
    team_id: TeamId,
    host_id: HostId,
    operation_id: OperationId,
    lease_until: Timestamp,
    stamp: Stamp,
) -> SandboxWrite {
    let reason = "it was asked for".to_owned();
    SandboxWrite {
        operations: vec![OperationRecord {
            id: operation_id,
            sandbox_id: Some(id),
            template_id: None,
            kind: OperationKind::Create,
            status: OperationStatus::Running,
            started_at: stamp.at,
            finished_at: None,
        }],
        template: None,
        audit: Some(AuditEntry {
            id: stamp.audit_id,
            at: stamp.at,
            actor: stamp.actor,
            resource: id.to_string(),
            action: "sandbox.create".to_owned(),
            outcome: SandboxState::Pending.as_str().to_owned(),
            reason: reason.clone(),
        }),
        record: SandboxRecord {
            id,
            team_id,
            state: SandboxState::Pending,
            reason,
            operation: Some(Operation {
                id: operation_id,
                kind: OperationKind::Create,
                started_at: stamp.at,
                lease_until,
            }),
            version: 1,
            generation: 1,
            template: new.template,
            template_id: new.template_id,
            size: new.size,
            timeout_sec: new.timeout_sec,
            on_timeout: new.on_timeout,
            metadata: new.metadata,
            env: new.env,
            host_id: Some(host_id),
            idempotency_key: new.idempotency_key,
            build_id: new.build_id,
            created_at: stamp.at,
            started_at: None,
            expires_at: None,
            updated_at: stamp.at,
        },
    }
}

/// The deadline of a sandbox that was used just now. A lifetime beyond the end of the calendar is
/// no bound.
pub(super) fn deadline(timeout_sec: Option<u64>, now: Timestamp) -> Option<Timestamp> {
    let lifetime = chrono::TimeDelta::from_std(Duration::from_secs(timeout_sec?)).ok()?;
    now.checked_add_signed(lifetime)
}
