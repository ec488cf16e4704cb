//! Connections and their settings.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use diesel::{Connection, ConnectionError, SqliteConnection, connection::SimpleConnection};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use sandbox_core::store::StoreError;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::change::Failure;

use super::OpenError;

pub(super) type Conn = SyncConnectionWrapper<SqliteConnection>;

/// Connections that read at the same time; further reads wait for their turn.
const READERS_MAX: usize = 4;

/// Where a database is: an absolute path in UTF-8, so that SQLite reads it as nothing else (neither
/// as `:memory:` nor as a URI).
#[derive(Debug, Clone)]
pub(super) struct Location(String);

impl Location {
    pub(super) fn of(path: &Path) -> Result<Self, OpenError> {
        let absolute = std::path::absolute(path).map_err(|source| OpenError::File {
            path: path.to_owned(),
            source,
        })?;
        match absolute.into_os_string().into_string() {
            Ok(path) => Ok(Self(path)),
            Err(path) => Err(OpenError::NotUtf8 {
                path: PathBuf::from(path),
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Reader,
    Writer,
}

impl Role {
    /// The settings that SQLite keeps per connection.
    ///
    /// `synchronous = FULL` syncs the log at each commit, so that an acknowledged change outlives a
    /// power cut: with `NORMAL` the last ones could be gone, and with them the record of a machine
    /// that runs. Measured on a virtual disk, a write takes 0.87 ms instead of 0.71 ms for it (one
    /// `fdatasync`: 0.2 ms, 0.9 ms at the 99th percentile); creating a sandbox, with its two or
    /// three writes, has 60 ms.
    ///
    /// `journal_size_limit` gives back what a build context made the log grow by.
    const fn settings(self) -> &'static str {
        match self {
            Self::Writer => {
                "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; \
                 PRAGMA journal_size_limit = 16777216;"
            }
            Self::Reader => {
                "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; PRAGMA temp_store = MEMORY;"
            }
        }
    }
}

/// Opens a connection. Blocks.
pub(super) fn connect(location: &Location, role: Role) -> Result<SqliteConnection, Failure> {
    let mut conn = SqliteConnection::establish(&location.0).map_err(|error| match error {
        ConnectionError::CouldntSetupConfiguration(error) => Failure::Database(error),
        // The file can't be opened just now: no descriptors are left, or no memory.
        other => StoreError::Unavailable(other.to_string()).into(),
    })?;
    conn.batch_execute(role.settings())?;
    Ok(conn)
}

/// Opens a connection, off the runtime's threads.
pub(super) async fn connect_async(location: &Location, role: Role) -> Result<Conn, Failure> {
    let location = location.clone();
    tokio::task::spawn_blocking(move || connect(&location, role))
        .await
        .map_err(|_| ending())?
        .map(Conn::new)
}

fn ending() -> StoreError {
    StoreError::Unavailable("the program is ending".to_owned())
}

/// The connections that read.
pub(super) struct Readers {
    location: Location,
    turns: Semaphore,
    /// Taken at the front, given back at the end: a read that was cut off may still be at work on
    /// its connection for a moment, and so has the longest time to end.
    idle: Mutex<VecDeque<Conn>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn new(location: Location) -> Self {
        Self {
            location,
            turns: Semaphore::new(READERS_MAX),
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn lease(&self) -> Result<Lease<'_>, Failure> {
        let turn = self.turns.acquire().await.map_err(|_| ending())?;
        let idle = self.idle().pop_front();
        let conn = match idle {
            Some(conn) => conn,
            None => connect_async(&self.location, Role::Reader).await?,
        };
        Ok(Lease {
            conn: Some(conn),
            readers: self,
            _turn: turn,
        })
    }
}

/// A reading connection, given back when dropped.
pub(super) struct Lease<'a> {
    /// Taken by the drop alone.
    conn: Option<Conn>,
    readers: &'a Readers,
    _turn: SemaphorePermit<'a>,
}

impl Deref for Lease<'_> {
    type Target = Conn;

    #[expect(clippy::expect_used, reason = "only the drop takes the connection out")]
    fn deref(&self) -> &Conn {
        self.conn.as_ref().expect("there until the drop")
    }
}

impl DerefMut for Lease<'_> {
    #[expect(clippy::expect_used, reason = "only the drop takes the connection out")]
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("there until the drop")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.readers.idle().extend(self.conn.take());
    }
}
