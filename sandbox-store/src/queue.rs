//! [`Queue`](sandbox_core::queue::Queue) within a process, and on a Redis that several share.

mod embedded;
#[cfg(feature = "redis")]
mod redis;

pub use embedded::EmbeddedQueue;
#[cfg(feature = "redis")]
pub use redis::{RedisOpenError, RedisQueue, RedisSettings, RedisUrlError};
