//! Time that follows tokio's clock, also where that is paused.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::clock::{Clock, Timestamp};

/// Where simulated time begins: 2026-01-01, in seconds since 1970.
const EPOCH_SEC: i64 = 1_767_225_600;

/// The moment at which simulated time begins.
#[cfg(any(feature = "simulation", test))]
pub(super) fn epoch() -> Timestamp {
    Timestamp::from_timestamp(EPOCH_SEC, 0).unwrap_or(Timestamp::MIN_UTC)
}

/// A clock for tests. Its identifiers are of version 7, ascending, and the same in each run.
#[derive(Debug)]
pub struct SimClock {
    started: Instant,
    count: AtomicU64,
}

impl SimClock {
    /// A clock that starts now. Must be called within a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            count: AtomicU64::new(0),
        }
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let micros = (EPOCH_SEC * 1_000_000).saturating_add(elapsed);
        Timestamp::from_timestamp_micros(micros).unwrap_or(Timestamp::MAX_UTC)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn new_uuid(&self) -> Uuid {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap_or_default();
        let mut tail = [0; 10];
        // The first three bytes share their room with version and variant.
        tail[3..].copy_from_slice(&count.to_be_bytes()[1..]);
        Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_until_someone_sleeps() {
        let clock = SimClock::new();
        let before = clock.now();
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!((clock.now() - before).num_seconds(), 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn identifiers_are_version_7_and_ascending() {
        let clock = SimClock::new();
        let ids: Vec<Uuid> = (0..1000).map(|_| clock.new_uuid()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }
}
