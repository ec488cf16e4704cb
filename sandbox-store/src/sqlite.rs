//! `Store` on SQLite: the database of one machine.
//!
//! Readers and one writer, over a write-ahead log:
//!
//! ```text
//!   reads ──► one of a few connections, query_only          never wait for the writer
//!   writes ─► own task ─► the one writer, BEGIN IMMEDIATE   first come, first served
//!                            │ disk full?
//!                            └─► ballast gives way, the write is tried again (never for inserts)
//! ```
//!
//! A write runs on a task of its own, so it happens whole or not at all, also when whoever asked
//! for it goes away in the middle. Transactions are immediate: a deferred one that finds out at its
//! first write that someone else was faster fails at once, whatever the busy timeout.

mod ballast;
mod connection;
mod error;
mod open;
mod schema;
mod write;

use std::{path::Path, sync::Arc};

use diesel::sqlite::Sqlite;
use tokio::sync::Mutex;

use crate::{
    change::{Change, Failure},
    sqlite::{
        ballast::Ballast,
        connection::{Conn, Location, Readers, Role},
    },
};

pub use open::OpenError;

/// Rows of the SQLite schema.
mod rows {
    crate::stamp::stamp_rows!(schema: crate::sqlite::schema);
}

/// Rows of template builds.
mod build_rows {
    crate::stamp::stamp_build_rows!(schema: crate::sqlite::schema);
}

/// The queries on SQLite.
mod queries {
    use super::{Conn, Sqlite, SqliteStore};

    crate::stamp::stamp_store! {
        store: SqliteStore,
        connection: Conn,
        backend: Sqlite,
        schema: crate::sqlite::schema,
        rows: crate::sqlite::rows,
    }
}

/// The queries about template builds on SQLite.
mod build_queries {
    use super::{Conn, Sqlite, SqliteStore};

    crate::stamp::stamp_builds! {
        store: SqliteStore,
        connection: Conn,
        backend: Sqlite,
        schema: crate::sqlite::schema,
        rows: crate::sqlite::build_rows,
        queries: crate::sqlite::queries,
    }
}

/// Records in an SQLite database.
///
/// An acknowledged write is on the disk: it survives the loss of power. On a full disk new
/// sandboxes are refused with [`StoreError::Full`], while those that are there can still be changed
/// and removed: a file of 8 MiB beside the
/// database, `<database>-ballast`, holds space back for that. It is made, and made whole again after
/// it was needed, when twice as much is free; until then there are no new sandboxes either.
///
/// [`StoreError::Full`]: sandbox_core::store::StoreError::Full
#[derive(Debug, Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    location: Location,
    readers: Readers,
    /// Absent until first used, and after a failure that may have left it within a transaction.
    writer: Mutex<Option<Writer>>,
    ballast: Ballast,
}

/// The connection that writes.
struct Writer(Conn);

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl SqliteStore {
    /// Opens the database in this file, and makes it (readable to its owner alone) where there is
    /// none. Its schema is brought to what this program needs. Call it within a tokio runtime.
    ///
    /// Several processes may have one database open; their writes wait for one another.
    ///
    /// # Errors
    /// Says what stands in the way: a read-only folder, a file of another kind or of a newer
    /// program, a full disk.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let location = Location::of(path.as_ref())?;
        let ballast = Ballast::beside(location.path());
        let prepared = {
            let (location, ballast) = (location.clone(), ballast.clone());
            tokio::task::spawn_blocking(move || open::prepare(&location, &ballast)).await
        };
        let writer = prepared.map_err(|_| OpenError::Interrupted)??;
        Ok(Self {
            shared: Arc::new(Shared {
                readers: Readers::new(location.clone()),
                location,
                writer: Mutex::new(Some(Writer(Conn::new(writer)))),
                ballast,
            }),
        })
    }
}
