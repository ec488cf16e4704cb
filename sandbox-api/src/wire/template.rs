//! Templates on the wire.

use chrono::{DateTime, Utc};
use sandbox_core::{
    id::{PLATFORM_TEAM_ID, SandboxId},
    template::{
        ImportSource, ImportTemplate, SnapshotRequest, TemplateKind, TemplateRecord, TemplateUse,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::{schema::packages, whole};

/// What a template holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TemplateType)]
pub(crate) enum Type {
    /// A disk: sandboxes boot from it, at any size that its content fits.
    Image,
    /// A disk and the memory that goes with it: sandboxes start warm, at exactly its size.
    Snapshot,
}

impl From<TemplateKind> for Type {
    fn from(kind: TemplateKind) -> Self {
        match kind {
            TemplateKind::Image => Self::Image,
            TemplateKind::Snapshot => Self::Snapshot,
        }
    }
}

impl From<Type> for TemplateKind {
    fn from(kind: Type) -> Self {
        match kind {
            Type::Image => Self::Image,
            Type::Snapshot => Self::Snapshot,
        }
    }
}

/// A template to be made of a sandbox.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotBody {
    /// Of which sandbox: running or paused.
    #[schema(
        value_type = String,
        example = "sb-0190163d-8694-739b-aea5-966c26f8ad91",
        pattern = "^sb-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    sandbox_id: SandboxId,
    /// The template's name; one that is made up where absent.
    #[schema(example = "warm", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    name: Option<String>,
    /// Whether a sandbox that runs goes on afterwards; it is paused where absent.
    resume: Option<bool>,
    /// With memory, or the disk alone; `snapshot` where absent.
    #[serde(rename = "type")]
    #[schema(inline)]
    kind: Option<Type>,
}

impl From<SnapshotBody> for SnapshotRequest {
    fn from(body: SnapshotBody) -> Self {
        Self {
            sandbox_id: body.sandbox_id,
            name: body.name,
            resume: body.resume.unwrap_or(false),
            kind: body.kind.unwrap_or(Type::Snapshot).into(),
        }
    }
}

/// Where a template's files come from. Paths are the host's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
#[schema(as = ImportSource)]
pub(crate) enum Source {
    /// A folder that becomes the root.
    Directory {
        /// Where it is.
        #[schema(pattern = "^/[^\\x00]*$")]
        path: String,
    },
    /// A tar archive, plain or compressed with gzip or zstd.
    Tar {
        /// Where it is.
        #[schema(pattern = "^/[^\\x00]*$")]
        path: String,
    },
    /// An OCI image layout: a folder, or a tar of one.
    OciLayout {
        /// Where it is.
        #[schema(pattern = "^/[^\\x00]*$")]
        path: String,
        /// Which image, where it holds several.
        #[schema(pattern = "^[!-,.-~][!-~]*$", max_length = 512)]
        reference: Option<String>,
    },
    /// An OCI image from a registry.
    OciRegistry {
        /// The image's full name.
        #[schema(
            example = "docker.io/library/alpine:3.20",
            pattern = "^[!-,.-~][!-~]*$",
            max_length = 512
        )]
        reference: String,
        /// Whether the registry speaks HTTP without TLS; it does not where absent.
        insecure: Option<bool>,
    },
    /// A Debian system, made anew from Debian's archive.
    Debian {
        /// The release.
        #[schema(
            example = "bookworm",
            pattern = "^[a-z0-9][a-z0-9+.-]*$",
            max_length = 128
        )]
        suite: String,
        /// Packages beside the base system.
        #[schema(schema_with = packages)]
        packages: Option<Vec<String>>,
    },
}

impl From<Source> for ImportSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Directory { path } => Self::Directory { path },
            Source::Tar { path } => Self::Tar { path },
            Source::OciLayout { path, reference } => Self::OciLayout { path, reference },
            Source::OciRegistry {
                reference,
                insecure,
            } => Self::OciRegistry {
                reference,
                insecure: insecure.unwrap_or(false),
            },
            Source::Debian { suite, packages } => Self::Debian {
                suite,
                packages: packages.unwrap_or_default(),
            },
        }
    }
}

/// A template to be made from elsewhere.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportBody {
    /// The template's name.
    #[schema(example = "alpine", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    name: String,
    /// Where its files come from.
    source: Source,
    /// Virtual CPUs of a sandbox that asks for none; 1 where absent.
    #[schema(minimum = 1, maximum = 64)]
    #[serde(default, deserialize_with = "whole::optional")]
    vcpus: Option<u32>,
    /// Memory of a sandbox that asks for none, in MiB (2^20 bytes); 512 where absent.
    #[schema(minimum = 128, maximum = 1_048_576)]
    #[serde(default, deserialize_with = "whole::optional")]
    memory_mb: Option<u32>,
    /// Disk of a sandbox that asks for none, in MiB (2^20 bytes); 5120, or what the content needs,
    /// where absent.
    #[schema(minimum = 64, maximum = 4_194_304)]
    #[serde(default, deserialize_with = "whole::optional")]
    disk_size_mb: Option<u32>,
}

impl From<ImportBody> for ImportTemplate {
    fn from(body: ImportBody) -> Self {
        Self {
            name: body.name,
            source: body.source.into(),
            vcpus: body.vcpus,
            memory_mb: body.memory_mb,
            disk_size_mb: body.disk_size_mb,
        }
    }
}

/// A template.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Template {
    /// Its ID. It names this template and no other, whoever asks.
    #[schema(example = "tpl-0190163d-8694-739b-aea5-966c26f8ad91")]
    id: String,
    /// Its name, unique within its team.
    name: String,
    /// What it holds.
    #[serde(rename = "type")]
    kind: Type,
    /// Who owns it.
    team_id: String,
    /// Whether it is the platform's: seen by everyone, changed by administrators alone.
    platform: bool,
    /// Virtual CPUs of a sandbox that asks for none.
    vcpus: u32,
    /// Memory of a sandbox that asks for none, in MiB.
    memory_mb: u32,
    /// Disk of a sandbox that asks for none, in MiB. What the template itself takes is `size_bytes`.
    disk_size_mb: u32,
    /// What its files take on the host, in bytes.
    size_bytes: u64,
    /// When it was asked for.
    created_at: DateTime<Utc>,
}

impl From<TemplateRecord> for Template {
    fn from(record: TemplateRecord) -> Self {
        Self {
            id: record.id.to_string(),
            size_bytes: record.size_bytes(),
            name: record.name.to_string(),
            kind: record.kind.into(),
            team_id: record.team_id.to_string(),
            platform: record.team_id == PLATFORM_TEAM_ID,
            vcpus: record.size.vcpus,
            memory_mb: record.size.memory_mb,
            disk_size_mb: record.size.disk_size_mb,
            created_at: record.created_at,
        }
    }
}

/// A template, with what only administrators see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminTemplate {
    #[serde(flatten)]
    template: Template,
    /// What its disk takes on the host, in bytes.
    disk_bytes: u64,
    /// What its memory takes on the host, in bytes; 0 for an image.
    memory_bytes: u64,
    /// Sandboxes that were started from it and are there, at most 100.
    in_use_by: Vec<String>,
}

impl From<TemplateUse> for AdminTemplate {
    fn from(one: TemplateUse) -> Self {
        Self {
            disk_bytes: one.template.disk_bytes,
            memory_bytes: one.template.memory_bytes,
            in_use_by: one.in_use_by.iter().map(SandboxId::to_string).collect(),
            template: one.template.into(),
        }
    }
}
