//! Template builds: what is built, and what is known of it. Pure data and rules; the engine runs
//! them.

#[cfg(feature = "engine")]
pub mod context;
mod follow;
mod guest_path;
mod health;
pub mod recipe;
mod record;

pub use follow::{BuildEvent, Follower};
pub use health::{Checks, HEALTHCHECK_MAX, Health, Healthcheck};
pub use recipe::{ContentDigest, LayerKey, Recipe, Scope, Step};
pub use record::{
    BuildDetails, BuildFailure, BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildPhase,
    BuildRecord, BuildStatus, BuildStep, CONTEXT_MAX_BYTES, LogCursor, LogEntry, LogStream,
    StepLog, SubmitBuild,
};
