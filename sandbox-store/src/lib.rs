//! The platform's records on a database.
//!
//! Here live the implementations of [`sandbox_core::store::Store`], their schemas and migrations.
//! Business rules never do: what to write is decided by the caller, a store only compares versions
//! and keeps what it is given.
//!
//! ```text
//!   Store (sandbox-core)
//!     │  stamped once per backend from one body: stamp/
//!     ├── SqliteStore      sqlite/  schema, connections, ballast, errors
//!     └── (next backend)            its own schema module, pool and errors
//! ```
//!
//! Nothing in `stamp/`, `change` and `columns` knows SQLite: a further backend adds a schema module
//! with its native types, the two functions that the body calls (`commit`, `reader`), and one line
//! that stamps.

#[cfg(feature = "sqlite")]
mod change;
#[cfg(feature = "sqlite")]
mod columns;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod stamp;

#[cfg(feature = "sqlite")]
pub use sqlite::{OpenError, SqliteStore};
