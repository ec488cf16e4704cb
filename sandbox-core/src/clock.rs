//! Time and new identifiers, as things that are handed in: the rules of this crate have neither a
//! clock nor randomness, so that a test can steer both.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A point in time, whole microseconds.
pub type Timestamp = DateTime<Utc>;

/// The passing of time.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now, cut to whole microseconds (stores keep no more).
    fn now(&self) -> Timestamp;

    /// Returns when this much time has passed.
    async fn sleep(&self, duration: Duration);

    /// A new version 7 UUID.
    fn new_uuid(&self) -> Uuid;
}
