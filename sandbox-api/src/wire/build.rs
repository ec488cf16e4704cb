//! Template builds on the wire.

use chrono::{DateTime, Utc};
use sandbox_core::{
    build::{
        BuildDetails, BuildFailure, BuildPhase, BuildRecord, BuildStatus, BuildStep, Recipe, Step,
        StepLog, SubmitBuild, recipe::RecipeError,
    },
    id::TeamId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::ApiError,
    wire::{
        schema::{healthcheck, recipe},
        whole,
    },
};

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BuildStatus)]
pub(crate) enum Status {
    /// It waits for a worker.
    Pending,
    /// It is at work.
    Running,
    /// Its template is there.
    Success,
    /// It made no template; `error` says why.
    Failed,
    /// Someone ended it before its time.
    Cancelled,
}

impl From<BuildStatus> for Status {
    fn from(status: BuildStatus) -> Self {
        match status {
            BuildStatus::Pending => Self::Pending,
            BuildStatus::Running => Self::Running,
            BuildStatus::Success => Self::Success,
            BuildStatus::Failed => Self::Failed,
            BuildStatus::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Status> for BuildStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Running => Self::Running,
            Status::Success => Self::Success,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

/// What part of a build a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BuildPhase)]
pub(crate) enum Phase {
    /// Making the sandbox that the recipe runs in.
    Pre,
    /// The recipe's own steps.
    Recipe,
    /// What makes a template of it: start, healthcheck, saving.
    Post,
}

impl From<BuildPhase> for Phase {
    fn from(phase: BuildPhase) -> Self {
        match phase {
            BuildPhase::Pre => Self::Pre,
            BuildPhase::Recipe => Self::Recipe,
            BuildPhase::Post => Self::Post,
        }
    }
}

/// A recipe: a list of entries, or one text.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of commands and instructions, or one text"
)]
pub(crate) enum RecipeBody {
    List(Vec<String>),
    Text(String),
}

/// A healthcheck: its command alone, or all that can be said.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a command, or an object with `cmd`, and `interval_sec`, `timeout_sec`, \
                 `start_period_sec` and `retries` as whole numbers"
)]
pub(crate) enum HealthcheckBody {
    Cmd(String),
    Full(FullHealthcheck),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FullHealthcheck {
    cmd: String,
    #[serde(default, deserialize_with = "whole::optional")]
    interval_sec: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    timeout_sec: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    start_period_sec: Option<u32>,
    #[serde(default, deserialize_with = "whole::optional")]
    retries: Option<u32>,
}

impl From<HealthcheckBody> for sandbox_core::build::Healthcheck {
    fn from(body: HealthcheckBody) -> Self {
        let full = match body {
            HealthcheckBody::Cmd(cmd) => return Self::new(cmd),
            HealthcheckBody::Full(full) => full,
        };
        let default = Self::new(full.cmd);
        Self {
            interval_sec: full.interval_sec.unwrap_or(default.interval_sec),
            timeout_sec: full.timeout_sec.unwrap_or(default.timeout_sec),
            start_period_sec: full.start_period_sec.unwrap_or(default.start_period_sec),
            retries: full.retries.unwrap_or(default.retries),
            cmd: default.cmd,
        }
    }
}

/// A template to be built.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuildBody {
    /// The template's name. One of this name that is there is replaced once the build succeeds.
    #[schema(example = "web", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    name: String,
    /// What to start from, by name or ID; else what the recipe's `FROM` says, else `minimal`.
    #[schema(example = "debian", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    base_template: Option<String>,
    /// What is run.
    #[schema(schema_with = recipe)]
    recipe: RecipeBody,
    /// Files for `COPY`, by the name that an upload of them got.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    context: Option<String>,
    /// When the result counts as healthy.
    #[schema(schema_with = healthcheck)]
    healthcheck: Option<HealthcheckBody>,
    /// Virtual CPUs, of the build and of what starts from the template; the base's where absent.
    #[schema(minimum = 1, maximum = 64)]
    #[serde(default, deserialize_with = "whole::optional")]
    vcpus: Option<u32>,
    /// Memory in MiB (2^20 bytes), likewise.
    #[schema(minimum = 128, maximum = 1_048_576)]
    #[serde(default, deserialize_with = "whole::optional")]
    memory_mb: Option<u32>,
    /// Disk in MiB (2^20 bytes), likewise.
    #[schema(minimum = 64, maximum = 4_194_304)]
    #[serde(default, deserialize_with = "whole::optional")]
    disk_size_mb: Option<u32>,
    /// Runs every step although its result may be there already; false where absent.
    no_cache: Option<bool>,
    /// The team that will own the template; the platform where absent.
    #[schema(
        value_type = Option<String>,
        pattern = "^team-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    team_id: Option<TeamId>,
}

