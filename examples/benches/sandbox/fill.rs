//! Many records in a daemon's store, put there as an engine would.

use std::path::Path;

use anyhow::Context;
use sandbox_core::{
    clock::Clock,
    id::SandboxId,
    sandbox::{SandboxRecord, SandboxState},
    store::{SandboxWrite, Store},
};
use sandbox_host::SystemClock;
use sandbox_store::SqliteStore;

/// Adds `count` stopped sandboxes that are like this one, which the daemon made itself.
pub(crate) async fn with_stopped(
    folder: &Path,
    like: SandboxId,
    count: usize,
) -> anyhow::Result<()> {
    let store = SqliteStore::open(folder.join("sandbox.db")).await?;
    let record = store.sandbox(like).await?.context("the record is gone")?;
    for _ in 0..count {
        let record = SandboxRecord {
            id: SandboxId::from_uuid(SystemClock.new_uuid()),
            state: SandboxState::Stopped,
            reason: "its machine was ended from outside".to_owned(),
            operation: None,
            version: 1,
            ..record.clone()
        };
        let write = SandboxWrite {
            record,
            operations: Vec::new(),
            template: None,
            audit: None,
        };
        store.insert_sandbox(write).await?;
    }
    Ok(())
}
