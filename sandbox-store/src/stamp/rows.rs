//! Records as rows, and back.

/// Stamps the row types of one backend. Stands in a module of its own.
///
/// `$schema` is the backend's schema module, with the tables `sandboxes`, `templates`,
/// `operations`, `hosts` and `audit_logs` under the same column names.
macro_rules! stamp_rows {
    (schema: $schema:path) => {
        use diesel::prelude::*;
        use sandbox_core::{
            audit::{Actor, ActorKind, AuditEntry},
            build::LayerKey,
            host::{HostSeen, ReportNumber},
            id::{AuditId, BuildId, HostId, OperationId, SandboxId, TeamId, TemplateId},
            operation::{Operation, OperationKind, OperationRecord, OperationStatus},
            sandbox::{OnTimeout, SandboxRecord, SandboxState},
            size::MachineSize,
            store::StoreError,
            template::{TemplateKind, TemplateRecord, TemplateState},
        };
        use $schema as schema;

        use schema::{audit_logs, hosts, operations, sandboxes, templates};

        use crate::{
            columns::{DbHash, DbJson, DbTime, DbUuid},
            stamp::{from_column, named, to_column},
        };

        /// The operation that a record carries, from its columns.
        fn in_flight(
            id: Option<DbUuid>,
            kind: Option<String>,
            started_at: Option<DbTime>,
            lease_until: Option<DbTime>,
        ) -> Result<Option<Operation>, StoreError> {
            match (id, kind, started_at, lease_until) {
                (Some(id), Some(kind), Some(started_at), Some(lease_until)) => {
                    let kinds = &OperationKind::ALL;
                    Ok(Some(Operation {
                        id: OperationId::from_uuid(id.0),
                        kind: named("op_kind", kinds, OperationKind::as_str, &kind)?,
                        started_at: started_at.0,
                        lease_until: lease_until.0,
                    }))
                }
                (None, None, None, None) => Ok(None),
                _ => Err(StoreError::Internal(
                    "an operation is stored in part only".to_owned(),
                )),
            }
        }

        #[derive(Queryable, Selectable, Insertable, AsChangeset)]
        #[diesel(table_name = sandboxes, treat_none_as_null = true)]
        pub(super) struct SandboxRow {
            id: DbUuid,
            team_id: DbUuid,
            state: String,
            reason: String,
            op_id: Option<DbUuid>,
            op_kind: Option<String>,
            op_started_at: Option<DbTime>,
            op_lease_until: Option<DbTime>,
            version: i64,
            generation: i64,
            template: String,
            template_id: DbUuid,
            vcpus: i32,
            memory_mb: i32,
            disk_size_mb: i32,
            timeout_sec: Option<i64>,
            on_timeout: String,
            metadata: DbJson,
            env: DbJson,
            host_id: Option<DbUuid>,
            idempotency_key: Option<String>,
            build_id: Option<DbUuid>,
            created_at: DbTime,
            started_at: Option<DbTime>,
            expires_at: Option<DbTime>,
            updated_at: DbTime,
        }

        impl SandboxRow {
            pub(super) fn of(record: &SandboxRecord) -> Result<Self, StoreError> {
                let operation = record.operation.as_ref();
                Ok(Self {
                    id: DbUuid(record.id.uuid()),
                    team_id: DbUuid(record.team_id.uuid()),
                    state: record.state.as_str().to_owned(),
                    reason: record.reason.clone(),
                    op_id: operation.map(|op| DbUuid(op.id.uuid())),
                    op_kind: operation.map(|op| op.kind.as_str().to_owned()),
                    op_started_at: operation.map(|op| DbTime(op.started_at)),
                    op_lease_until: operation.map(|op| DbTime(op.lease_until)),
                    version: to_column("version", record.version)?,
                    generation: to_column("generation", record.generation)?,
                    template: record.template.as_str().to_owned(),
                    template_id: DbUuid(record.template_id.uuid()),
                    vcpus: to_column("vcpus", record.size.vcpus)?,
                    memory_mb: to_column("memory_mb", record.size.memory_mb)?,
                    disk_size_mb: to_column("disk_size_mb", record.size.disk_size_mb)?,
                    timeout_sec: record
                        .timeout_sec
                        .map(|seconds| to_column("timeout_sec", seconds))
                        .transpose()?,
                    on_timeout: record.on_timeout.as_str().to_owned(),
                    metadata: DbJson::of(&record.metadata)?,
                    env: DbJson::of(&record.env)?,
                    host_id: record.host_id.map(|id| DbUuid(id.uuid())),
                    idempotency_key: record.idempotency_key.clone(),
                    build_id: record.build_id.map(|id| DbUuid(id.uuid())),
                    created_at: DbTime(record.created_at),
                    started_at: record.started_at.map(DbTime),
                    expires_at: record.expires_at.map(DbTime),
                    updated_at: DbTime(record.updated_at),
                })
            }

            pub(super) fn record(self) -> Result<SandboxRecord, StoreError> {
                let operation = in_flight(
                    self.op_id,
                    self.op_kind,
                    self.op_started_at,
                    self.op_lease_until,
                )?;
                Ok(SandboxRecord {
                    id: SandboxId::from_uuid(self.id.0),
                    team_id: TeamId::from_uuid(self.team_id.0),
                    state: named(
                        "state",
                        &SandboxState::ALL,
                        SandboxState::as_str,
                        &self.state,
                    )?,
                    reason: self.reason,
                    operation,
                    version: from_column("version", self.version)?,
                    generation: from_column("generation", self.generation)?,
                    template: self.template.parse().map_err(|error| {
                        StoreError::Internal(format!("column `template`: {error}"))
                    })?,
                    template_id: TemplateId::from_uuid(self.template_id.0),
                    size: MachineSize {
                        vcpus: from_column("vcpus", self.vcpus)?,
                        memory_mb: from_column("memory_mb", self.memory_mb)?,
                        disk_size_mb: from_column("disk_size_mb", self.disk_size_mb)?,
                    },
                    timeout_sec: self
                        .timeout_sec
                        .map(|seconds| from_column("timeout_sec", seconds))
                        .transpose()?,
                    on_timeout: named(
                        "on_timeout",
                        &OnTimeout::ALL,
                        OnTimeout::as_str,
                        &self.on_timeout,
                    )?,
                    metadata: self.metadata.read("metadata")?,
                    env: self.env.read("env")?,
                    host_id: self.host_id.map(|id| HostId::from_uuid(id.0)),
                    idempotency_key: self.idempotency_key,
                    build_id: self.build_id.map(|id| BuildId::from_uuid(id.0)),
                    created_at: self.created_at.0,
                    started_at: self.started_at.map(|time| time.0),
                    expires_at: self.expires_at.map(|time| time.0),
                    updated_at: self.updated_at.0,
                })
            }
        }

        #[derive(Queryable, Selectable, Insertable, AsChangeset)]
        #[diesel(table_name = templates, treat_none_as_null = true)]
        pub(super) struct TemplateRow {
            id: DbUuid,
            team_id: DbUuid,
            name: String,
            kind: String,
            state: String,
            op_id: Option<DbUuid>,
            op_kind: Option<String>,
            op_started_at: Option<DbTime>,
            op_lease_until: Option<DbTime>,
            version: i64,
            vcpus: i32,
            memory_mb: i32,
            disk_size_mb: i32,
            disk_bytes: i64,
            memory_bytes: i64,
            origin_id: Option<DbUuid>,
            layer: Option<DbHash>,
            host_id: Option<DbUuid>,
            created_at: DbTime,
            updated_at: DbTime,
        }

        impl TemplateRow {
            pub(super) fn of(record: &TemplateRecord) -> Result<Self, StoreError> {
                let operation = record.operation.as_ref();
                Ok(Self {
                    id: DbUuid(record.id.uuid()),
                    team_id: DbUuid(record.team_id.uuid()),
                    name: record.name.as_str().to_owned(),
                    kind: record.kind.as_str().to_owned(),
                    state: record.state.as_str().to_owned(),
                    op_id: operation.map(|op| DbUuid(op.id.uuid())),
                    op_kind: operation.map(|op| op.kind.as_str().to_owned()),
                    op_started_at: operation.map(|op| DbTime(op.started_at)),
                    op_lease_until: operation.map(|op| DbTime(op.lease_until)),
                    version: to_column("version", record.version)?,
                    vcpus: to_column("vcpus", record.size.vcpus)?,
                    memory_mb: to_column("memory_mb", record.size.memory_mb)?,
                    disk_size_mb: to_column("disk_size_mb", record.size.disk_size_mb)?,
                    disk_bytes: to_column("disk_bytes", record.disk_bytes)?,
                    memory_bytes: to_column("memory_bytes", record.memory_bytes)?,
                    origin_id: record.origin.map(|id| DbUuid(id.uuid())),
                    layer: record.layer.map(|key| DbHash(*key.as_bytes())),
                    host_id: record.host_id.map(|id| DbUuid(id.uuid())),
                    created_at: DbTime(record.created_at),
                    updated_at: DbTime(record.updated_at),
                })
            }

            pub(super) fn record(self) -> Result<TemplateRecord, StoreError> {
                let (kinds, states) = (&TemplateKind::ALL, &TemplateState::ALL);
                Ok(TemplateRecord {
                    id: TemplateId::from_uuid(self.id.0),
                    team_id: TeamId::from_uuid(self.team_id.0),
                    name: self
                        .name
                        .parse()
                        .map_err(|error| StoreError::Internal(format!("column `name`: {error}")))?,
                    kind: named("kind", kinds, TemplateKind::as_str, &self.kind)?,
                    state: named("state", states, TemplateState::as_str, &self.state)?,
                    operation: in_flight(
                        self.op_id,
                        self.op_kind,
                        self.op_started_at,
                        self.op_lease_until,
                    )?,
                    version: from_column("version", self.version)?,
                    size: MachineSize {
                        vcpus: from_column("vcpus", self.vcpus)?,
                        memory_mb: from_column("memory_mb", self.memory_mb)?,
                        disk_size_mb: from_column("disk_size_mb", self.disk_size_mb)?,
                    },
                    disk_bytes: from_column("disk_bytes", self.disk_bytes)?,
                    memory_bytes: from_column("memory_bytes", self.memory_bytes)?,
                    origin: self.origin_id.map(|id| SandboxId::from_uuid(id.0)),
                    layer: self.layer.map(|hash| LayerKey::from(hash.0)),
                    host_id: self.host_id.map(|id| HostId::from_uuid(id.0)),
                    created_at: self.created_at.0,
                    updated_at: self.updated_at.0,
                })
            }
        }

        #[derive(Queryable, Selectable, Insertable, AsChangeset)]
        #[diesel(table_name = hosts)]
        pub(super) struct HostRow {
            id: DbUuid,
            report_epoch: i64,
            report_sequence: i64,
            seen_at: DbTime,
        }

        impl HostRow {
            pub(super) fn of(seen: &HostSeen) -> Result<Self, StoreError> {
                Ok(Self {
                    id: DbUuid(seen.host_id.uuid()),
                    report_epoch: to_column("report_epoch", seen.report.epoch)?,
                    report_sequence: to_column("report_sequence", seen.report.sequence)?,
                    seen_at: DbTime(seen.seen_at),
                })
            }

            pub(super) fn seen(self) -> Result<HostSeen, StoreError> {
                Ok(HostSeen {
                    host_id: HostId::from_uuid(self.id.0),
                    report: ReportNumber {
                        epoch: from_column("report_epoch", self.report_epoch)?,
                        sequence: from_column("report_sequence", self.report_sequence)?,
                    },
                    seen_at: self.seen_at.0,
                })
            }
        }

        #[derive(Queryable, Selectable, Insertable, AsChangeset)]
        #[diesel(table_name = operations, treat_none_as_null = true)]
        pub(super) struct OperationRow {
            id: DbUuid,
            sandbox_id: Option<DbUuid>,
            template_id: Option<DbUuid>,
            kind: String,
            status: String,
            error: Option<DbJson>,
            started_at: DbTime,
            finished_at: Option<DbTime>,
        }

        impl OperationRow {
            pub(super) fn of(record: &OperationRecord) -> Result<Self, StoreError> {
                let (status, error) = match &record.status {
                    OperationStatus::Running => ("running", None),
                    OperationStatus::Succeeded => ("succeeded", None),
                    OperationStatus::Failed { error } => ("failed", Some(DbJson::of(error)?)),
                };
                Ok(Self {
                    id: DbUuid(record.id.uuid()),
                    sandbox_id: record.sandbox_id.map(|id| DbUuid(id.uuid())),
                    template_id: record.template_id.map(|id| DbUuid(id.uuid())),
                    kind: record.kind.as_str().to_owned(),
                    status: status.to_owned(),
                    error,
                    started_at: DbTime(record.started_at),
                    finished_at: record.finished_at.map(DbTime),
                })
            }

            pub(super) fn record(self) -> Result<OperationRecord, StoreError> {
                let status = match (self.status.as_str(), self.error) {
                    ("running", None) => OperationStatus::Running,
                    ("succeeded", None) => OperationStatus::Succeeded,
                    ("failed", Some(error)) => OperationStatus::Failed {
                        error: error.read("error")?,
                    },
                    (status, error) => {
                        return Err(StoreError::Internal(format!(
                            "column `status` holds `{status}` {} an error",
                            if error.is_some() { "with" } else { "without" },
                        )));
                    }
                };
                Ok(OperationRecord {
                    id: OperationId::from_uuid(self.id.0),
                    sandbox_id: self.sandbox_id.map(|id| SandboxId::from_uuid(id.0)),
                    template_id: self.template_id.map(|id| TemplateId::from_uuid(id.0)),
                    kind: named(
                        "kind",
                        &OperationKind::ALL,
                        OperationKind::as_str,
                        &self.kind,
                    )?,
                    status,
                    started_at: self.started_at.0,
                    finished_at: self.finished_at.map(|time| time.0),
                })
            }
        }

        #[derive(Queryable, Selectable, Insertable)]
        #[diesel(table_name = audit_logs)]
        pub(super) struct AuditRow {
            id: DbUuid,
            at: DbTime,
            actor_kind: String,
            actor_id: String,
            resource: String,
            action: String,
            outcome: String,
            reason: String,
        }

        impl AuditRow {
            pub(super) fn of(entry: &AuditEntry) -> Self {
                Self {
                    id: DbUuid(entry.id.uuid()),
                    at: DbTime(entry.at),
                    actor_kind: entry.actor.kind.as_str().to_owned(),
                    actor_id: entry.actor.id.clone(),
                    resource: entry.resource.clone(),
                    action: entry.action.clone(),
                    outcome: entry.outcome.clone(),
                    reason: entry.reason.clone(),
                }
            }

            pub(super) fn entry(self) -> Result<AuditEntry, StoreError> {
                Ok(AuditEntry {
                    id: AuditId::from_uuid(self.id.0),
                    at: self.at.0,
                    actor: Actor {
                        kind: named(
                            "actor_kind",
                            &ActorKind::ALL,
                            ActorKind::as_str,
                            &self.actor_kind,
                        )?,
                        id: self.actor_id,
                    },
                    resource: self.resource,
                    action: self.action,
                    outcome: self.outcome,
                    reason: self.reason,
                })
            }
        }
    };
}

pub(crate) use stamp_rows;