impl BuildBody {
    /// What is asked for. A recipe that can't be read is told with its line and column.
    pub(crate) fn into_request(
        self,
        idempotency_key: Option<String>,
    ) -> Result<SubmitBuild, ApiError> {
        let bad = |error: RecipeError| ApiError::invalid_field("recipe", error);
        let (recipe, base, check) = match self.recipe {
            RecipeBody::List(entries) => (Recipe::parse_list(&entries).map_err(bad)?, None, None),
            RecipeBody::Text(text) => {
                let read = Recipe::parse_text(&text).map_err(bad)?;
                let base = read.base.map(|name| name.to_string());
                (read.recipe, base, read.healthcheck.map(Into::into))
            }
        };
        Ok(SubmitBuild {
            name: self.name,
            base_template: self.base_template.or(base),
            recipe,
            context: self.context,
            healthcheck: self.healthcheck.map(Into::into).or(check),
            vcpus: self.vcpus,
            memory_mb: self.memory_mb,
            disk_size_mb: self.disk_size_mb,
            no_cache: self.no_cache.unwrap_or(false),
            team_id: self.team_id,
            idempotency_key,
        })
    }
}

/// How the result of a build is found healthy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Healthcheck {
    /// A shell line; exit code 0 is healthy.
    cmd: String,
    /// Seconds between two checks.
    interval_sec: u32,
    /// Seconds that one check may take.
    timeout_sec: u32,
    /// Seconds from the start in which a failed check does not count.
    start_period_sec: u32,
    /// Failed checks in a row that are put up with, beyond the first.
    retries: u32,
}

/// Why a build failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildProblem {
    /// What went wrong, with the end of what the step printed.
    message: String,
    /// The step that failed, counted from 1, where it was one.
    #[schema(required = true)]
    step: Option<u32>,
    /// Under what the daemon's log has the details, where there are any that are not for clients.
    #[schema(required = true)]
    error_id: Option<String>,
}

impl From<BuildFailure> for BuildProblem {
    fn from(failure: BuildFailure) -> Self {
        Self {
            message: failure.message,
            step: failure.step,
            error_id: failure.error_id,
        }
    }
}

/// A template build.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Build {
    /// Its ID.
    #[schema(example = "bld-0190163d-8694-739b-aea5-966c26f8ad91")]
    id: String,
    /// Where it stands.
    status: Status,
    /// The template's name.
    name: String,
    /// What it starts from.
    base_template: String,
    /// Who will own the template.
    team_id: String,
    /// The step at work or done last, counted from 1 over all phases; 0 before the first.
    current_step: u32,
    /// Steps of all phases.
    total_steps: u32,
    /// How often a worker has begun it.
    attempt: u32,
    /// The template that it has made; null where it has made none.
    #[schema(required = true)]
    template_id: Option<String>,
    /// Why it failed; null where it did not.
    #[schema(required = true)]
    error: Option<BuildProblem>,
    /// The upload that `COPY` takes from.
    #[schema(required = true)]
    context: Option<String>,
    /// When the result counts as healthy; null for a template without memory.
    #[schema(required = true)]
    healthcheck: Option<Healthcheck>,
    /// Virtual CPUs.
    vcpus: u32,
    /// Memory in MiB.
    memory_mb: u32,
    /// Disk in MiB.
    disk_size_mb: u32,
    /// Whether steps are run although their results are there already.
    no_cache: bool,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When a worker first began it.
    #[schema(required = true)]
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[schema(required = true)]
    finished_at: Option<DateTime<Utc>>,
    /// When anything of it changed last.
    updated_at: DateTime<Utc>,
}

