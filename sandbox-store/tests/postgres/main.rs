//! What PostgreSQL owes beyond the contract, on a real server.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

#[path = "../kit/builds.rs"]
mod build_kit;
mod builds;
#[path = "../kit/mod.rs"]
mod kit;
mod lost;
mod open;
mod password;
mod proxy;
mod server;
mod values;

use std::{num::NonZeroUsize, time::Duration};

use kit::{next, record, write};
use sandbox_core::{
    sandbox::{PageRequest, SandboxFilter, SandboxState},
    store::{Store, StoreError},
};
use sandbox_store::{PostgresSettings, PostgresStore};
use server::{Server, sql};

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url).await.unwrap()
}

/// A store that gives up soon.
async fn impatient(url: &str) -> PostgresStore {
    let settings = PostgresSettings {
        connections_max: NonZeroUsize::new(2).unwrap(),
        connect_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_millis(600),
    };
    PostgresStore::open_with(url, settings).await.unwrap()
}

async fn count(store: &PostgresStore) -> usize {
    let page = PageRequest {
        after: None,
        limit: PageRequest::LIMIT_MAX,
    };
    let listed = store.list_sandboxes(&SandboxFilter::default(), page).await;
    listed.unwrap().items.len()
}

/// Inserts a sandbox per number, and updates each once.
async fn insert_and_update(
    store: &PostgresStore,
    numbers: std::ops::Range<u128>,
) -> Result<(), StoreError> {
    for number in numbers {
        let first = record(number);
        store.insert_sandbox(write(first.clone(), number)).await?;
        let running = next(&first, SandboxState::Running);
        store
            .update_sandbox(write(running, number + 10_000))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_of_two_stores_on_one_database_never_fail() {
    let server = Server::start();
    let url = server.database("writers").await;
    let stores = [open(&url).await, open(&url).await];
    let tasks: Vec<_> = (0..8_u128)
        .map(|writer| {
            let store = stores[(writer % 2) as usize].clone();
            tokio::spawn(async move {
                insert_and_update(&store, (1 + writer * 100)..(21 + writer * 100)).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(count(&stores[0]).await, 160);
    assert_eq!(count(&stores[1]).await, 160);
    let updated = sql(&url, "SELECT count(*) FROM sandboxes WHERE version = 2").await;
    assert_eq!(updated, ["160"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_never_take_more_connections_than_they_may() {
    let server = Server::start();
    let url = server.database("bounded").await;
    let store = impatient(&url).await;
    let tasks: Vec<_> = (0..16_u128)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move { insert_and_update(&store, writer + 1..writer + 2).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sandbox'";
    assert_eq!(sql(&url, ours).await, ["2"]);
}
