//! What a host does for the engine: it owns machines, and nothing about teams or names' owners.
//!
//! Every order carries the sandbox's generation; a host refuses one that is older than what it has.
//! Orders are idempotent: the same order twice does what it does once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    guest::Guest,
    id::{HostId, SandboxId, TemplateId},
    name::TemplateName,
    size::MachineSize,
    template::{ImportSource, TemplateKind},
};

/// An order for a new machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCreate {
    /// Whose machine it is.
    pub id: SandboxId,
    /// Which of its machines.
    pub generation: u64,
    /// What it starts from, for people.
    pub template: TemplateName,
    /// What it starts from.
    pub image: TemplateId,
    /// Its size.
    pub size: MachineSize,
    /// Environment variables of every process in it.
    pub env: BTreeMap<String, String>,
}

/// An order for a machine that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostOrder {
    /// Whose machine it is.
    pub id: SandboxId,
    /// Which of its machines.
    pub generation: u64,
    /// The version of the sandbox's record at which it was ordered. A host refuses an order that is
    /// older than the newest it has taken for this machine, so that one that was held up on its way
    /// changes nothing.
    pub order: u64,
}

/// An order to make an image of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSnapshot {
    /// Which machine, and when it was ordered.
    pub order: HostOrder,
    /// The image to make.
    pub image: TemplateId,
    /// Whether the machine runs once the image is there, also where an earlier attempt at the same
    /// order left it paused. It is paused otherwise, and may be after any error, or where it can't
    /// be resumed: that does not undo the image.
    pub resume: bool,
    /// What processes in sandboxes of the image find in their environment, over what those on the
    /// sandbox's own image do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// An order to make an image from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostImport {
    /// The image to make.
    pub image: TemplateId,
    /// Where its files come from.
    pub source: ImportSource,
}

/// An image that a host holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostImage {
    /// Which one.
    pub id: TemplateId,
    /// What it holds.
    pub kind: TemplateKind,
    /// A snapshot's size. Of an image, `disk_size_mb` is the least disk that its content fits, and
    /// the rest is the machine's that it was taken from, or the default.
    pub size: MachineSize,
    /// Physical bytes of its disk.
    pub disk_bytes: u64,
    /// Physical bytes of its memory; 0 for an image.
    pub memory_bytes: u64,
    /// Sandboxes on this host that lie on it.
    pub users: u32,
    /// It was ordered to go, and goes with its last user.
    pub deleting: bool,
}

/// What became of an order to delete an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageDeletion {
    /// Its files are gone, or there were none.
    Freed,
    /// Sandboxes lie on it. The host removes it with the last of them.
    InUse,
}

/// What the host knows of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSandbox {
    /// Whose machine it is.
    pub id: SandboxId,
    /// Which of its machines.
    pub generation: u64,
    /// How it stands.
    pub state: HostSandboxState,
    /// An order to pause or resume it, or to make an image of it, is being carried out: it is shown
    /// as it stands in the middle of that, which says nothing of how it stands when that is over.
    /// Its end raises the report's number.
    #[serde(default)]
    pub at_work: bool,
}

/// How a machine stands on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum HostSandboxState {
    /// It is being made, or was when the host went down.
    Creating,
    /// It runs.
    Running,
    /// Its memory and disk are kept; no process of it is left.
    Paused,
    /// It has ended; its disk is kept.
    Stopped {
        /// Why, for people, such as "the guest powered off".
        reason: String,
    },
}

/// Everything that a host holds, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Which host.
    pub host_id: HostId,
    /// Greater with every start of the host's process.
    #[serde(default)]
    pub epoch: u64,
    /// Counts the changes since the host's process started.
    pub sequence: u64,
    /// Its sandboxes, by ID.
    pub sandboxes: Vec<HostSandbox>,
    /// Its images, by ID; `minimal`, which it makes at need, is among them.
    #[serde(default)]
    pub images: Vec<HostImage>,
}

impl HostReport {
    /// Where it stands in the order of all reports of its host.
    #[must_use]
    pub const fn number(&self) -> ReportNumber {
        ReportNumber {
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }
}

/// Orders the reports of one host.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ReportNumber {
    /// Greater with every start of the host's process.
    pub epoch: u64,
    /// Counts the changes since then.
    pub sequence: u64,
}

/// That a host was heard, as stores keep it for all who share the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSeen {
    /// Which host.
    pub host_id: HostId,
    /// The report.
    pub report: ReportNumber,
    /// When, by the clock of whoever heard it.
    pub seen_at: Timestamp,
}

/// What a host is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Which host.
    pub host_id: HostId,
    /// Version of the host's software.
    pub version: String,
    /// How it runs guests, such as `kvm` or `tcg`.
    pub accelerator: String,
    /// The host's processors.
    pub cpus: u32,
    /// The host's memory in MiB.
    pub memory_mb: u64,
}

