//! What the queue on Redis owes beyond the contract, on a real server.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod lost;
mod open;
mod server;

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::{ClientInterface, ClientLike},
    types::config::Config,
};
use sandbox_core::{id::BuildId, queue::Queue};
use sandbox_store::{RedisQueue, RedisSettings};
use server::Server;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

fn id(number: u128) -> BuildId {
    BuildId::from_uuid(Uuid::from_u128(number))
}

async fn open(server: &Server) -> RedisQueue {
    RedisQueue::open(&server.url()).await.unwrap()
}

/// A queue that gives up soon.
async fn impatient(server: &Server) -> RedisQueue {
    let settings = RedisSettings {
        command_timeout: Duration::from_millis(500),
        ..RedisSettings::default()
    };
    RedisQueue::open_with(&server.url(), settings)
        .await
        .unwrap()
}

/// A connection of the test's own.
async fn client(server: &Server) -> Client {
    let config = Config::from_url(&server.url()).unwrap();
    let client = Client::new(config, None, None, None);
    client.init().await.unwrap();
    client
}

/// A line for each connection that the server has.
async fn connections(client: &Client) -> String {
    let list = client.client_list::<String, String>(None, None);
    list.await.unwrap()
}

/// Until as many connections wait for a wake-up.
async fn until_waiting(client: &Client, count: usize) {
    let waiting = async {
        loop {
            let list = connections(client).await;
            let blocked = list.lines().filter(|line| line.contains(" flags=b"));
            if blocked.count() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(LONG, waiting).await;
    assert!(waited.is_ok(), "there never were {count} that wait");
}

fn waits(queue: &RedisQueue) -> tokio::task::JoinHandle<Option<BuildId>> {
    let queue = queue.clone();
    tokio::spawn(async move { queue.next(LONG).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_longest_are_woken_first_wherever_they_are() {
    let server = Server::start();
    let (one, other) = (open(&server).await, open(&server).await);
    let watcher = client(&server).await;
    let first = waits(&one);
    until_waiting(&watcher, 1).await;
    let gone = waits(&one);
    until_waiting(&watcher, 2).await;
    let second = waits(&other);
    until_waiting(&watcher, 3).await;
    gone.abort();
    until_waiting(&watcher, 2).await;
    one.announce(id(1)).await.unwrap();
    one.announce(id(2)).await.unwrap();
    assert_eq!(first.await.unwrap(), Some(id(1)));
    assert_eq!(second.await.unwrap(), Some(id(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_gives_its_place_up_at_once() {
    let server = Server::start();
    let queue = open(&server).await;
    let watcher = client(&server).await;
    for _ in 0..5 {
        let waiters = [(); 3].map(|()| waits(&queue));
        until_waiting(&watcher, 3).await;
        for waiter in waiters {
            waiter.abort();
        }
        until_waiting(&watcher, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_queue_leaves_no_connection_and_takes_nothing_from_others() {
    let server = Server::start();
    let (one, other) = (open(&server).await, open(&server).await);
    let watcher = client(&server).await;
    let waiters = [(); 3].map(|()| {
        let one = one.clone();
        tokio::spawn(async move { one.next(LONG).await })
    });
    until_waiting(&watcher, 3).await;
    one.close().await;
    for waiter in waiters {
        waiter.await.unwrap().unwrap_err();
    }
    until_waiting(&watcher, 0).await;
    other.announce(id(1)).await.unwrap();
    assert_eq!(other.next(LONG).await, Ok(Some(id(1))));
    other.close().await;
    until_alone(&watcher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_queue_leaves_no_connection() {
    let server = Server::start();
    let queue = open(&server).await;
    let watcher = client(&server).await;
    let waiter = waits(&queue);
    until_waiting(&watcher, 1).await;
    waiter.abort();
    drop(queue);
    until_alone(&watcher).await;
}

/// Until nobody but the test is connected.
async fn until_alone(client: &Client) {
    let alone = async {
        loop {
            let list = connections(client).await;
            if list.lines().count() == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(LONG, alone).await;
    assert!(waited.is_ok(), "connections are left");
}