impl From<BuildRecord> for Build {
    fn from(record: BuildRecord) -> Self {
        Self {
            id: record.id.to_string(),
            status: record.status.into(),
            name: record.name.to_string(),
            base_template: record.base_template.to_string(),
            team_id: record.team_id.to_string(),
            current_step: record.current_step,
            total_steps: record.total_steps,
            attempt: record.attempt,
            template_id: record.template_id.map(|id| id.to_string()),
            error: record.failure.map(BuildProblem::from),
            context: record.context,
            healthcheck: record.healthcheck.map(|check| Healthcheck {
                cmd: check.cmd,
                interval_sec: check.interval_sec,
                timeout_sec: check.timeout_sec,
                start_period_sec: check.start_period_sec,
                retries: check.retries,
            }),
            vcpus: record.size.vcpus,
            memory_mb: record.size.memory_mb,
            disk_size_mb: record.size.disk_size_mb,
            no_cache: record.no_cache,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            updated_at: record.updated_at,
        }
    }
}

/// One step of a build.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildStepInfo {
    /// Counted from 1 over all phases.
    step: u32,
    /// What part of the build it belongs to.
    phase: Phase,
    /// What is done, as the recipe has it.
    cmd: String,
    /// Its exit code, where it was a command that has exited.
    #[schema(required = true)]
    exit_code: Option<i32>,
    /// Whether it succeeded; null while it runs.
    #[schema(required = true)]
    ok: Option<bool>,
    /// How long it took, or has taken so far, in milliseconds.
    elapsed_ms: u64,
    /// Whether its result was there already.
    cached: bool,
    /// Bytes of its output that were not kept.
    dropped_bytes: u64,
}

impl From<BuildStep> for BuildStepInfo {
    fn from(step: BuildStep) -> Self {
        Self {
            step: step.step,
            phase: step.phase.into(),
            cmd: step.cmd,
            exit_code: step.exit_code,
            ok: step.ok,
            elapsed_ms: step.elapsed_ms,
            cached: step.cached,
            dropped_bytes: step.dropped_bytes,
        }
    }
}

/// One step of a build with what it printed. What is not UTF-8 is replaced by U+FFFD.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildStepLog {
    #[serde(flatten)]
    step: BuildStepInfo,
    /// What was kept of its standard output.
    stdout: String,
    /// What was kept of its standard error. A note in it says where output is missing.
    stderr: String,
}

impl From<StepLog> for BuildStepLog {
    fn from(log: StepLog) -> Self {
        Self {
            step: log.step.into(),
            stdout: String::from_utf8_lossy(&log.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&log.stderr).into_owned(),
        }
    }
}

/// A template build with its recipe, its steps and what they printed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildInfo {
    #[serde(flatten)]
    build: Build,
    /// What is run, as a list.
    recipe: Vec<String>,
    /// The steps of the last attempt, in order.
    logs: Vec<BuildStepLog>,
}

impl From<BuildDetails> for BuildInfo {
    fn from(details: BuildDetails) -> Self {
        let steps = details.record.recipe.steps.iter();
        Self {
            recipe: steps.map(Step::text).collect(),
            logs: details.steps.into_iter().map(Into::into).collect(),
            build: details.record.into(),
        }
    }
}

/// An upload that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContextName {
    /// The name under which a build asks for it: the SHA-256 of the archive.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub(crate) context: String,
}
