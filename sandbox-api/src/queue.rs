//! What wakes workers up: something within this daemon, or a Redis that several share.

use std::sync::Arc;

use sandbox_core::queue::Queue;
use sandbox_store::{EmbeddedQueue, RedisOpenError, RedisQueue, RedisUrlError};

/// Which queue.
#[derive(Clone)]
pub enum QueueChoice {
    /// One within this daemon.
    Embedded,
    /// A Redis server by its URL, which others may use too.
    Redis(String),
}

impl std::fmt::Debug for QueueChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded => f.write_str("Embedded"),
            // A URL may hold a password.
            Self::Redis(_) => f.write_str("Redis(..)"),
        }
    }
}

impl QueueChoice {
    /// The one on the Redis that this URL names, if there is one.
    pub(crate) fn of(redis_url: Option<String>) -> Result<Self, RedisUrlError> {
        Ok(match redis_url {
            None => Self::Embedded,
            Some(url) => {
                RedisQueue::check_url(&url)?;
                Self::Redis(url)
            }
        })
    }

    pub(crate) async fn open(&self) -> Result<Arc<dyn Queue>, RedisOpenError> {
        Ok(match self {
            Self::Embedded => Arc::new(EmbeddedQueue::new()),
            Self::Redis(url) => Arc::new(RedisQueue::open(url).await?),
        })
    }
}

/// A queue that is open. It can be shown, and shows nothing.
pub(crate) struct OpenQueue(pub(crate) Arc<dyn Queue>);

impl std::fmt::Debug for OpenQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenQueue(..)")
    }
}
