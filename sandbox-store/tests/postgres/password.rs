//! Over TCP, with a password.

use nix::sys::signal::Signal;
use sandbox_core::store::Store;
use sandbox_store::{ConnectError, PostgresOpenError, PostgresStore};

use crate::{
    count,
    kit::{record, write},
    open,
    server::{Server, sql},
};

/// With characters that mean something in a URL.
const PASSWORD: &str = "s3cret @/:?&%'pass";
const ENCODED: &str = "s3cret%20%40%2F%3A%3F%26%25%27pass";

fn url(server: &Server, user: &str) -> String {
    format!("postgres://{user}@{}/postgres", server.tcp())
}

/// The error and all behind it, for people and for logs.
fn all_words(error: &PostgresOpenError) -> String {
    let mut words = format!("{error:?}\n{error:#?}");
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        words.push_str(&format!("\n{error}"));
        next = error.source();
    }
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_over_tcp_with_a_password_again_after_its_restart() {
    let mut server = Server::start_with_password(PASSWORD);
    let url = url(&server, &format!("sandbox:{ENCODED}"));
    let store = open(&url).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    assert_eq!(count(&store).await, 1);
    let method = "SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'sandbox'";
    assert_eq!(sql(&url, method).await, ["SCRAM-SHA-256"]);

    server.stop(Signal::SIGINT);
    server.run();
    assert_eq!(count(&store).await, 1);
    let words = format!("{store:?}");
    assert!(!words.contains("s3cret"), "{words}");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_never_shown() {
    let server = Server::start_with_password(PASSWORD);
    for (user, told) in [
        (
            "sandbox:wr0ng",
            "password authentication failed for user \"sandbox\"",
        ),
        (
            "nobody:wr0ng",
            "password authentication failed for user \"nobody\"",
        ),
        ("sandbox", "password missing"),
    ] {
        let error = PostgresStore::open(&url(&server, user)).await.unwrap_err();
        assert!(
            matches!(
                error,
                PostgresOpenError::Connect(ConnectError::Refused { .. })
            ),
            "{error:?}"
        );
        let words = all_words(&error);
        assert!(words.contains(told), "{words}");
        assert!(words.contains(&server.tcp()), "{words}");
        assert!(!words.contains("wr0ng"), "{words}");
    }
    // A URL that makes no sense is not shown either.
    let error = PostgresStore::open("postgres://sandbox:wr0ng@host:port/postgres").await;
    let words = all_words(&error.unwrap_err());
    assert!(!words.contains("wr0ng"), "{words}");
}
