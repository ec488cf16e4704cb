//! The platform as a daemon: REST over the engine.
//!
//! ```text
//!  sandboxd: config ──► daemon (assemble, serve, stop)
//!                          │
//!             serve ──► app (router) ──► http/ (key, IDs, bounds) ──► routes/ ──► Api (engine)
//!                                                                       │
//!                                                                     wire/ (JSON)
//! ```
//!
//! *Never here:* a change of state other than through [`sandbox_core::api::Api`], or a decision
//! about one. Statuses and error codes are chosen in `error` alone.

mod admin_key;
mod app;
mod config;
mod daemon;
mod database;
mod error;
mod host;
mod http;
mod keyring;
mod limits;
mod metrics;
mod openapi;
mod queue;
mod routes;
mod rpc;
mod serve;
mod state;
mod team_keys;
mod wire;

pub use app::{openapi, router};
pub use config::{Args, Config, ConfigError};
pub use daemon::{Daemon, DaemonError};
pub use database::{Database, DatabaseError};
pub use host::{HostAddress, HostChoiceError, OpenHostError};
pub use keyring::Keyring;
pub use limits::Limits;
pub use metrics::Metrics;
pub use queue::QueueChoice;
pub use serve::serve;
pub use state::AppState;
pub use team_keys::{Problem as TeamKeyProblem, TeamKeysError};
