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
mod http;
mod limits;
mod metrics;
mod openapi;
mod routes;
mod rpc;
mod serve;
mod state;
mod wire;

pub use admin_key::AdminKeyError;
pub use app::{openapi, router};
pub use config::{Args, Config, ConfigError, LogFormat};
pub use daemon::{Daemon, DaemonError};
pub use database::{Database, DatabaseError};
pub use http::auth::KeyHash;
pub use limits::Limits;
pub use metrics::Metrics;
pub use serve::serve;
pub use state::AppState;
