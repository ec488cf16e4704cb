//! What SQLite's refusals mean.
//!
//! diesel passes on a kind for violated constraints; of every other result code it passes on only
//! the text that SQLite keeps for it. That text is compared whole with what the same library says
//! for each code, so a message that merely mentions a full disk is never taken for one.

use std::ffi::{CStr, c_int};

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use libsqlite3_sys as ffi;
use sandbox_core::store::StoreError;

use crate::change::Failure;

/// Result codes that callers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A unique index or primary key has this value.
    Duplicate,
    /// What the record belongs to is gone.
    Gone,
    /// No space is left.
    Full,
    /// Reading or writing failed. On some file systems and at `fsync`, so does a full disk.
    Io,
    /// Another process holds the database for longer than the busy timeout.
    Busy,
    /// The file can't be opened, for lack of descriptors for example.
    CantOpen,
    /// The file or its file system is read-only.
    ReadOnly,
    /// The file is no SQLite database.
    NotADatabase,
}

const CODES: [(c_int, Fault); 7] = [
    (ffi::SQLITE_FULL, Fault::Full),
    (ffi::SQLITE_IOERR, Fault::Io),
    (ffi::SQLITE_BUSY, Fault::Busy),
    (ffi::SQLITE_LOCKED, Fault::Busy),
    (ffi::SQLITE_CANTOPEN, Fault::CantOpen),
    (ffi::SQLITE_READONLY, Fault::ReadOnly),
    (ffi::SQLITE_NOTADB, Fault::NotADatabase),
];

/// SQLite's own text for a result code.
fn text_of(code: c_int) -> &'static CStr {
    // SAFETY: takes any code, and returns a pointer to a constant, NUL-terminated string.
    unsafe { CStr::from_ptr(ffi::sqlite3_errstr(code)) }
}

/// Which of the known faults an error is.
pub(super) fn fault(error: &DieselError) -> Option<Fault> {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Some(Fault::Duplicate),
        DieselError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => Some(Fault::Gone),
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, information) => {
            let message = information.message().as_bytes();
            CODES
                .into_iter()
                .find(|(code, _)| text_of(*code).to_bytes() == message)
                .map(|(_, fault)| fault)
        }
        DieselError::RollbackErrorOnCommit { commit_error, .. } => fault(commit_error),
        _ => None,
    }
}

/// The answer to the store's caller. `disk_full` looks at the disk, for faults that may stem from it.
pub(super) fn store_error(failure: Failure, disk_full: impl FnOnce() -> bool) -> StoreError {
    let error = match failure {
        Failure::Answer(answer) => return answer,
        Failure::Database(error) => error,
    };
    let message = error.to_string();
    match fault(&error) {
        Some(Fault::Duplicate) => StoreError::Duplicate,
        Some(Fault::Gone) => StoreError::Conflict,
        Some(Fault::Full) => StoreError::Full(message),
        Some(Fault::Io) if disk_full() => StoreError::Full(message),
        Some(Fault::Busy | Fault::CantOpen | Fault::ReadOnly) => StoreError::Unavailable(message),
        Some(Fault::Io | Fault::NotADatabase) | None => StoreError::Internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(message: &str) -> DieselError {
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()))
    }

    #[test]
    fn trap_34_a_message_that_mentions_a_full_disk_is_not_one() {
        assert_eq!(
            fault(&unknown("database or disk is full")),
            Some(Fault::Full)
        );
        assert_eq!(
            fault(&unknown("no such table: database or disk is full")),
            None
        );
        assert_eq!(fault(&unknown("database is locked")), Some(Fault::Busy));
        assert_eq!(fault(&unknown("near \"locked\": syntax error")), None);
    }

    #[test]
    fn an_io_error_is_a_full_disk_only_when_the_disk_is_full() {
        let io = || Failure::Database(unknown("disk I/O error"));
        assert!(matches!(store_error(io(), || true), StoreError::Full(_)));
        assert!(matches!(
            store_error(io(), || false),
            StoreError::Internal(_)
        ));
    }

    #[test]
    fn a_failed_commit_counts_not_the_rollback_behind_it() {
        let error = DieselError::RollbackErrorOnCommit {
            rollback_error: Box::new(unknown("disk I/O error")),
            commit_error: Box::new(unknown("database or disk is full")),
        };
        assert_eq!(fault(&error), Some(Fault::Full));
    }
}
