//! The promises that every store keeps, on each of them.

mod memory {
    use std::sync::Arc;

    use sandbox_core::{sim::MemoryStore, store::Store};

    async fn fresh() -> (Arc<dyn Store>, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    sandbox_core::store_contract!(fresh);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::Arc;

    use sandbox_core::store::Store;
    use sandbox_store::SqliteStore;
    use tempfile::TempDir;

    #[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    async fn fresh() -> (Arc<dyn Store>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("store.db"))
            .await
            .unwrap();
        (Arc::new(store), folder)
    }

    sandbox_core::store_contract!(fresh);
}

#[cfg(feature = "postgres")]
#[path = "postgres/server.rs"]
#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "tests fail by panicking; those of PostgreSQL alone use more of it"
)]
mod server;

#[cfg(feature = "postgres")]
mod postgres {
    use std::sync::Arc;

    use sandbox_core::store::Store;
    use sandbox_store::PostgresStore;

    use crate::server::Server;

    #[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    async fn fresh() -> (Arc<dyn Store>, Server) {
        let server = Server::start();
        let url = server.database("contract").await;
        let store = PostgresStore::open(&url).await.unwrap();
        (Arc::new(store), server)
    }

    sandbox_core::store_contract!(fresh);
}