/// Why a host did not do what it was ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostError {
    /// It has no template of this name and can't make one.
    #[error("there is no template `{name}`")]
    UnknownTemplate {
        /// The name.
        name: String,
    },
    /// It has no machine for the sandbox.
    #[error("the host has no machine for {0}")]
    UnknownSandbox(SandboxId),
    /// It has no such image.
    #[error("the host has no image {0}")]
    UnknownImage(TemplateId),
    /// An image of this ID is there already.
    #[error("the host has an image {0} already")]
    ImageExists(TemplateId),
    /// The machine stands so that it can't be done.
    #[error("the machine is {state}: {reason}")]
    WrongState {
        /// How it stands, such as `stopped`.
        state: String,
        /// Why it can't be done, for people.
        reason: String,
    },
    /// What was to become an image can't become one.
    #[error("{0}")]
    BadSource(String),
    /// What was saved can't go on here: by another QEMU, or with an agent that this host does not speak
    /// with.
    #[error("the snapshot does not fit this host: {0}")]
    Incompatible(String),
    /// It was overtaken by a newer order.
    #[error("the order {ordered} came after {present}")]
    StaleOrder {
        /// The order's number.
        ordered: u64,
        /// The newest taken.
        present: u64,
    },
    /// The other side can't do this, such as one of another version.
    #[error("the host can't do this: {0}")]
    Unsupported(String),
    /// The order is for an older machine than the one that is there.
    #[error("the order is for generation {ordered}, the host has {present}")]
    StaleGeneration {
        /// The generation of the order.
        ordered: u64,
        /// The generation on the host.
        present: u64,
    },
    /// The host has not the memory, processors or disk for it.
    #[error("the host can't hold it: {0}")]
    Capacity(String),
    /// The template's content does not fit the disk that was asked for.
    #[error(
        "the disk of {asked_mb} MiB is too small for the template, which needs {needed_mb} MiB"
    )]
    DiskTooSmall {
        /// What was asked for, in MiB.
        asked_mb: u32,
        /// What the content needs, in MiB.
        needed_mb: u32,
    },
    /// The host's disk is full.
    #[error(
        "the host's disk is full: {free_mb} MiB are free in {place}, {needed_mb} MiB are needed"
    )]
    DiskFull {
        /// The folder.
        place: String,
        /// What is free, in MiB.
        free_mb: u64,
        /// What is needed, in MiB.
        needed_mb: u64,
    },
    /// Something that the host needs is not installed.
    #[error("{missing}. To mend it: {mend}")]
    NotSetUp {
        /// What is missing.
        missing: String,
        /// The command that installs it.
        mend: String,
    },
    /// The guest did not come up.
    #[error("the sandbox did not start: {0}")]
    Boot(String),
    /// The host is stopping or does not answer.
    #[error("the host is unavailable: {0}")]
    Unavailable(String),
    /// Anything else, by the step that failed.
    #[error("the host failed: {0}")]
    Internal(String),
}

/// A machine that owns sandboxes.
#[async_trait]
pub trait Host: Send + Sync {
    /// What this host is and can do.
    async fn hello(&self) -> Result<HostInfo, HostError>;

    /// Makes a machine and returns when its guest answers under its own identity. The same order
    /// again finds the machine there and succeeds.
    async fn create_sandbox(&self, order: HostCreate) -> Result<(), HostError>;

    /// Ends a sandbox's machine and frees all it held. Succeeds when nothing is there.
    ///
    /// # Errors
    /// [`HostError::StaleGeneration`] when a newer machine is there.
    async fn destroy_sandbox(&self, id: SandboxId, generation: u64) -> Result<(), HostError>;

    /// Saves a sandbox's memory and disk as of one moment and ends its process. One that is paused
    /// already is done.
    ///
    /// # Errors
    /// After any error the machine stands as the report says: running, paused or stopped.
    async fn pause_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        let _ = order;
        Err(HostError::Unsupported("pausing".to_owned()))
    }

    /// Has a paused sandbox go on where it was. One that runs already is done.
    ///
    /// # Errors
    /// What was saved is kept after any error.
    async fn resume_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        let _ = order;
        Err(HostError::Unsupported("resuming".to_owned()))
    }

    /// Makes a snapshot, disk and memory as of one moment, of a sandbox that runs or is paused. The
    /// same order again finds the image there and succeeds.
    ///
    /// # Errors
    /// Nothing of the image is left after any error.
    async fn create_snapshot(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        let _ = order;
        Err(HostError::Unsupported("snapshots".to_owned()))
    }

    /// Makes an image of a sandbox's disk alone, checked and shrunk to its least. Otherwise like
    /// [`create_snapshot`](Self::create_snapshot).
    async fn flatten_rootfs(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        let _ = order;
        Err(HostError::Unsupported("flattening".to_owned()))
    }

    /// Makes an image from elsewhere. The same order again finds the image there and succeeds.
    ///
    /// # Errors
    /// [`HostError::BadSource`] for what can't become a root file system. Nothing of the image is
    /// left after any error.
    async fn import_image(&self, order: HostImport) -> Result<HostImage, HostError> {
        let _ = order;
        Err(HostError::Unsupported("importing".to_owned()))
    }

    /// Frees an image's files, now or with the last sandbox that lies on them. Succeeds when
    /// nothing is there.
    async fn delete_snapshot(&self, image: TemplateId) -> Result<ImageDeletion, HostError> {
        let _ = image;
        Err(HostError::Unsupported("deleting images".to_owned()))
    }

    /// Everything that the host holds.
    async fn list_sandboxes(&self) -> Result<HostReport, HostError>;

    /// Returns the newest sequence once it is beyond `seen`, or after `wait` at the latest.
    async fn changed(&self, seen: u64, wait: Duration) -> Result<u64, HostError>;

    /// The inside of a sandbox. Calls fail with
    /// [`CallError::NotRunning`](crate::guest::CallError::NotRunning) where it doesn't run.
    fn guest(&self, id: SandboxId) -> Arc<dyn Guest>;
}
