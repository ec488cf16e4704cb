//! The log, on stderr.

use std::io::IsTerminal;

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What was to say what is logged says nothing.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter:?} is no log filter")]
pub struct BadFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Begins to log to stderr what the filter lets through, such as `info` or `sandbox_api=debug,warn`.
///
/// # Errors
/// When the filter is none.
///
/// # Panics
/// When it was called before.
pub fn start_log(filter: &str, format: LogFormat) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|source| BadFilter {
        filter: filter.to_owned(),
        source,
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    // A host elsewhere logs under the same IDs.
    #[cfg(feature = "rpc-client")]
    let registry = registry.with(crate::rpc::CauseLayer);
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => registry.with(log).init(),
        LogFormat::Json => registry.with(log.json()).init(),
    }
    Ok(())
}
