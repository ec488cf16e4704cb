//! Where the records are: a file in the data folder, or a PostgreSQL server.

use std::{path::PathBuf, sync::Arc};

use sandbox_core::store::Store;
use sandbox_store::{OpenError, PostgresOpenError, PostgresStore, SqliteStore};

/// Which database.
#[derive(Clone)]
pub enum Database {
    /// An SQLite file, this daemon's alone.
    Sqlite(PathBuf),
    /// A PostgreSQL server by its URL, which others may use too.
    Postgres(String),
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            // A URL may hold a password.
            Self::Postgres(_) => f.write_str("Postgres(..)"),
        }
    }
}

/// Why a database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The SQLite file.
    #[error(transparent)]
    Sqlite(#[from] OpenError),
    /// The PostgreSQL server.
    #[error(transparent)]
    Postgres(#[from] PostgresOpenError),
}

impl Database {
    /// Whether nobody else works on these records.
    pub(crate) const fn is_ours_alone(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>, DatabaseError> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(SqliteStore::open(path).await?),
            Self::Postgres(url) => Arc::new(PostgresStore::open(url).await?),
        })
    }
}
