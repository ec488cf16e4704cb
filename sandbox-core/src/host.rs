//! What a host does for the engine: it owns machines, and nothing about teams or names' owners.
//!
//! Every order carries the sandbox's generation; a host refuses one that is older than what it has.
//! Orders are idempotent: the same order twice does what it does once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    guest::Guest,
    id::{HostId, SandboxId},
    name::TemplateName,
    size::MachineSize,
};

/// An order for a new machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCreate {
    /// Whose machine it is.
    pub id: SandboxId,
    /// Which of its machines.
    pub generation: u64,
    /// What it starts from.
    pub template: TemplateName,
    /// Its size.
    pub size: MachineSize,
    /// Environment variables of every process in it.
    pub env: BTreeMap<String, String>,
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
}

/// How a machine stands on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum HostSandboxState {
    /// It is being made, or was when the host went down.
    Creating,
    /// It runs.
    Running,
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
    /// Counts the changes since the host's process started.
    pub sequence: u64,
    /// Its sandboxes, by ID.
    pub sandboxes: Vec<HostSandbox>,
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

    /// Everything that the host holds.
    async fn list_sandboxes(&self) -> Result<HostReport, HostError>;

    /// Returns the newest sequence once it is beyond `seen`, or after `wait` at the latest.
    async fn changed(&self, seen: u64, wait: Duration) -> Result<u64, HostError>;

    /// The inside of a sandbox. Calls fail with
    /// [`CallError::NotRunning`](crate::guest::CallError::NotRunning) where it doesn't run.
    fn guest(&self, id: SandboxId) -> Arc<dyn Guest>;
}
