//! The machine's own clock, for every program that assembles an engine.

use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::clock::{Clock, Timestamp};
use uuid::Uuid;

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that the others stand for"
    )]
    fn now(&self) -> Timestamp {
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        // Whole microseconds: stores keep no more.
        i64::try_from(since_1970.as_micros())
            .ok()
            .and_then(Timestamp::from_timestamp_micros)
            .unwrap_or(Timestamp::MAX_UTC)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn new_uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}
