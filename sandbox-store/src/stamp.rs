//! The body of every backend, written once and stamped per backend by macros.
//!
//! diesel has no asynchronous connection over several backends, and a query's types name its
//! backend. So what differs (schema, connection, transactions, errors) is handed to the macros, and
//! what must not differ stands here.

mod build_rows;
mod builds;
mod log_room;
mod rows;
mod store;

pub(crate) use build_rows::stamp_build_rows;
pub(crate) use builds::stamp_builds;
pub(crate) use log_room::{LogRoom, SIZES_PER_QUERY, length};
pub(crate) use rows::stamp_rows;
pub(crate) use store::stamp_store;

use std::pin::Pin;

use diesel::QueryResult;
use sandbox_core::store::StoreError;

/// A query at work on a connection.
pub(crate) type Reading<'c, T> = Pin<Box<dyn Future<Output = QueryResult<T>> + Send + 'c>>;

/// Runs a write on a task of its own, so that it happens whole or not at all, also when whoever
/// asked for it goes away in the middle.
pub(crate) async fn on_own_task<T: Send + 'static>(
    write: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(write).await.unwrap_or_else(|error| {
        Err(if error.is_cancelled() {
            StoreError::Unavailable("the program is ending".to_owned())
        } else {
            StoreError::Internal(format!("a write broke off: {error}"))
        })
    })
}

/// A number as a column holds it.
pub(crate) fn to_column<T, U>(column: &str, value: T) -> Result<U, StoreError>
where
    T: Copy + std::fmt::Display,
    U: TryFrom<T>,
{
    U::try_from(value)
        .map_err(|_| StoreError::Internal(format!("{value} is too large for column `{column}`")))
}

/// A number as a record holds it.
pub(crate) fn from_column<T, U>(column: &str, value: T) -> Result<U, StoreError>
where
    T: Copy + std::fmt::Display,
    U: TryFrom<T>,
{
    U::try_from(value).map_err(|_| StoreError::Internal(format!("column `{column}` holds {value}")))
}

/// A name from a fixed list, such as a state.
pub(crate) fn named<T: Copy>(
    column: &str,
    all: &[T],
    name_of: fn(T) -> &'static str,
    text: &str,
) -> Result<T, StoreError> {
    all.iter()
        .copied()
        .find(|candidate| name_of(*candidate) == text)
        .ok_or_else(|| StoreError::Internal(format!("column `{column}` holds `{text}`")))
}
