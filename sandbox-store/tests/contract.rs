//! The promises that every store keeps, on SQLite.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use sandbox_core::store::Store;
use sandbox_store::SqliteStore;
use tempfile::TempDir;

async fn fresh() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db"))
        .await
        .unwrap();
    (Arc::new(store), folder)
}

sandbox_core::store_contract!(fresh);
