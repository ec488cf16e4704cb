//! Opening a database: finding out what the file is, and bringing its schema up to date.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use diesel::{
    QueryableByName, RunQueryDsl, SqliteConnection,
    result::Error as DieselError,
    sql_query,
    sql_types::{BigInt, Text},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use nix::unistd::{AccessFlags, access};

use crate::change::Failure;

use super::{
    ballast::Ballast,
    connection::{Location, Role, connect},
    error::{Fault, fault},
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// "SBOX", as the first migration writes it into the file's header.
const APPLICATION_ID: i64 = 0x5342_4f58;

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// SQLite takes paths in UTF-8 only.
    #[error("the database's path {} is not UTF-8", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// The file can't be made or opened.
    #[error("the database {} can't be opened", path.display())]
    File {
        /// The file at fault.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file or its folder can't be written to.
    #[error("{} can't be written to: a database needs write access to its file and folder", path.display())]
    ReadOnly {
        /// The file or folder.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a database; move it away, or name another file", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file is an SQLite database with tables of someone else.
    #[error("{} is another program's database; name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer program has changed the schema.
    #[error(
        "the database {} was made by a newer version of this program (schema {version}): \
         update this program",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The newest schema version in it.
        version: String,
    },
    /// A program from before the first release has made it, whose records are not taken over.
    #[error(
        "the database {} was made by an early version of this program (schema {version}), whose \
         records can't be taken over: move it away, or name another file",
        path.display()
    )]
    Outdated {
        /// The file.
        path: PathBuf,
        /// The schema version in it.
        version: String,
    },
    /// No space is left on the disk.
    #[error("the disk that holds {} is full: free some space on it", path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Another process keeps the database locked.
    #[error("the database {} is locked by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The schema can't be brought up to date.
    #[error("the schema of {} can't be brought up to date", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What the migration says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// SQLite failed in another way.
    #[error("the database {} failed", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: DieselError,
    },
    /// The runtime ended before the database was open.
    #[error("the program is ending")]
    Interrupted,
}

/// Makes the database ready, and returns the connection that shall write. Blocks.
pub(super) fn prepare(
    location: &Location,
    ballast: &Ballast,
) -> Result<SqliteConnection, OpenError> {
    let path = location.path();
    if path.is_dir() {
        return Err(refusal(path, io::ErrorKind::IsADirectory.into()));
    }
    let ballast_file = ballast.file().map_err(|source| refusal(path, source))?;
    // One opens at a time, in this process and others; freed with the file.
    ballast_file
        .lock()
        .map_err(|source| refusal(path, source))?;
    touch(path)?;
    let conn = loop {
        match set_up(location) {
            // Even reading takes some space when the last process ended in order: its log is gone.
            Err(OpenError::Full { .. }) if ballast.release_slice().unwrap_or(false) => {}
            Err(error) => {
                if matches!(
                    error,
                    OpenError::NotADatabase { .. } | OpenError::Foreign { .. }
                ) {
                    ballast.remove_empty();
                }
                return Err(error);
            }
            Ok(conn) => break conn,
        }
    };
    if let Err(error) = ballast.restore() {
        tracing::warn!(%error, "no space can be held back for a full disk");
    }
    Ok(conn)
}

/// Makes the file where there is none, and sees whether it and its folder can be written to.
///
/// A file that is there is not opened: SQLite's locks belong to the process, and closing any other
/// descriptor of the file would drop those of a store that has it open already.
fn touch(path: &Path) -> Result<(), OpenError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        // The entry in the folder must last as long as what will be written.
        Ok(_) => File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| refusal(folder, source))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            writable(path, AccessFlags::R_OK | AccessFlags::W_OK)?;
        }
        Err(error) => return Err(refusal(path, error)),
    }
    // SQLite puts its log beside the file.
    writable(folder, AccessFlags::W_OK | AccessFlags::X_OK)
}

fn writable(path: &Path, flags: AccessFlags) -> Result<(), OpenError> {
    access(path, flags).map_err(|errno| refusal(path, errno.into()))
}

fn refusal(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            OpenError::ReadOnly { path }
        }
        io::ErrorKind::StorageFull => OpenError::Full { path },
        _ => OpenError::File { path, source },
    }
}

fn database(path: &Path, source: DieselError) -> OpenError {
    let path = path.to_owned();
    match fault(&source) {
        Some(Fault::NotADatabase) => OpenError::NotADatabase { path },
        Some(Fault::Full) => OpenError::Full { path },
        Some(Fault::Io) if Ballast::beside(&path).disk_full() => OpenError::Full { path },
        Some(Fault::Busy) => OpenError::Busy { path },
        Some(Fault::ReadOnly) => OpenError::ReadOnly { path },
        Some(Fault::Duplicate | Fault::Gone | Fault::Io | Fault::CantOpen) | None => {
            OpenError::Database { path, source }
        }
    }
}

#[derive(QueryableByName)]
struct Header {
    #[diesel(sql_type = BigInt)]
    application_id: i64,
    #[diesel(sql_type = BigInt)]
    tables: i64,
}

#[derive(QueryableByName)]
struct JournalMode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

fn set_up(location: &Location) -> Result<SqliteConnection, OpenError> {
    let path = location.path();
    let mut conn = connect(location, Role::Writer).map_err(|failure| match failure {
        Failure::Database(error) => database(path, error),
        Failure::Answer(answer) => refusal(path, io::Error::other(answer)),
    })?;
    let header: Header = sql_query(
        "SELECT (SELECT application_id FROM pragma_application_id) AS application_id, \
         (SELECT count(*) FROM sqlite_schema) AS tables",
    )
    .get_result(&mut conn)
    .map_err(|error| database(path, error))?;
    if header.application_id != APPLICATION_ID && header.tables > 0 {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    let mode: JournalMode = sql_query("PRAGMA journal_mode = WAL")
        .get_result(&mut conn)
        .map_err(|error| database(path, error))?;
    tracing::debug!(journal_mode = mode.journal_mode, "database opened");
    migrate(path, &mut conn)?;
    Ok(conn)
}

fn migrate(path: &Path, conn: &mut SqliteConnection) -> Result<(), OpenError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        let path = path.to_owned();
        match source.downcast::<DieselError>() {
            Ok(error) => database(&path, *error),
            // The error of a migration's statement is sealed, so the disk is asked instead.
            Err(_) if Ballast::beside(&path).disk_full() => OpenError::Full { path },
            Err(source) => OpenError::Migrate { path, source },
        }
    };
    // A database that is up to date is not written to: the disk may be full.
    let known =
        diesel::migration::MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS)
            .map_err(failed)?;
    let applied = conn.applied_migrations().map_err(failed)?;
    let versions = || known.iter().map(|migration| migration.name().version());
    let unknown = applied
        .iter()
        .filter(|version| versions().all(|known| known != **version))
        .max();
    if let Some(unknown) = unknown {
        let (path, version) = (path.to_owned(), unknown.to_string());
        return Err(if versions().all(|known| *unknown < known) {
            OpenError::Outdated { path, version }
        } else {
            OpenError::Newer { path, version }
        });
    }
    if applied.len() < known.len() {
        conn.immediate_transaction(|conn| conn.run_pending_migrations(MIGRATIONS).map(drop))
            .map_err(failed)?;
    }
    Ok(())
}
