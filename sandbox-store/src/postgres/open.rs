//! Opening a database: finding out what is in it, and bringing its schema up to date.

use std::time::Duration;

use diesel::{
    Connection, QueryableByName, RunQueryDsl,
    migration::{MigrationSource, MigrationVersion},
    pg::Pg,
    result::Error as DieselError,
    sql_query,
    sql_types::{BigInt, Bool},
};
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::timeout;

use super::{
    connection::{Conn, ConnectError, Link},
    error::{Fault, fault_of_state},
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// How long bringing the schema up to date may take, with the wait for others that are at it.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(120);

/// "sandbox" in bytes: the advisory lock that whoever changes the schema holds meanwhile.
const MIGRATION_LOCK: i64 = 0x73_616e_6462_6f78;

/// How many tables every version of this program had.
const OLDEST_TABLES: i64 = 3;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Why a PostgreSQL database can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresOpenError {
    /// The URL makes no sense.
    #[error("the database URL can't be read")]
    Url(#[source] tokio_postgres::Error),
    /// The URL's servers make no sense.
    #[error("the database URL {0}")]
    Host(String),
    /// The URL asks for an encrypted connection.
    #[error(
        "the database URL asks for TLS, which is not supported: nothing was sent. Use a unix \
         socket or a trusted network with `sslmode=disable`"
    )]
    TlsUnsupported,
    /// There is no connection to the server.
    #[error("no connection to the database")]
    Connect(#[from] ConnectError),
    /// There are tables of someone else under this program's names, or its record of changes to
    /// the schema is of another program.
    #[error("the database belongs to another program; name another one")]
    Foreign,
    /// A newer program has changed the schema.
    #[error(
        "the database was made by a newer version of this program (schema {version}): update this \
         program"
    )]
    Newer {
        /// The newest schema version in it.
        version: String,
    },
    /// A program from before the first release has made it, whose records are not taken over.
    #[error(
        "the database was made by an early version of this program (schema {version}), whose \
         records can't be taken over: name another one"
    )]
    Outdated {
        /// The schema version in it.
        version: String,
    },
    /// No space is left on the server.
    #[error("the disk of the database server is full: free some space on it")]
    Full,
    /// The schema can't be brought up to date, for lack of rights for example.
    #[error("the schema of the database can't be brought up to date")]
    Migrate(#[source] AnyError),
    /// Bringing the schema up to date took too long, or others were at it for too long.
    #[error("the schema of the database was not up to date within {timeout_sec} s")]
    MigrateTimedOut {
        /// How long it had.
        timeout_sec: u64,
    },
    /// The program is ending.
    #[error("interrupted")]
    Interrupted,
}

enum Failure {
    Open(PostgresOpenError),
    Other(AnyError),
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        Self::Other(error.into())
    }
}

impl From<AnyError> for Failure {
    fn from(error: AnyError) -> Self {
        Self::Other(error)
    }
}

/// Brings the schema up to date, over a connection of its own. diesel's migrations block, so they
/// have a thread.
pub(super) async fn migrate(link: Link) -> Result<(), PostgresOpenError> {
    let cutter = link.cutter();
    let work = tokio::task::spawn_blocking(move || {
        let Link { conn, last, driver } = link;
        let mut conn = AsyncConnectionWrapper::from(conn);
        let result = conn.transaction(migrate_within);
        drop(conn);
        drop(driver);
        result.map_err(|failure| match failure {
            Failure::Open(error) => error,
            Failure::Other(source) => match last.take().map(|state| fault_of_state(&state)) {
                Some(Fault::Full) => PostgresOpenError::Full,
                _ => PostgresOpenError::Migrate(source),
            },
        })
    });
    match timeout(MIGRATE_TIMEOUT, work).await {
        Ok(done) => done.unwrap_or(Err(PostgresOpenError::Interrupted)),
        Err(_) => {
            cutter.abort();
            Err(PostgresOpenError::MigrateTimedOut {
                timeout_sec: MIGRATE_TIMEOUT.as_secs(),
            })
        }
    }
}

#[derive(QueryableByName)]
struct Present {
    #[diesel(sql_type = Bool)]
    migrations: bool,
    /// Tables under names that every version of this program had.
    #[diesel(sql_type = BigInt)]
    oldest: i64,
    /// Tables under names of this version.
    #[diesel(sql_type = BigInt)]
    tables: i64,
}

/// The whole of it, in a transaction.
fn migrate_within(conn: &mut AsyncConnectionWrapper<Conn>) -> Result<(), Failure> {
    let limit_ms = MIGRATE_TIMEOUT.as_millis();
    sql_query(format!("SET LOCAL statement_timeout = {limit_ms}")).execute(conn)?;
    sql_query(format!("SET LOCAL lock_timeout = {limit_ms}")).execute(conn)?;
    // Held until the transaction ends, however it does. What others did before is seen from here
    // on, since each statement sees what was committed before it.
    sql_query("SELECT pg_advisory_xact_lock($1)")
        .bind::<BigInt, _>(MIGRATION_LOCK)
        .execute(conn)?;
    let present: Present = sql_query(
        "SELECT \
         EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema() \
          AND tablename = '__diesel_schema_migrations') AS migrations, \
         (SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() \
          AND tablename IN ('sandboxes', 'operations', 'audit_logs')) AS oldest, \
         (SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() \
          AND tablename IN ('sandboxes', 'templates', 'operations', 'audit_logs')) AS tables",
    )
    .get_result(conn)?;
    if present.tables > 0 && !present.migrations {
        return Err(Failure::Open(PostgresOpenError::Foreign));
    }
    let known = MigrationSource::<Pg>::migrations(&MIGRATIONS)?;
    let applied = conn.applied_migrations()?;
    let versions = || known.iter().map(|migration| migration.name().version());
    let is_known = |version: &MigrationVersion<'_>| versions().any(|known| known == *version);
    if let Some(unknown) = applied.iter().filter(|version| !is_known(version)).max() {
        let version = unknown.to_string();
        let ours = applied.iter().any(is_known) || present.oldest == OLDEST_TABLES;
        return Err(Failure::Open(if !ours {
            PostgresOpenError::Foreign
        } else if versions().all(|known| *unknown < known) {
            PostgresOpenError::Outdated { version }
        } else {
            PostgresOpenError::Newer { version }
        }));
    }
    if applied.len() < known.len() {
        conn.run_pending_migrations(MIGRATIONS)?;
    }
    Ok(())
}
