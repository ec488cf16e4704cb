//! A sandbox's record: what the platform knows of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    id::{BuildId, HostId, SandboxId, TeamId, TemplateId},
    name::TemplateName,
    operation::Operation,
    size::MachineSize,
};

/// Where a sandbox stands in its life. `lifecycle` has the transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Recorded, and not yet running.
    Pending,
    /// Its machine runs.
    Running,
    /// Its memory and disk are kept; nothing runs.
    Paused,
    /// Its machine has ended; the disk is kept.
    Stopped,
    /// It could not be made to run.
    Error,
    /// Its host is silent.
    Missing,
}

impl SandboxState {
    /// All states, for tables and tests.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Paused,
        Self::Stopped,
        Self::Error,
        Self::Missing,
    ];

    /// The state's name, on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Error => "error",
            Self::Missing => "missing",
        }
    }
}

/// What becomes of a sandbox that was not used for as long as its lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It is destroyed.
    #[default]
    Destroy,
    /// It is paused, if it runs; nothing of it is ever destroyed for want of use.
    Pause,
}

impl OnTimeout {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Destroy, Self::Pause];

    /// Its name, on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroy => "destroy",
            Self::Pause => "pause",
        }
    }
}

/// One sandbox, as stores keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its ID.
    pub id: SandboxId,
    /// Who owns it.
    pub team_id: TeamId,
    /// Where it stands.
    pub state: SandboxState,
    /// Why it stands there, for people.
    pub reason: String,
    /// What is being done with it, if anything.
    pub operation: Option<Operation>,
    /// Counts the writes of this record. Every write names the version that it was decided on.
    pub version: u64,
    /// Counts the machines that this sandbox has had. A host refuses orders for an older one.
    pub generation: u64,
    /// What it was started from, by the name that it had then.
    pub template: TemplateName,
    /// What it was started from.
    pub template_id: TemplateId,
    /// Its machine's size.
    pub size: MachineSize,
    /// Lifetime in seconds since it was last used, if it is bounded.
    pub timeout_sec: Option<u64>,
    /// What becomes of it at the end of that.
    pub on_timeout: OnTimeout,
    /// The client's own labels.
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of every process in it.
    pub env: BTreeMap<String, String>,
    /// The host that it is on, once one is chosen.
    pub host_id: Option<HostId>,
    /// The idempotency key of the request that made it.
    pub idempotency_key: Option<String>,
    /// The template build that it belongs to. Such a one is in no list of sandboxes that does not ask
    /// for it, and lives no longer than its build works in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<BuildId>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its machine began to run.
    pub started_at: Option<Timestamp>,
    /// When it is destroyed or paused, as `on_timeout` says, unless it is used before.
    pub expires_at: Option<Timestamp>,
    /// When the record was last written.
    pub updated_at: Timestamp,
}

/// A request for a new sandbox. Everything has a default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateSandbox {
    /// What to start from; `minimal` where absent.
    pub template: Option<String>,
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mb: Option<u32>,
    /// Disk in MiB.
    pub disk_size_mb: Option<u32>,
    /// Seconds without use after which the sandbox is destroyed or paused; never where absent.
    pub timeout_sec: Option<u64>,
    /// Which of the two; it is destroyed where absent.
    pub on_timeout: Option<OnTimeout>,
    /// The client's own labels.
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of every process in it.
    pub env: BTreeMap<String, String>,
    /// Makes retries safe: requests with one key make one sandbox.
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SandboxFilter {
    /// Only this team's; every team's where absent. Set by the platform, never by a client.
    #[serde(default)]
    pub team_id: Option<TeamId>,
    /// Only started from this template.
    #[serde(default)]
    pub template_id: Option<TemplateId>,
    /// Only in this state.
    pub state: Option<SandboxState>,
    /// Only from this template.
    pub template: Option<TemplateName>,
    /// Only with all these labels.
    pub metadata: BTreeMap<String, String>,
    /// Also those of template builds. Set by the platform, never by a client.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_builds: bool,
}

impl SandboxFilter {
    /// Whether a record is one that the filter asks for.
    #[must_use]
    pub fn matches(&self, record: &SandboxRecord) -> bool {
        self.team_id.is_none_or(|team| team == record.team_id)
            && (self.of_builds || record.build_id.is_none())
            && self
                .template_id
                .is_none_or(|template| template == record.template_id)
            && self.state.is_none_or(|state| state == record.state)
            && self
                .template
                .as_ref()
                .is_none_or(|template| *template == record.template)
            && self
                .metadata
                .iter()
                .all(|(key, value)| record.metadata.get(key) == Some(value))
    }
}

/// Which part of a list to give: at most `limit` items, behind the one that `after` names. Lists
/// are ordered by ID, newest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// The last item of the page before.
    pub after: Option<SandboxId>,
    /// The most items to give.
    pub limit: u32,
}

impl PageRequest {
    /// Items in a page that asks for no number.
    pub const DEFAULT_LIMIT: u32 = 100;
    /// The most items in a page.
    pub const LIMIT_MAX: u32 = 1000;
}

impl Default for PageRequest {
    fn default() -> Self {
        Self {
            after: None,
            limit: Self::DEFAULT_LIMIT,
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to ask for next; absent at the end.
    pub next: Option<SandboxId>,
}
