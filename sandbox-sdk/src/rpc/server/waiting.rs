//! Waiting for what takes long, a while in each call: the client asks again.

use std::time::Duration;

use sandbox_core::{
    api::Api,
    error::Error,
    id::OperationId,
    operation::{OperationRecord, OperationStatus},
};
use tokio::time::Instant;

use super::requests::{self, Outcome};

/// How long one call waits.
const WAIT: Duration = Duration::from_secs(10);
/// The pause before an operation is looked at again; it grows.
const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);

/// Nothing where it has not come yet.
pub(super) async fn for_an_outcome<T: Clone>(outcome: Outcome<T>) -> Result<Option<T>, Error> {
    requests::within(outcome, WAIT).await.transpose()
}

/// The operation once it has ended, or as it stands after a while.
///
/// It may be at work in another process, or settled by a later one, so that the records are asked.
pub(super) async fn for_an_operation(
    api: &dyn Api,
    id: OperationId,
) -> Result<OperationRecord, Error> {
    let until = Instant::now() + WAIT;
    let mut pause = POLL_FIRST;
    loop {
        let operation = api.operation(id).await?;
        if operation.status != OperationStatus::Running || Instant::now() >= until {
            return Ok(operation);
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(1.5).min(POLL_MAX);
    }
}
