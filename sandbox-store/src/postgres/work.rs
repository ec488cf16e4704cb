//! How changes are committed and queries run, and what is tried again.

use std::{sync::Arc, time::Duration};

use diesel_async::{AnsiTransactionManager, TransactionManager};
use sandbox_core::store::StoreError;
use tokio::time::timeout;

use crate::{
    change::{Change, Failure},
    stamp::{Reading, on_own_task},
};

use super::{
    PostgresStore, Shared,
    connection::{Conn, Lease, Transactions},
    error::{Fault, Refusal},
    queries,
};

/// How often a call is attempted, when the failure allows another one.
const ATTEMPTS_MAX: u32 = 2;

/// Compare-and-set waits for whoever writes the same record and then looks at what they left, which
/// is what this level does whatever the database's default is.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

impl PostgresStore {
    /// Applies a change on a task of its own.
    pub(super) async fn commit(&self, change: Change) -> Result<u64, StoreError> {
        let shared = Arc::clone(&self.shared);
        on_own_task(async move {
            let mut attempt = 1;
            loop {
                match shared.write(&change).await {
                    Ok(count) => return Ok(count),
                    Err(refusal) => shared.again(refusal, &mut attempt)?,
                }
            }
        })
        .await
    }

    /// Runs a query on one of the connections.
    pub(super) async fn read<T>(
        &self,
        query: impl for<'c> Fn(&'c mut Conn) -> Reading<'c, T> + Send + Sync,
    ) -> Result<T, StoreError> {
        let mut attempt = 1;
        loop {
            match self.shared.read(&query).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => self.shared.again(refusal, &mut attempt)?,
            }
        }
    }
}

impl Shared {
    /// Whether to try again after this.
    fn again(&self, refusal: Refusal, attempt: &mut u32) -> Result<(), StoreError> {
        if refusal.fault == Fault::Lost {
            self.connections.renew();
        }
        if !refusal.may_succeed_at_once() || *attempt == ATTEMPTS_MAX {
            return Err(refusal.answer);
        }
        tracing::debug!(answer = %refusal.answer, "trying again");
        *attempt += 1;
        Ok(())
    }

    /// How long all of an attempt's statements may take. The server ends each by itself before;
    /// this is for a server that does not answer at all.
    fn attempt_timeout(&self) -> Duration {
        self.settings.statement_timeout.mul_f32(1.5)
    }

    fn silence(&self) -> Refusal {
        let limit_ms = self.attempt_timeout().as_millis();
        StoreError::Unavailable(format!("no answer within {limit_ms} ms")).into()
    }

    async fn read<T>(
        &self,
        query: &(impl for<'c> Fn(&'c mut Conn) -> Reading<'c, T> + Sync),
    ) -> Result<T, Refusal> {
        let mut lease = self.connections.lease().await?;
        let answer = timeout(self.attempt_timeout(), query(&mut lease.conn)).await;
        match answer.map_err(|_| self.silence())? {
            Ok(answer) => {
                lease.give_back();
                Ok(answer)
            }
            Err(error) => {
                let refusal = refusal(&lease, error.into());
                if refusal.fault != Fault::Lost {
                    lease.give_back();
                }
                Err(refusal)
            }
        }
    }

    /// Applies a change once. A refusal that may be tried again has changed nothing.
    async fn write(&self, change: &Change) -> Result<u64, Refusal> {
        let mut lease = self.connections.lease().await?;
        let limit = self.attempt_timeout();
        let applied = timeout(limit, apply(&mut lease.conn, change)).await;
        // The server rolls back what it was told before the connection went.
        match applied.map_err(|_| self.silence())? {
            Err(failure) => {
                let refusal = refusal(&lease, failure);
                if refusal.fault != Fault::Lost {
                    let undone = Transactions::rollback_transaction(&mut lease.conn);
                    if matches!(timeout(limit, undone).await, Ok(Ok(()))) {
                        lease.give_back();
                    }
                }
                Err(refusal)
            }
            Ok(count) => {
                let committed = Transactions::commit_transaction(&mut lease.conn);
                match timeout(limit, committed).await {
                    Ok(Ok(())) => {
                        lease.give_back();
                        Ok(count)
                    }
                    Ok(Err(error)) => {
                        let refusal = refusal(&lease, error.into());
                        Err(match refusal.fault {
                            Fault::Lost => in_doubt(&refusal.answer),
                            // The server says that it rolled back.
                            _ => refusal,
                        })
                    }
                    Err(_) => Err(in_doubt(&self.silence().answer)),
                }
            }
        }
    }
}

async fn apply(conn: &mut Conn, change: &Change) -> Result<u64, Failure> {
    AnsiTransactionManager::begin_transaction_sql(conn, BEGIN).await?;
    queries::apply(conn, change).await
}

fn refusal(lease: &Lease, failure: Failure) -> Refusal {
    Refusal::of(failure, lease.take_state().as_ref())
}

/// A commit was sent, and nobody knows how it ended.
fn in_doubt(answer: &StoreError) -> Refusal {
    StoreError::Unavailable(format!("the change may have happened: {answer}")).into()
}
