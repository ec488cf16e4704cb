//! Servers that die, come back, and fall silent.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sandbox_core::queue::{Queue, QueueError};

use crate::{LONG, SHORT, client, id, impatient, open, server::Server, until_waiting, waits};

const SECOND: Duration = Duration::from_secs(1);

fn is_unavailable<T>(result: &Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Unavailable(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_outlives_the_death_and_return_of_its_server() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut server = Server::start();
        let (one, other) = (open(&server).await, open(&server).await);
        let waiters = [waits(&one), waits(&one), waits(&other)];
        until_waiting(&client(&server).await, 3).await;
        server.stop(signal);
        server.run();
        for number in 1..=3 {
            other.announce(id(number)).await.unwrap();
        }
        let mut woken = Vec::new();
        for waiter in waiters {
            woken.extend(waiter.await.unwrap());
        }
        woken.sort_unstable();
        assert_eq!(woken, [id(1), id(2), id(3)], "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_restart_between_two_calls() {
    let mut server = Server::start();
    let queue = open(&server).await;
    for number in 1..=3 {
        queue.announce(id(number)).await.unwrap();
        assert_eq!(queue.next(LONG).await, Ok(Some(id(number))));
        server.stop(Signal::SIGKILL);
        server.run();
        assert_eq!(queue.next(Duration::ZERO).await, Ok(None));
        server.stop(Signal::SIGKILL);
        server.run();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_calls_say_so_when_their_patience_ends() {
    let mut server = Server::start();
    let queue = impatient(&server).await;
    let patience = 3 * SHORT;
    let waiter = tokio::spawn({
        let queue = queue.clone();
        async move {
            let began = Instant::now();
            (queue.next(patience).await, began.elapsed())
        }
    });
    until_waiting(&client(&server).await, 1).await;
    server.stop(Signal::SIGKILL);
    let (ended, took) = waiter.await.unwrap();
    assert!(is_unavailable(&ended), "{ended:?}");
    // Neither a busy loop nor a hang.
    assert!(
        took >= patience / 2 && took < patience + 2 * SECOND,
        "{took:?}"
    );
    let began = Instant::now();
    let announced = queue.announce(id(1)).await;
    assert!(is_unavailable(&announced), "{announced:?}");
    let ended = queue.next(Duration::ZERO).await;
    assert!(is_unavailable(&ended), "{ended:?}");
    assert!(began.elapsed() < 3 * SECOND);
    let words = announced.unwrap_err().to_string();
    assert!(words.contains("redis.sock"), "{words}");

    server.run();
    // The next attempt may be some seconds away by now.
    let waiter = waits(&queue);
    until_waiting(&client(&server).await, 1).await;
    queue.announce(id(2)).await.unwrap();
    assert_eq!(waiter.await.unwrap(), Some(id(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_holds_no_call_for_ever() {
    let server = Server::start();
    let queue = impatient(&server).await;
    let watcher = client(&server).await;
    let given_up = waits(&queue);
    let patience = 3 * SHORT;
    let waiter = tokio::spawn({
        let queue = queue.clone();
        async move {
            let began = Instant::now();
            (queue.next(patience).await, began.elapsed())
        }
    });
    until_waiting(&watcher, 2).await;
    server.signal(Signal::SIGSTOP);
    given_up.abort();
    let (ended, took) = waiter.await.unwrap();
    assert!(is_unavailable(&ended), "{ended:?}");
    assert!(
        took >= patience / 2 && took < patience + 2 * SECOND,
        "{took:?}"
    );
    for patience in [SHORT, Duration::ZERO] {
        let began = Instant::now();
        let ended = queue.next(patience).await;
        assert!(is_unavailable(&ended), "{ended:?}");
        assert!(began.elapsed() < patience + 3 * SECOND);
    }
    let announced = queue.announce(id(1)).await;
    assert!(is_unavailable(&announced), "{announced:?}");
    let began = Instant::now();
    queue.close().await;
    assert!(began.elapsed() < 3 * SECOND);
    server.signal(Signal::SIGCONT);
    until_waiting(&watcher, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_silence_everything_works_again() {
    let server = Server::start();
    let queue = impatient(&server).await;
    let waiter = waits(&queue);
    let watcher = client(&server).await;
    until_waiting(&watcher, 1).await;
    server.signal(Signal::SIGSTOP);
    let announced = queue.announce(id(1)).await;
    assert!(is_unavailable(&announced), "{announced:?}");
    server.signal(Signal::SIGCONT);
    // What was in doubt may arrive all the same.
    queue.announce(id(2)).await.unwrap();
    let woken = waiter.await.unwrap().unwrap();
    assert!([id(1), id(2)].contains(&woken), "{woken}");
    queue.announce(id(3)).await.unwrap();
    let mut rest = Vec::new();
    while let Some(id) = queue.next(SHORT).await.unwrap() {
        rest.push(id);
    }
    assert_eq!(rest.last(), Some(&id(3)));
}
