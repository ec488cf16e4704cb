//! A build's record: what was asked for, and how far it has come.

use serde::{Deserialize, Serialize};

use crate::{
    audit::Actor,
    build::{Healthcheck, Recipe},
    clock::Timestamp,
    id::{BuildId, SandboxId, TeamId, TemplateId},
    name::TemplateName,
    sandbox::PageRequest,
    size::MachineSize,
};

/// Where a build stands. `lifecycle::build` has the transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// It waits for a worker.
    Pending,
    /// A worker runs it, under a lease.
    Running,
    /// Its template is there.
    Success,
    /// It made no template, for the reason given.
    Failed,
    /// Someone ended it before its time.
    Cancelled,
}

impl BuildStatus {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Success,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name, on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will change it any more.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Cancelled)
    }
}

/// What part of a build a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildPhase {
    /// Making the sandbox that the recipe runs in.
    Pre,
    /// The recipe's own steps.
    Recipe,
    /// What makes a template of it: start, healthcheck, saving, publishing.
    Post,
}

impl BuildPhase {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 3] = [Self::Pre, Self::Recipe, Self::Post];

    /// Its name, on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Recipe => "recipe",
            Self::Post => "post",
        }
    }
}

/// Why a build failed, as clients are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailure {
    /// What went wrong. Nothing of the platform's inside is in it.
    pub message: String,
    /// The step that failed, counted from 1, where it was one.
    pub step: Option<u32>,
    /// Under what the log has the details, where there are any that are not for clients.
    pub error_id: Option<String>,
}

/// The most bytes of an uploaded context, as it is uploaded.
pub const CONTEXT_MAX_BYTES: usize = 64 * 1024 * 1024;

/// One template build, as stores keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its ID.
    pub id: BuildId,
    /// Who will own the template.
    pub team_id: TeamId,
    /// The template's name.
    pub name: TemplateName,
    /// What it starts from, by the name that it had then.
    pub base_template: TemplateName,
    /// What it starts from.
    pub base_id: TemplateId,
    /// What is run.
    pub recipe: Recipe,
    /// The uploaded files that `COPY` takes from.
    pub context: Option<String>,
    /// When the result counts as healthy. With one, the template is a snapshot.
    pub healthcheck: Option<Healthcheck>,
    /// The size of the build's sandbox, and of those that start from the template.
    pub size: MachineSize,
    /// Whether steps are run although their results are there already.
    pub no_cache: bool,
    /// Where it stands.
    pub status: BuildStatus,
    /// The step at work or done last, counted from 1 over all phases; 0 before the first.
    pub current_step: u32,
    /// Steps of all phases.
    pub total_steps: u32,
    /// How often a worker has begun it.
    pub attempt: u32,
    /// How many of those attempts were broken off by whoever ran them, and do not count.
    pub handed_back: u32,
    /// Until when its worker is believed to be at work; of one that waits, until when it does.
    pub lease_until: Option<Timestamp>,
    /// The sandbox of the attempt at work.
    pub sandbox_id: Option<SandboxId>,
    /// The template that it has made.
    pub template_id: Option<TemplateId>,
    /// Why it failed.
    pub failure: Option<BuildFailure>,
    /// Who asked for it.
    pub actor: Actor,
    /// The idempotency key of the request that asked for it.
    pub idempotency_key: Option<String>,
    /// Counts the writes of this record; every write names the version that it was decided on.
    pub version: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When a worker first began it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the record was last written.
    pub updated_at: Timestamp,
}

impl BuildRecord {
    /// Whether a sandbox is the one that this build works in.
    #[must_use]
    pub fn works_in(&self, sandbox: SandboxId) -> bool {
        self.status == BuildStatus::Running && self.sandbox_id == Some(sandbox)
    }
}

/// One step of one attempt at a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStep {
    /// Of which build.
    pub build_id: BuildId,
    /// Of which attempt, counted from 1.
    pub attempt: u32,
    /// Counted from 1 over all phases.
    pub step: u32,
    /// What part of the build it belongs to.
    pub phase: BuildPhase,
    /// What is done, as the recipe has it.
    pub cmd: String,
    /// Its exit code, where it was a command that has exited.
    pub exit_code: Option<i32>,
    /// Whether it succeeded; absent while it runs.
    pub ok: Option<bool>,
    /// How long it took, or has taken so far, in milliseconds.
    pub elapsed_ms: u64,
    /// Whether its result was there already.
    pub cached: bool,
    /// Bytes of its output that were not kept.
    pub dropped_bytes: u64,
}

/// Where a piece of a build's log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// A step's standard output.
    Stdout,
    /// A step's standard error.
    Stderr,
    /// The platform's own remark.
    Note,
}

