//! What the server's refusals mean, by SQLSTATE.

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use sandbox_core::store::StoreError;
use tokio_postgres::error::SqlState;

use crate::change::Failure;

/// Failures that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A unique index or primary key has this value.
    Duplicate,
    /// What the record belongs to is gone.
    Gone,
    /// No space is left on the server.
    Full,
    /// The connection is gone or of no more use: a shutdown, a lost network, a server that became
    /// a standby.
    Lost,
    /// The server rolled back so that others could go on; the same again may well succeed.
    Again,
    /// The server can't do it now: timeouts, too many connections, no memory.
    Busy,
    /// Anything else.
    Other,
}

/// Which of the known faults an SQLSTATE is.
pub(super) fn fault_of_state(state: &SqlState) -> Fault {
    match *state {
        SqlState::UNIQUE_VIOLATION => Fault::Duplicate,
        SqlState::FOREIGN_KEY_VIOLATION => Fault::Gone,
        SqlState::DISK_FULL => Fault::Full,
        SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW
        | SqlState::IDLE_SESSION_TIMEOUT
        | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        | SqlState::READ_ONLY_SQL_TRANSACTION => Fault::Lost,
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Fault::Again,
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Fault::Busy,
        _ => match state.code().get(..2) {
            Some("08") => Fault::Lost,
            // Insufficient resources, but for the disk.
            Some("53") => Fault::Busy,
            _ => Fault::Other,
        },
    }
}

/// Which of the known faults an error is. `state` is the SQLSTATE that came with it, if one did.
pub(super) fn fault(error: &DieselError, state: Option<&SqlState>) -> Fault {
    match error {
        DieselError::DatabaseError(
            DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection,
            _,
        )
        | DieselError::BrokenTransactionManager => Fault::Lost,
        DieselError::DatabaseError(..) => state.map_or(Fault::Other, fault_of_state),
        DieselError::RollbackErrorOnCommit { commit_error, .. } => fault(commit_error, state),
        _ => Fault::Other,
    }
}

/// The answer to the store's caller, and whether the same again may succeed at once.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) answer: StoreError,
    pub(super) fault: Fault,
}

impl Refusal {
    pub(super) fn of(failure: Failure, state: Option<&SqlState>) -> Self {
        let error = match failure {
            Failure::Answer(answer) => return answer.into(),
            Failure::Database(error) => error,
        };
        let message = match state {
            Some(state) => format!("{error} (SQLSTATE {})", state.code()),
            None => error.to_string(),
        };
        let fault = fault(&error, state);
        Self {
            answer: answer(fault, message),
            fault,
        }
    }

    pub(super) const fn may_succeed_at_once(&self) -> bool {
        matches!(self.fault, Fault::Lost | Fault::Again)
    }
}

impl From<StoreError> for Refusal {
    fn from(answer: StoreError) -> Self {
        Self {
            answer,
            fault: Fault::Other,
        }
    }
}

/// An error with what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub(super) fn answer(fault: Fault, message: String) -> StoreError {
    match fault {
        Fault::Duplicate => StoreError::Duplicate,
        Fault::Gone => StoreError::Conflict,
        Fault::Full => StoreError::Full(message),
        Fault::Lost | Fault::Again | Fault::Busy => StoreError::Unavailable(message),
        Fault::Other => StoreError::Internal(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str, state: Option<&str>) -> StoreError {
        let error =
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()));
        let state = state.map(SqlState::from_code);
        Refusal::of(error.into(), state.as_ref()).answer
    }

    #[test]
    fn trap_34_the_state_decides_and_no_word_of_the_message() {
        let full = refused("kein Platz", Some("53100"));
        assert!(matches!(full, StoreError::Full(_)), "{full:?}");
        for (message, state) in [
            ("No space left on device", Some("42601")),
            ("disk full", None),
            ("connection closed 57P01", Some("22P05")),
        ] {
            let other = refused(message, state);
            assert!(matches!(other, StoreError::Internal(_)), "{other:?}");
        }
    }

    #[test]
    fn states_of_each_kind_are_told_apart() {
        for (code, expected) in [
            ("23503", Fault::Gone),
            ("23505", Fault::Duplicate),
            ("23514", Fault::Other),
            ("53100", Fault::Full),
            ("53200", Fault::Busy),
            ("53300", Fault::Busy),
            ("55P03", Fault::Busy),
            ("57014", Fault::Busy),
            ("57P01", Fault::Lost),
            ("57P03", Fault::Lost),
            ("08006", Fault::Lost),
            ("25006", Fault::Lost),
            ("40001", Fault::Again),
            ("40P01", Fault::Again),
            ("42P01", Fault::Other),
        ] {
            assert_eq!(
                fault_of_state(&SqlState::from_code(code)),
                expected,
                "{code}"
            );
        }
    }
}
