//! Lost connections, restarted servers, silence.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sandbox_core::{
    sandbox::SandboxState,
    store::{Store, StoreError},
};
use tokio_postgres::NoTls;

use crate::{
    count, impatient,
    kit::{next, record, sandbox_id, write},
    open,
    proxy::{Proxy, Trouble},
    server::{Server, sql},
};

const KILL_ALL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                        WHERE application_name = 'sandbox'";
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'sandbox' AND wait_event_type = 'Lock'";

/// Uses several connections at once, so that as many stay idle.
async fn warm(store: &crate::PostgresStore) {
    let reads = [(); 4].map(|()| {
        let store = store.clone();
        tokio::spawn(async move { count(&store).await })
    });
    for read in reads {
        read.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_restart_between_two_calls() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = Server::start();
        let store = open(&server.database("restart").await).await;
        store.insert_sandbox(write(record(1), 1)).await.unwrap();
        warm(&store).await;
        server.stop(signal);
        server.run();
        assert_eq!(count(&store).await, 1, "{signal}");
        warm(&store).await;
        server.stop(signal);
        server.run();
        store.insert_sandbox(write(record(2), 2)).await.unwrap();
        assert_eq!(count(&store).await, 2, "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_loses_nothing_that_was_acknowledged() {
    let mut server = Server::start();
    let store = open(&server.database("load").await).await;
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let writers: Vec<_> = (0..4_u128)
        .map(|writer| {
            let (store, said) = (store.clone(), said.clone());
            tokio::spawn(async move {
                let (mut written, mut refusals) = (Vec::new(), 0);
                for number in (1 + writer * 1000).. {
                    match store.insert_sandbox(write(record(number), number)).await {
                        Ok(()) => written.push(number),
                        Err(StoreError::Unavailable(_)) => refusals += 1,
                        Err(error) => panic!("{error:?}"),
                    }
                    // A closed channel ends the load.
                    if said.send(refusals).is_err() {
                        break;
                    }
                }
                written
            })
        })
        .collect();
    drop(said);
    for _ in 0..40 {
        heard.recv().await.unwrap();
    }
    server.stop(Signal::SIGQUIT);
    while heard.recv().await.unwrap() == 0 {}
    server.run();
    for _ in 0..40 {
        heard.recv().await.unwrap();
    }
    drop(heard);
    for writer in writers {
        for number in writer.await.unwrap() {
            let found = store.sandbox(sandbox_id(number)).await.unwrap();
            assert_eq!(found, Some(record(number)));
        }
    }
}

#[tokio::test]
async fn while_the_server_is_away_calls_say_so() {
    let mut server = Server::start();
    let store = open(&server.database("away").await).await;
    server.stop(Signal::SIGINT);
    let read = store.sandbox(sandbox_id(1)).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let written = store.insert_sandbox(write(record(1), 1)).await;
    assert!(
        matches!(written, Err(StoreError::Unavailable(_))),
        "{written:?}"
    );
    server.run();
    assert_eq!(count(&store).await, 0);
}

#[tokio::test]
async fn killed_idle_connections_are_replaced() {
    let server = Server::start();
    let url = server.database("idle").await;
    let store = open(&url).await;
    for number in 1..=5 {
        warm(&store).await;
        assert!(!sql(&url, KILL_ALL).await.is_empty());
        store
            .insert_sandbox(write(record(number), number))
            .await
            .unwrap();
        warm(&store).await;
        sql(&url, KILL_ALL).await;
        let found = store.sandbox(sandbox_id(number)).await.unwrap();
        assert_eq!(found, Some(record(number)));
    }
}

/// Until as many of the store's connections wait for a lock.
async fn until_waiting(url: &str, count: &str) {
    let waiting = async {
        while sql(url, WAITING).await != [count] {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(waited.is_ok(), "there never were {count} that wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_killed_in_the_middle_of_a_call_is_replaced_and_the_call_made_again() {
    let server = Server::start();
    let url = server.database("middle").await;
    let store = open(&url).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    let (blocker, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    blocker
        .batch_execute("BEGIN; LOCK TABLE sandboxes IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let running = next(&record(1), SandboxState::Running);
    let (writer, reader) = (store.clone(), store.clone());
    let updated = write(running.clone(), 2);
    let update = tokio::spawn(async move { writer.update_sandbox(updated).await });
    let read = tokio::spawn(async move { reader.sandbox(sandbox_id(1)).await });
    until_waiting(&url, "2").await;
    let before = sql(&url, KILL_ALL).await;
    assert!(before.len() >= 2);
    until_waiting(&url, "2").await;
    blocker.batch_execute("COMMIT").await.unwrap();
    update.await.unwrap().unwrap();
    assert!(read.await.unwrap().unwrap().is_some());
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), Some(running));
    drop(blocker);
    driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_write_lost_before_its_commit_is_sent_is_made_again() {
    let server = Server::start();
    let url = server.database("before").await;
    let proxy = Proxy::before(server.folder());
    let store = open(&proxy.url("before")).await;
    proxy.make(Trouble::BeforeAudit);
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    assert!(!proxy.pending());
    assert_eq!(sql(&url, "SELECT count(*) FROM audit_logs").await, ["1"]);
}

#[tokio::test]
async fn a_commit_that_was_sent_and_never_arrived_is_in_doubt_and_can_be_repeated_by_hand() {
    let server = Server::start();
    let url = server.database("sent").await;
    let proxy = Proxy::before(server.folder());
    let store = open(&proxy.url("sent")).await;
    proxy.make(Trouble::BeforeCommit);
    let lost = store.insert_sandbox(write(record(1), 1)).await;
    assert!(
        matches!(&lost, Err(StoreError::Unavailable(why)) if why.contains("may have happened")),
        "{lost:?}"
    );
    assert!(!proxy.pending());
    assert_eq!(count(&store).await, 0);
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    assert_eq!(sql(&url, "SELECT count(*) FROM operations").await, ["1"]);
}

#[tokio::test]
async fn trap_38_a_commit_whose_reply_is_lost_is_not_sent_again() {
    let server = Server::start();
    let url = server.database("after").await;
    let proxy = Proxy::before(server.folder());
    let store = open(&proxy.url("after")).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    proxy.make(Trouble::AfterCommit);
    let running = next(&record(1), SandboxState::Running);
    let lost = store.update_sandbox(write(running.clone(), 2)).await;
    // Sent again, it would have met its own version: a conflict with itself.
    assert!(
        matches!(&lost, Err(StoreError::Unavailable(why)) if why.contains("may have happened")),
        "{lost:?}"
    );
    assert!(!proxy.pending());
    let found = store.sandbox(sandbox_id(1)).await.unwrap();
    assert_eq!(found, Some(running.clone()));
    let again = store.update_sandbox(write(running, 3)).await;
    assert!(matches!(again, Err(StoreError::Conflict)), "{again:?}");
    assert_eq!(sql(&url, "SELECT count(*) FROM operations").await, ["2"]);
}

#[tokio::test]
async fn a_network_that_swallows_everything_holds_no_call_for_ever() {
    let server = Server::start();
    server.database("silence").await;
    let proxy = Proxy::before(server.folder());
    let store = impatient(&proxy.url("silence")).await;
    assert_eq!(count(&store).await, 0);
    proxy.make(Trouble::Silence);
    let began = Instant::now();
    let read = store.sandbox(sandbox_id(1)).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let written = store.insert_sandbox(write(record(1), 1)).await;
    assert!(
        matches!(written, Err(StoreError::Unavailable(_))),
        "{written:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(8));
    proxy.make(Trouble::None);
    assert_eq!(count(&store).await, 0);
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_nobody_lets_go_of_ends_in_unavailable_and_changes_nothing() {
    let server = Server::start();
    let url = server.database("locked").await;
    let store = impatient(&url).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    let (blocker, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    blocker
        .batch_execute("BEGIN; SELECT * FROM sandboxes FOR UPDATE")
        .await
        .unwrap();
    let update = write(next(&record(1), SandboxState::Running), 2);
    let refused = store.update_sandbox(update.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), Some(record(1)));
    blocker.batch_execute("ROLLBACK").await.unwrap();
    store.update_sandbox(update).await.unwrap();
    drop(blocker);
    driver.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_happens_and_a_read_leaves_nothing_behind_when_its_caller_goes_away() {
    let server = Server::start();
    let url = server.database("gone").await;
    let store = impatient(&url).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    let (blocker, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    blocker
        .batch_execute("BEGIN; LOCK TABLE sandboxes IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let running = next(&record(1), SandboxState::Running);
    let (writer, reader) = (store.clone(), store.clone());
    let updated = write(running.clone(), 2);
    let update = tokio::spawn(async move { writer.update_sandbox(updated).await });
    let read = tokio::spawn(async move { reader.sandbox(sandbox_id(1)).await });
    until_waiting(&url, "2").await;
    update.abort();
    read.abort();
    assert!(update.await.unwrap_err().is_cancelled());
    assert!(read.await.unwrap_err().is_cancelled());
    blocker.batch_execute("COMMIT").await.unwrap();
    let seen = async {
        while store.sandbox(sandbox_id(1)).await.unwrap() != Some(running.clone()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen)
        .await
        .expect("the write never happened");
    drop(blocker);
    driver.await.unwrap().unwrap();
}
