//! Records of template builds as rows, and back.

/// Stamps the rows of builds, their steps and their logs for one backend, as `stamp_rows` does those
/// of everything else.
macro_rules! stamp_build_rows {
    (schema: $schema:path) => {
        use diesel::prelude::*;
        use sandbox_core::{
            audit::{Actor, ActorKind},
            build::{
                BuildPhase, BuildRecord, BuildStatus, BuildStep, LogCursor, LogEntry, LogStream,
            },
            id::{BuildId, SandboxId, TeamId, TemplateId},
            name::TemplateName,
            size::MachineSize,
            store::StoreError,
        };
        use $schema as schema;

        use schema::{template_build_log, template_build_steps, template_builds};

        use crate::{
            columns::{DbJson, DbTime, DbUuid},
            stamp::{from_column, named, to_column},
        };

        fn template_name(column: &str, text: &str) -> Result<TemplateName, StoreError> {
            text.parse()
                .map_err(|error| StoreError::Internal(format!("column `{column}`: {error}")))
        }

        #[derive(Queryable, Selectable, Insertable, AsChangeset)]
        #[diesel(table_name = template_builds, treat_none_as_null = true)]
        pub(super) struct BuildRow {
            id: DbUuid,
            team_id: DbUuid,
            name: String,
            base_template: String,
            base_id: DbUuid,
            recipe: DbJson,
            context: Option<String>,
            healthcheck: Option<DbJson>,
            vcpus: i32,
            memory_mb: i32,
            disk_size_mb: i32,
            no_cache: bool,
            status: String,
            current_step: i64,
            total_steps: i64,
            attempt: i64,
            handed_back: i64,
            lease_until: Option<DbTime>,
            sandbox_id: Option<DbUuid>,
            template_id: Option<DbUuid>,
            failure: Option<DbJson>,
            actor_kind: String,
            actor_id: String,
            idempotency_key: Option<String>,
            version: i64,
            created_at: DbTime,
            started_at: Option<DbTime>,
            finished_at: Option<DbTime>,
            updated_at: DbTime,
        }

        impl BuildRow {
            pub(super) fn of(record: &BuildRecord) -> Result<Self, StoreError> {
                Ok(Self {
                    id: DbUuid(record.id.uuid()),
                    team_id: DbUuid(record.team_id.uuid()),
                    name: record.name.as_str().to_owned(),
                    base_template: record.base_template.as_str().to_owned(),
                    base_id: DbUuid(record.base_id.uuid()),
                    recipe: DbJson::of(&record.recipe)?,
                    context: record.context.clone(),
                    healthcheck: record.healthcheck.as_ref().map(DbJson::of).transpose()?,
                    vcpus: to_column("vcpus", record.size.vcpus)?,
                    memory_mb: to_column("memory_mb", record.size.memory_mb)?,
                    disk_size_mb: to_column("disk_size_mb", record.size.disk_size_mb)?,
                    no_cache: record.no_cache,
                    status: record.status.as_str().to_owned(),
                    current_step: record.current_step.into(),
                    total_steps: record.total_steps.into(),
                    attempt: record.attempt.into(),
                    handed_back: record.handed_back.into(),
                    lease_until: record.lease_until.map(DbTime),
                    sandbox_id: record.sandbox_id.map(|id| DbUuid(id.uuid())),
                    template_id: record.template_id.map(|id| DbUuid(id.uuid())),
                    failure: record.failure.as_ref().map(DbJson::of).transpose()?,
                    actor_kind: record.actor.kind.as_str().to_owned(),
                    actor_id: record.actor.id.clone(),
                    idempotency_key: record.idempotency_key.clone(),
                    version: to_column("version", record.version)?,
                    created_at: DbTime(record.created_at),
                    started_at: record.started_at.map(DbTime),
                    finished_at: record.finished_at.map(DbTime),
                    updated_at: DbTime(record.updated_at),
                })
            }

            pub(super) fn record(self) -> Result<BuildRecord, StoreError> {
                let (statuses, kinds) = (&BuildStatus::ALL, &ActorKind::ALL);
                Ok(BuildRecord {
                    id: BuildId::from_uuid(self.id.0),
                    team_id: TeamId::from_uuid(self.team_id.0),
                    name: template_name("name", &self.name)?,
                    base_template: template_name("base_template", &self.base_template)?,
                    base_id: TemplateId::from_uuid(self.base_id.0),
                    recipe: self.recipe.read("recipe")?,
                    context: self.context,
                    healthcheck: self
                        .healthcheck
                        .map(|json| json.read("healthcheck"))
                        .transpose()?,
                    size: MachineSize {
                        vcpus: from_column("vcpus", self.vcpus)?,
                        memory_mb: from_column("memory_mb", self.memory_mb)?,
                        disk_size_mb: from_column("disk_size_mb", self.disk_size_mb)?,
                    },
                    no_cache: self.no_cache,
                    status: named("status", statuses, BuildStatus::as_str, &self.status)?,
                    current_step: from_column("current_step", self.current_step)?,
                    total_steps: from_column("total_steps", self.total_steps)?,
                    attempt: from_column("attempt", self.attempt)?,
                    handed_back: from_column("handed_back", self.handed_back)?,
                    lease_until: self.lease_until.map(|time| time.0),
                    sandbox_id: self.sandbox_id.map(|id| SandboxId::from_uuid(id.0)),
                    template_id: self.template_id.map(|id| TemplateId::from_uuid(id.0)),
                    failure: self.failure.map(|json| json.read("failure")).transpose()?,
                    actor: Actor {
                        kind: named("actor_kind", kinds, ActorKind::as_str, &self.actor_kind)?,
                        id: self.actor_id,
                    },
                    idempotency_key: self.idempotency_key,
                    version: from_column("version", self.version)?,
                    created_at: self.created_at.0,
                    started_at: self.started_at.map(|time| time.0),
                    finished_at: self.finished_at.map(|time| time.0),
                    updated_at: self.updated_at.0,
                })
            }
        }

        #[derive(Queryable, Selectable, Insertable, AsChangeset)]
        #[diesel(table_name = template_build_steps, treat_none_as_null = true)]
        #[diesel(primary_key(build_id, attempt, step))]
        pub(super) struct StepRow {
            build_id: DbUuid,
            attempt: i64,
            step: i64,
            phase: String,
            cmd: String,
            exit_code: Option<i32>,
            ok: Option<bool>,
            elapsed_ms: i64,
            cached: bool,
            dropped_bytes: i64,
        }

        impl StepRow {
            pub(super) fn of(step: &BuildStep) -> Result<Self, StoreError> {
                Ok(Self {
                    build_id: DbUuid(step.build_id.uuid()),
                    attempt: step.attempt.into(),
                    step: step.step.into(),
                    phase: step.phase.as_str().to_owned(),
                    cmd: step.cmd.clone(),
                    exit_code: step.exit_code,
                    ok: step.ok,
                    elapsed_ms: to_column("elapsed_ms", step.elapsed_ms)?,
                    cached: step.cached,
                    dropped_bytes: to_column("dropped_bytes", step.dropped_bytes)?,
                })
            }

            pub(super) fn step(self) -> Result<BuildStep, StoreError> {
                let phases = &BuildPhase::ALL;
                Ok(BuildStep {
                    build_id: BuildId::from_uuid(self.build_id.0),
                    attempt: from_column("attempt", self.attempt)?,
                    step: from_column("step", self.step)?,
                    phase: named("phase", phases, BuildPhase::as_str, &self.phase)?,
                    cmd: self.cmd,
                    exit_code: self.exit_code,
                    ok: self.ok,
                    elapsed_ms: from_column("elapsed_ms", self.elapsed_ms)?,
                    cached: self.cached,
                    dropped_bytes: from_column("dropped_bytes", self.dropped_bytes)?,
                })
            }
        }

        /// A piece of a log on its way in: its bytes stay where they are.
        #[derive(Insertable)]
        #[diesel(table_name = template_build_log)]
        pub(super) struct NewLogRow<'a> {
            build_id: DbUuid,
            cursor: i64,
            step: i64,
            stream: &'static str,
            data: &'a [u8],
            at: DbTime,
        }

        impl<'a> NewLogRow<'a> {
            pub(super) fn of(build: BuildId, entry: &'a LogEntry) -> Result<Self, StoreError> {
                Ok(Self {
                    build_id: DbUuid(build.uuid()),
                    cursor: to_column("cursor", entry.cursor.0)?,
                    step: entry.step.into(),
                    stream: entry.stream.as_str(),
                    data: &entry.data,
                    at: DbTime(entry.at),
                })
            }
        }

        #[derive(Queryable, Selectable)]
        #[diesel(table_name = template_build_log)]
        pub(super) struct LogRow {
            cursor: i64,
            step: i64,
            stream: String,
            data: Vec<u8>,
            at: DbTime,
        }

        impl LogRow {
            pub(super) fn entry(self) -> Result<LogEntry, StoreError> {
                let streams = &LogStream::ALL;
                Ok(LogEntry {
                    cursor: LogCursor(from_column("cursor", self.cursor)?),
                    step: from_column("step", self.step)?,
                    stream: named("stream", streams, LogStream::as_str, &self.stream)?,
                    data: self.data,
                    at: self.at.0,
                })
            }
        }
    };
}

pub(crate) use stamp_build_rows;
