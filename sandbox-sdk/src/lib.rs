//! Isolated Linux machines for a Rust app: created in a fraction of a second, used like a child
//! process, and gone without a trace.
//!
//! ```no_run
//! # #[cfg(feature = "embedded")]
//! # async fn example() -> Result<(), sandbox_sdk::Error> {
//! use sandbox_sdk::{Client, EmbeddedConfig};
//!
//! let client = Client::embedded(EmbeddedConfig::default()).await?;
//! let sandbox = client.create().await?;
//!
//! let output = sandbox.exec("echo hello from $(uname -s)").await?;
//! assert_eq!(output.stdout, "hello from Linux\n");
//!
//! sandbox.files().write("/tmp/numbers", "3\n1\n2\n").await?;
//! let sorted = sandbox.exec("sort /tmp/numbers").await?;
//! assert!(sorted.status.success());
//!
//! sandbox.destroy().await?;
//! client.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! A sandbox can be paused and resumed, and a snapshot of it is a template whose clones start warm:
//! with the same processes, memory and files.
//!
//! ```no_run
//! # async fn example(sandbox: sandbox_sdk::Sandbox, client: sandbox_sdk::Client)
//! # -> Result<(), sandbox_sdk::Error> {
//! sandbox.command("/srv/server").spawn().await?;
//! let warm = sandbox.snapshot("warm-server").await?;
//! let clone = client.create().template(&warm).await?;
//! # Ok(()) }
//! ```
//!
//! Every sandbox is a real virtual machine with a kernel, memory and disk of its own. It has no
//! network. A [`Client`] is made by [`Client::embedded`] (feature `embedded`), which runs the
//! machines from within the app and needs no daemon, or by [`Client::connect`] (feature `remote`),
//! which asks a control plane; all else is the same. Dropping a client or a [`Sandbox`] handle ends
//! nothing: sandboxes run until they are destroyed, their timeout passes, or the machine goes down,
//! and a client opened later on the same data folder finds them again.

mod build;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod client;
mod command;
mod create;
#[cfg(feature = "embedded")]
mod embedded;
mod files;
mod process;
#[cfg(feature = "remote")]
pub mod rpc;
mod sandbox;
mod template;
mod templates;

pub use build::{Build, BuildError, BuildTemplate, FailedBuild, FailedStep};
pub use client::Client;
pub use command::Command;
pub use create::Create;
#[cfg(feature = "embedded")]
pub use embedded::EmbeddedConfig;
pub use files::Files;
pub use process::{Process, ProcessEvent};
#[cfg(feature = "remote")]
pub use rpc::RemoteConfig;
pub use sandbox::Sandbox;
pub use template::{Snapshot, Template};
pub use templates::{Import, Templates};

#[cfg(feature = "embedded")]
pub use sandbox_host::{Check, DoctorReport, Verdict, doctor};

pub use sandbox_core::{
    build::{
        BuildDetails, BuildEvent, BuildFilter, BuildPage, BuildPageRequest, BuildPhase,
        BuildRecord, BuildStatus, BuildStep, CONTEXT_MAX_BYTES, Healthcheck, LogCursor, LogEntry,
        LogStream, Recipe,
    },
    disk::{DiskBackend, DiskChoice},
    error::Error,
    file::{FileKind, FileStat},
    guest::GuestError,
    id::{BuildId, OperationId, SandboxId, TeamId, TemplateId},
    name::TemplateName,
    operation::{OperationKind, OperationRecord, OperationStatus},
    process::{ExecOutput, Exit, ExitStatus, ProcessInfo, PtySize},
    reconcile::{PlannedAction, Preview},
    sandbox::{OnTimeout, Page, PageRequest, SandboxFilter, SandboxRecord, SandboxState},
    size::{DEFAULT_DISK_SIZE_MB, DEFAULT_MEMORY_MB, DEFAULT_VCPUS, MachineSize},
    template::{
        ImportSource, TemplateKind, TemplatePage, TemplatePageRequest, TemplateRecord, TemplateUse,
    },
};

/// What calls of this crate give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
