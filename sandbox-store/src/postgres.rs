//! `Store` on PostgreSQL: the database that several control planes share.
//!
//! ```text
//!   reads ───────────────► one of a few connections ──► lost on the way? once more on a new one
//!   writes ─► own task ──► one of a few connections, one transaction
//!                             BEGIN ─ statements ─ COMMIT
//!                             └──── lost here ───┘   └── lost here: nobody knows whether it happened
//!                                   once more            StoreError::Unavailable
//! ```
//!
//! A write runs on a task of its own, so it happens whole or not at all, also when whoever asked
//! for it goes away in the middle. Connections in doubt are let go of, never used again.

mod address;
mod connection;
mod error;
mod open;
mod schema;
mod tap;
mod work;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use diesel::pg::Pg;

use connection::{Conn, Connections};

pub use connection::ConnectError;
pub use open::PostgresOpenError;

/// Rows of the PostgreSQL schema.
mod rows {
    crate::stamp::stamp_rows!(schema: crate::postgres::schema);
}

/// Rows of template builds.
mod build_rows {
    crate::stamp::stamp_build_rows!(schema: crate::postgres::schema);
}

/// The queries on PostgreSQL.
mod queries {
    use super::{Conn, Pg, PostgresStore};

    crate::stamp::stamp_store! {
        store: PostgresStore,
        connection: Conn,
        backend: Pg,
        schema: crate::postgres::schema,
        rows: crate::postgres::rows,
    }
}

/// The queries about template builds on PostgreSQL.
mod build_queries {
    use super::{Conn, Pg, PostgresStore};

    crate::stamp::stamp_builds! {
        store: PostgresStore,
        connection: Conn,
        backend: Pg,
        schema: crate::postgres::schema,
        rows: crate::postgres::build_rows,
        queries: crate::postgres::queries,
    }
}

/// Records in a PostgreSQL database, which any number of programs may share.
///
/// What a caller may assume after an error:
/// - [`StoreError::Unavailable`] from a read: the server could not be asked. One lost connection is
///   no reason: it is replaced, and the read tried once more.
/// - [`StoreError::Unavailable`] from a write: *it may or may not have happened*. A connection that
///   is lost before the commit is sent is replaced and the write tried once more; after that the
///   outcome can't be known from here, and nothing is sent twice. Read the record again to find
///   out: each write is compare-and-set, so repeating it by hand can't make it happen twice.
/// - Any other error: nothing has changed.
///
/// Of what is kept, nothing is in an error. A program that takes in the `log` crate's records should
/// leave those of `tokio_postgres` above `debug`, where statements have their values with them.
///
/// No call waits for ever: see [`PostgresSettings`]. An acknowledged write is as durable as the
/// server's `synchronous_commit` says (by default, on its disk).
///
/// [`StoreError::Unavailable`]: sandbox_core::store::StoreError::Unavailable
#[derive(Debug, Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connections: Connections,
    settings: PostgresSettings,
}

/// How a [`PostgresStore`] uses its server.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Connections at the same time; further calls wait for their turn. Default: 8.
    pub connections_max: NonZeroUsize,
    /// How long connecting to each of the URL's servers may take, whatever the URL says.
    /// Default: 5 s.
    pub connect_timeout: Duration,
    /// How long one statement may take, or wait for a lock, and how long a call waits for its turn.
    /// An attempt with all its statements is given up after half as long again. Default: 10 s.
    pub statement_timeout: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            connections_max: const { NonZeroUsize::new(8).unwrap() },
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
        }
    }
}

impl PostgresStore {
    /// Opens the database that this URL names, with default settings.
    ///
    /// # Errors
    /// As [`PostgresStore::open_with`].
    pub async fn open(url: &str) -> Result<Self, PostgresOpenError> {
        Self::open_with(url, PostgresSettings::default()).await
    }

    /// Opens the database that this URL names (`postgres://user:password@host:port/database`, or
    /// `postgres:///database?host=/run/postgresql&user=…` for a unix socket), and brings its schema
    /// to what this program needs. Any number of programs may do so at once: one changes the schema,
    /// the others wait. Of several servers in the URL, the first that takes writes is used. Call it
    /// within a tokio runtime.
    ///
    /// Connections are not encrypted; a URL that asks for it (`sslmode=require` and stricter) is
    /// refused before anything is sent.
    ///
    /// # Errors
    /// Says what stands in the way: a URL that makes no sense, a server that can't be reached or
    /// refuses, another program's database or a newer program's, a full disk.
    pub async fn open_with(
        url: &str,
        settings: PostgresSettings,
    ) -> Result<Self, PostgresOpenError> {
        let address = address::Address::of(url)?;
        let link = connection::connect(&address, &settings).await?;
        open::migrate(link).await?;
        Ok(Self {
            shared: Arc::new(Shared {
                connections: Connections::new(address, &settings),
                settings,
            }),
        })
    }
}
