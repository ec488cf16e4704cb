//! The platform's records on a database, and the queue that wakes its workers.
//!
//! Here live the implementations of [`sandbox_core::store::Store`], their schemas and migrations,
//! and those of [`sandbox_core::queue::Queue`] (`queue/`: within a process, or on Redis). Business
//! rules never do: what to write is decided by the caller, a store only compares versions and keeps
//! what it is given.
//!
//! ```text
//!   Store (sandbox-core)
//!     │  stamped once per backend from one body: stamp/
//!     ├── SqliteStore      sqlite/    schema, connections, ballast, errors
//!     └── PostgresStore    postgres/  schema, connections, errors
//! ```
//!
//! Nothing in `stamp/`, `change` and `columns` knows a backend, but for its native types in
//! `columns`: each adds a schema module, the two functions that the body calls (`commit`, `read`),
//! and one line that stamps.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod change;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod columns;
#[cfg(feature = "postgres")]
mod postgres;
mod queue;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod stamp;

#[cfg(feature = "postgres")]
pub use postgres::{ConnectError, PostgresOpenError, PostgresSettings, PostgresStore};
pub use queue::EmbeddedQueue;
#[cfg(feature = "redis")]
pub use queue::{RedisOpenError, RedisQueue, RedisSettings, RedisUrlError};
#[cfg(feature = "sqlite")]
pub use sqlite::{OpenError, SqliteStore};
