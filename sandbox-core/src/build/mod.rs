//! Template builds: what is built, and what is known of it. Pure data and rules; the engine runs
//! them.

#[cfg(feature = "engine")]
pub mod context;
mod health;
mod record;
pub mod recipe;

pub use health::{Checks, HEALTHCHECK_MAX, Health, Healthcheck};
pub use record::{
    BuildDetails, BuildFailure, BuildFilter, BuildLog, BuildPage, BuildPageRequest, BuildPhase,
    BuildRecord, BuildStatus, BuildStep, LogCursor, LogEntry, LogStream, StepLog, SubmitBuild, CONTEXT_MAX_BYTES,
};
pub use recipe::{ContentDigest, LayerKey, Recipe, Scope, Step};
