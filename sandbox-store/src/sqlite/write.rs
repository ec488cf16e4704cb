//! How a change is committed.

use std::{io, sync::Arc};

use diesel::connection::AnsiTransactionManager;
use diesel_async::{AsyncConnection, TransactionManager};
use sandbox_core::store::StoreError;

use crate::stamp::{Reading, on_own_task};

use super::{
    Ballast, Change, Conn, Failure, Role, Shared, SqliteStore, Writer, connection::connect_async,
    error, queries,
};

impl SqliteStore {
    /// Applies a change on a task of its own.
    pub(super) async fn commit(&self, change: Change) -> Result<u64, StoreError> {
        let shared = Arc::clone(&self.shared);
        on_own_task(async move { shared.commit(&change).await }).await
    }

    /// Runs a query on one of the reading connections.
    pub(super) async fn read<T>(
        &self,
        query: impl for<'c> Fn(&'c mut Conn) -> Reading<'c, T> + Send,
    ) -> Result<T, StoreError> {
        let lease = self.shared.readers.lease().await;
        let mut conn = lease.map_err(|failure| self.shared.store_error(failure))?;
        let answer = query(&mut conn).await;
        answer.map_err(|error| self.shared.store_error(error.into()))
    }
}

impl Shared {
    fn store_error(&self, failure: Failure) -> StoreError {
        error::store_error(failure, || self.ballast.disk_full())
    }

    async fn commit(&self, change: &Change) -> Result<u64, StoreError> {
        let mut writer = self.writer.lock().await;
        // While the ballast is spent, what room there is belongs to what exists already.
        if change.only_adds()
            && !self.ballast.is_whole()
            && !self.on_ballast(Ballast::restore).await
        {
            return Err(StoreError::Full(
                "what is new needs more free space beside the database".to_owned(),
            ));
        }
        // What is large would fill the disk with itself, and leave the log no way back into the
        // database.
        let room_bytes = change.room_bytes();
        if room_bytes > 0 && !self.ballast.leaves_room_for(room_bytes) {
            return Err(StoreError::Full(format!(
                "{room_bytes} bytes and some more must be free beside the database for this"
            )));
        }
        loop {
            match self.attempt(&mut writer, change).await {
                Err(StoreError::Full(why))
                    if !change.only_adds() && self.on_ballast(Ballast::release_slice).await =>
                {
                    tracing::warn!(%why, "the disk is full: spending held-back space");
                }
                Err(error) => return Err(error),
                Ok(count) => {
                    if !self.ballast.is_whole() && self.on_ballast(Ballast::restore).await {
                        tracing::info!("space is held back again");
                    }
                    return Ok(count);
                }
            }
        }
    }

    /// Applies a change once.
    async fn attempt(
        &self,
        writer: &mut Option<Writer>,
        change: &Change,
    ) -> Result<u64, StoreError> {
        // Put back below; whatever ends this early leaves none behind that could be in a transaction.
        let mut conn = match writer.take() {
            Some(Writer(conn)) => conn,
            None => connect_async(&self.location, Role::Writer)
                .await
                .map_err(|failure| self.store_error(failure))?,
        };
        let result = transaction(&mut conn, change).await;
        if !Transactions::is_broken_transaction_manager(&mut conn) {
            *writer = Some(Writer(conn));
        }
        result.map_err(|failure| self.store_error(failure))
    }

    /// Does something with the ballast; a failure counts as "no".
    async fn on_ballast(&self, act: fn(&Ballast) -> io::Result<bool>) -> bool {
        let ballast = self.ballast.clone();
        match tokio::task::spawn_blocking(move || act(&ballast)).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the file that holds space back can't be changed");
                false
            }
            Err(_) => false,
        }
    }
}

type Transactions = <Conn as AsyncConnection>::TransactionManager;

/// Applies a change in an immediate transaction. A full disk can make SQLite roll back by itself;
/// what counts is why, so the outcome of rolling back is not reported.
async fn transaction(conn: &mut Conn, change: &Change) -> Result<u64, Failure> {
    conn.spawn_blocking(|conn| {
        AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")
    })
    .await?;
    match queries::apply(conn, change).await {
        Ok(count) => {
            Transactions::commit_transaction(conn).await?;
            Ok(count)
        }
        Err(failure) => {
            if let Err(error) = Transactions::rollback_transaction(conn).await {
                tracing::debug!(%error, "rolled back by SQLite, or not at all");
            }
            Err(failure)
        }
    }
}
