//! Templates: what sandboxes start from.
//!
//! ```text
//!   (none) ──begin──► making ──published──► ready ──deleted──► deleting ──no user left──► (removed)
//!                        │ failed, or its maker is gone            ▲
//!                        │                                         │
//!                        └──made for a build──► layer ──named──► ready
//!                                                 └──old──► deleting
//! ```
//!
//! A layer is what a step of a template build left behind: kept to start later builds from, found by
//! its key, and seen by nobody. A build's result is a layer until it is published.
//!
//! The record of a template that is being made holds its name, so that no other can take it. A
//! deleted one is seen by nobody and its name is free at once; its files stay for as long as a
//! sandbox lies on them. A template's ID also names its files on a host: what is published under an
//! ID never changes.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    build::LayerKey,
    clock::Timestamp,
    id::{HostId, SandboxId, TeamId, TemplateId},
    name::TemplateName,
    operation::Operation,
    sandbox::PageRequest,
    size::MachineSize,
};

/// The template that every host can make by itself: `minimal`, the platform's.
pub const MINIMAL_TEMPLATE_ID: TemplateId = TemplateId::from_uuid(Uuid::from_u128(1));

/// What a template holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateKind {
    /// A disk. Sandboxes boot from it, at any size that its content fits.
    Image,
    /// A disk and the memory that goes with it. Sandboxes start warm, at exactly its size.
    Snapshot,
}

impl TemplateKind {
    /// All kinds, for tables and tests.
    pub const ALL: [Self; 2] = [Self::Image, Self::Snapshot];

    /// The kind's name, on the wire and in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Where a template stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateState {
    /// Its name is taken; its files are being made.
    Making,
    /// What a step of a template build left behind. Only builds start from it.
    Layer,
    /// Sandboxes can start from it.
    Ready,
    /// Seen by nobody any more; its files go when the last sandbox on them is gone.
    Deleting,
}

impl TemplateState {
    /// All states, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Making, Self::Layer, Self::Ready, Self::Deleting];

    /// The state's name, in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::Layer => "layer",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
        }
    }
}

/// One template, as stores keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// Its ID, and its files' on the host.
    pub id: TemplateId,
    /// Who owns it.
    pub team_id: TeamId,
    /// Its name. One team has one template of a name that is not being deleted.
    pub name: TemplateName,
    /// What it holds.
    pub kind: TemplateKind,
    /// Where it stands.
    pub state: TemplateState,
    /// The operation that makes it, while it is being made. Of one that is made of a sandbox, the
    /// lease is in the sandbox's record.
    pub operation: Option<Operation>,
    /// Counts the writes of this record; every write names the version that it was decided on.
    pub version: u64,
    /// A snapshot's own size; of an image, what a sandbox gets that asks for nothing else: the size of
    /// the sandbox that it was made of, or more where its content needs that. What it takes is
    /// [`size_bytes`](Self::size_bytes).
    pub size: MachineSize,
    /// Physical bytes of its disk, from the host.
    pub disk_bytes: u64,
    /// Physical bytes of its memory, from the host; 0 for an image.
    pub memory_bytes: u64,
    /// The sandbox that it was taken from.
    pub origin: Option<SandboxId>,
    /// Of one that a template build made, what went into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerKey>,
    /// The host that has its files.
    pub host_id: Option<HostId>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record was last written.
    pub updated_at: Timestamp,
}

impl TemplateRecord {
    /// Physical bytes of all its files.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.disk_bytes + self.memory_bytes
    }
}

/// Which templates to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TemplateFilter {
    /// Only of this kind.
    pub kind: Option<TemplateKind>,
    /// Only with this name.
    pub name: Option<TemplateName>,
    /// Only these teams'; every team's where absent.
    pub teams: Option<Vec<TeamId>>,
    /// Only what a template build made of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerKey>,
    /// Also those that are being made or deleted, and layers. Otherwise only what is ready.
    pub all_states: bool,
}

impl TemplateFilter {
    /// Whether a record is one that the filter asks for.
    #[must_use]
    pub fn matches(&self, record: &TemplateRecord) -> bool {
        self.kind.is_none_or(|kind| kind == record.kind)
            && self.name.as_ref().is_none_or(|name| *name == record.name)
            && self
                .teams
                .as_ref()
                .is_none_or(|teams| teams.contains(&record.team_id))
            && (self.layer.is_none() || self.layer == record.layer)
            && (self.all_states || record.state == TemplateState::Ready)
    }
}

/// Which part of a list of templates to give: at most `limit`, behind the one that `after` names.
/// Lists are ordered by ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatePageRequest {
    /// The last item of the page before.
    pub after: Option<TemplateId>,
    /// The most items to give.
    pub limit: u32,
}

impl Default for TemplatePageRequest {
    fn default() -> Self {
        Self {
            after: None,
            limit: PageRequest::DEFAULT_LIMIT,
        }
    }
}

/// A part of a list of templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatePage {
    /// The items.
    pub items: Vec<TemplateRecord>,
    /// What to ask for next; absent at the end.
    pub next: Option<TemplateId>,
}

/// A template and who lies on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUse {
    /// The template.
    pub template: TemplateRecord,
    /// Sandboxes that were started from it and are still there, at most 100.
    pub in_use_by: Vec<SandboxId>,
}

/// A request for a template made from a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// From which sandbox: running or paused.
    pub sandbox_id: SandboxId,
    /// The template's name; one made from its ID where absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether a sandbox that ran runs on afterwards. It is paused otherwise.
    #[serde(default)]
    pub resume: bool,
    /// With memory, or the disk alone.
    #[serde(default = "snapshot")]
    pub kind: TemplateKind,
}

const fn snapshot() -> TemplateKind {
    TemplateKind::Snapshot
}

/// Where a template's files come from, other than a sandbox. Paths are the host's own, so that only
/// an administrator may name them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum ImportSource {
    /// A folder that becomes the root.
    Directory {
        /// Where it is.
        path: String,
    },
    /// A tar archive, plain or compressed with gzip or zstd.
    Tar {
        /// Where it is.
        path: String,
    },
    /// An OCI image layout: a folder, or a tar of one.
    OciLayout {
        /// Where it is.
        path: String,
        /// Which image, where it holds several.
        #[serde(default)]
        reference: Option<String>,
    },
    /// An OCI image from a registry, such as `registry.example/app:1.2`.
    OciRegistry {
        /// The image's full name.
        reference: String,
        /// Whether the registry speaks HTTP without TLS.
        #[serde(default)]
        insecure: bool,
    },
    /// A Debian system, made anew from Debian's archive.
    Debian {
        /// The release, such as `bookworm`.
        suite: String,
        /// Packages beside the base system.
        #[serde(default)]
        packages: Vec<String>,
    },
}

/// A request for a template made from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportTemplate {
    /// The template's name.
    pub name: String,
    /// Where its files come from.
    pub source: ImportSource,
    /// Virtual CPUs of a sandbox that asks for none.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Memory of a sandbox that asks for none, in MiB.
    #[serde(default)]
    pub memory_mb: Option<u32>,
    /// Disk of a sandbox that asks for none, in MiB.
    #[serde(default)]
    pub disk_size_mb: Option<u32>,
}
