//! Opening: what stands in the way is said, and never a password.

use fred::interfaces::ClientLike;
use nix::sys::signal::Signal;
use sandbox_core::queue::Queue;
use sandbox_store::{RedisOpenError, RedisQueue, RedisSettings};
use std::time::{Duration, Instant};

use crate::{LONG, SHORT, client, id, open, server::Server};

/// With characters that mean something in a URL.
const PASSWORD: &str = "s3cret @/:?&%pass";
const ENCODED: &str = "s3cret%20%40%2F%3A%3F%26%25pass";

/// The error and all behind it, for people and for logs.
fn all_words(error: &RedisOpenError) -> String {
    let mut words = format!("{error:?}\n{error:#?}");
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        words.push_str(&format!("\n{error}"));
        next = error.source();
    }
    words
}

async fn refused(url: &str) -> String {
    all_words(&RedisQueue::open(url).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_with_a_password_again_after_its_restart() {
    let mut server = Server::start_with_password(PASSWORD);
    for url in [
        format!("redis://:{ENCODED}@{}/2", server.tcp()),
        server
            .url()
            .replace("://", &format!("://:{ENCODED}@localhost")),
    ] {
        let queue = RedisQueue::open(&url).await.unwrap();
        queue.announce(id(1)).await.unwrap();
        assert_eq!(queue.next(LONG).await, Ok(Some(id(1))));
        server.stop(Signal::SIGKILL);
        server.run();
        queue.announce(id(2)).await.unwrap();
        assert_eq!(queue.next(LONG).await, Ok(Some(id(2))));
        let words = format!("{queue:?}");
        assert!(!words.contains("s3cret"), "{words}");
        assert!(words.contains("sandbox:builds"), "{words}");
        server.stop(Signal::SIGKILL);
        let gone = queue.announce(id(3)).await.unwrap_err();
        let words = format!("{gone} {gone:?}");
        assert!(!words.contains("s3cret"), "{words}");
        server.run();
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_never_shown() {
    let server = Server::start_with_password(PASSWORD);
    for (user, told) in [
        (":wr0ng@", "WRONGPASS"),
        ("nobody:wr0ng@", "WRONGPASS"),
        ("", "NOAUTH"),
    ] {
        let words = refused(&format!("redis://{user}{}", server.tcp())).await;
        assert!(words.contains(told), "{words}");
        assert!(words.contains(&server.tcp()), "{words}");
        assert!(!words.contains("wr0ng"), "{words}");
    }
    // A URL that makes no sense is not shown either.
    let words = refused("redis://sandbox:wr0ng@host:port/0").await;
    assert!(words.contains("it is no URL"), "{words}");
    assert!(!words.contains("wr0ng"), "{words}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let mut server = Server::start();
    server.stop(Signal::SIGTERM);
    let began = Instant::now();
    let words = refused(&server.url()).await;
    assert!(words.contains("redis.sock"), "{words}");
    let words = refused(&format!("redis://{}", server.tcp())).await;
    assert!(words.contains(&server.tcp()), "{words}");
    assert!(words.contains("refused"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_server_that_says_nothing_or_something_else_is_told_in_time() {
    let server = Server::start();
    server.signal(Signal::SIGSTOP);
    let settings = RedisSettings {
        command_timeout: SHORT,
        ..RedisSettings::default()
    };
    let began = Instant::now();
    let error = RedisQueue::open_with(&server.url(), settings).await;
    let words = all_words(&error.unwrap_err());
    assert!(words.contains("redis.sock"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(3), "{words}");
    server.signal(Signal::SIGCONT);

    let tls = refused(&format!("rediss://{}", server.tcp())).await;
    assert!(tls.contains(&server.tcp()), "{tls}");
}

#[tokio::test]
async fn a_database_and_a_prefix_make_a_queue_of_their_own() {
    let server = Server::start();
    let prefixed = RedisSettings {
        key_prefix: "other:".to_owned(),
        ..RedisSettings::default()
    };
    let queues = [
        open(&server).await,
        RedisQueue::open(&format!("redis://{}/1", server.tcp()))
            .await
            .unwrap(),
        RedisQueue::open_with(&server.url(), prefixed)
            .await
            .unwrap(),
    ];
    for (number, queue) in (1..).zip(&queues) {
        queue.announce(id(number)).await.unwrap();
    }
    for (number, queue) in (1..).zip(&queues) {
        assert_eq!(queue.next(LONG).await, Ok(Some(id(number))));
        assert_eq!(queue.next(Duration::ZERO).await, Ok(None));
    }
    let words = refused(&format!("redis://{}/9", server.tcp())).await;
    assert!(words.contains("DB index is out of range"), "{words}");
}

#[tokio::test]
async fn something_else_under_the_queues_key_is_told_at_opening_and_later() {
    let server = Server::start();
    let queue = open(&server).await;
    let other = client(&server).await;
    let set = fred::cmd!("SET");
    let _: () = other
        .custom(set, vec!["sandbox:builds", "text"])
        .await
        .unwrap();
    let words = refused(&server.url()).await;
    assert!(words.contains("WRONGTYPE"), "{words}");
    let began = Instant::now();
    let ended = queue.next(3 * SHORT).await.unwrap_err().to_string();
    assert!(ended.contains("WRONGTYPE"), "{ended}");
    assert!(began.elapsed() >= SHORT, "a busy loop");
}

#[tokio::test]
async fn what_is_no_build_in_the_list_is_passed_over() {
    let server = Server::start();
    let queue = open(&server).await;
    let other = client(&server).await;
    let push = fred::cmd!("RPUSH");
    let _: () = other
        .custom(push, vec!["sandbox:builds", "nonsense"])
        .await
        .unwrap();
    queue.announce(id(1)).await.unwrap();
    assert_eq!(queue.next(LONG).await, Ok(Some(id(1))));
}
