//! The promises that every queue keeps, on each of them.

mod sim {
    use std::sync::Arc;

    use sandbox_core::{queue::Queue, sim::SimQueue};

    async fn fresh() -> ([Arc<dyn Queue>; 2], ()) {
        let queue = SimQueue::new();
        ([Arc::new(queue.clone()), Arc::new(queue)], ())
    }

    sandbox_core::queue_contract!(fresh);
}

mod embedded {
    use std::sync::Arc;

    use sandbox_core::queue::Queue;
    use sandbox_store::EmbeddedQueue;

    async fn fresh() -> ([Arc<dyn Queue>; 2], ()) {
        let queue: Arc<dyn Queue> = Arc::new(EmbeddedQueue::new());
        ([Arc::clone(&queue), queue], ())
    }

    sandbox_core::queue_contract!(fresh);
}

#[cfg(feature = "redis")]
#[path = "redis/server.rs"]
#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "tests fail by panicking; those of Redis alone use more of it"
)]
mod server;

#[cfg(feature = "redis")]
mod redis {
    use std::sync::Arc;

    use sandbox_core::queue::Queue;
    use sandbox_store::RedisQueue;

    use crate::server::Server;

    #[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    async fn fresh() -> ([Arc<dyn Queue>; 2], Server) {
        let server = Server::start();
        let one = RedisQueue::open(&server.url()).await.unwrap();
        let tcp = format!("redis://{}", server.tcp());
        let other = RedisQueue::open(&tcp).await.unwrap();
        ([Arc::new(one), Arc::new(other)], server)
    }

    sandbox_core::queue_contract!(fresh);
}