impl LogStream {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Note];

    /// Its name, on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Note => "note",
        }
    }
}

/// A piece of a build's log. Pieces are written once and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its place: greater than that of every piece before it. A reader asks for what comes behind
    /// the last that it has.
    pub cursor: LogCursor,
    /// The step that it belongs to.
    pub step: u32,
    /// Where it comes from.
    pub stream: LogStream,
    /// The bytes, as they came.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// When it came.
    pub at: Timestamp,
}

/// A place in a build's log: the attempt, and a number within it. Only the worker of an attempt writes
/// pieces of that attempt, so that two workers never write the same place.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LogCursor(pub u64);

impl LogCursor {
    /// Room for the pieces of an attempt. A cursor stays below 2^53, so that any JSON reader keeps it.
    const ATTEMPT: u64 = 1 << 40;

    /// The place of a piece, `number` counted from 1.
    #[must_use]
    pub const fn new(attempt: u32, number: u64) -> Self {
        Self(attempt as u64 * Self::ATTEMPT + number)
    }

    /// Before the first piece of the attempt that it is in.
    #[must_use]
    pub const fn attempt_start(self) -> Self {
        Self(self.attempt() * Self::ATTEMPT)
    }

    /// The attempt that it is in.
    #[must_use]
    pub const fn attempt(self) -> u64 {
        self.0 / Self::ATTEMPT
    }
}

/// Which builds to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BuildFilter {
    /// Only with one of these.
    #[serde(default)]
    pub statuses: Vec<BuildStatus>,
    /// Only of a template of this name.
    pub name: Option<TemplateName>,
    /// Only for this team.
    pub team_id: Option<TeamId>,
    /// The newest first. Otherwise the oldest.
    #[serde(default)]
    pub newest_first: bool,
}

impl BuildFilter {
    /// Whether a record is one that the filter asks for.
    #[must_use]
    pub fn matches(&self, record: &BuildRecord) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&record.status))
            && self.name.as_ref().is_none_or(|name| *name == record.name)
            && self.team_id.is_none_or(|team| team == record.team_id)
    }
}

/// Which part of a list of builds to give: at most `limit`, behind the one that `after` names. Lists
/// are ordered by ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPageRequest {
    /// The last item of the page before.
    pub after: Option<BuildId>,
    /// The most items to give.
    pub limit: u32,
}

impl Default for BuildPageRequest {
    fn default() -> Self {
        Self {
            after: None,
            limit: PageRequest::DEFAULT_LIMIT,
        }
    }
}

/// A part of a list of builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPage {
    /// The items.
    pub items: Vec<BuildRecord>,
    /// What to ask for next; absent at the end.
    pub next: Option<BuildId>,
}

/// A request for a build. Everything but name and recipe has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitBuild {
    /// The template's name. One of this name that is there is replaced once the build succeeds.
    pub name: String,
    /// What to start from, by name or ID; `minimal` where absent.
    #[serde(default)]
    pub base_template: Option<String>,
    /// What is run.
    pub recipe: Recipe,
    /// An uploaded context, as
    /// [`BuildsApi::upload_context`](crate::api::BuildsApi::upload_context) named it.
    #[serde(default)]
    pub context: Option<String>,
    /// When the result counts as healthy. With one, the template is a snapshot.
    #[serde(default)]
    pub healthcheck: Option<Healthcheck>,
    /// Virtual CPUs; the base's where absent.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Memory in MiB; the base's where absent.
    #[serde(default)]
    pub memory_mb: Option<u32>,
    /// Disk in MiB; the base's where absent.
    #[serde(default)]
    pub disk_size_mb: Option<u32>,
    /// Runs every step although its result may be there already.
    #[serde(default)]
    pub no_cache: bool,
    /// The team that will own the template; the platform where absent.
    #[serde(default)]
    pub team_id: Option<TeamId>,
    /// Makes retries safe: requests with one key make one build.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// A build with its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildDetails {
    /// The build.
    pub record: BuildRecord,
    /// Steps of the last attempt, with what they printed.
    pub steps: Vec<StepLog>,
}

/// A step with what it printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLog {
    /// The step.
    pub step: BuildStep,
    /// What was kept of its standard output. A note stands where something is missing.
    #[serde(with = "serde_bytes")]
    pub stdout: Vec<u8>,
    /// What was kept of its standard error.
    #[serde(with = "serde_bytes")]
    pub stderr: Vec<u8>,
}

/// A part of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLog {
    /// How the build stands.
    pub record: BuildRecord,
    /// The steps of its last attempt, as they stood before the log was read.
    pub steps: Vec<BuildStep>,
    /// What follows the cursor that was asked for.
    pub entries: Vec<LogEntry>,
    /// Whether nothing follows any more.
    pub ended: bool,
}
