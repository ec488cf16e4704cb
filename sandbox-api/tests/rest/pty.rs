//! Terminals over WebSockets.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use sandbox_api::Limits;
use sandbox_core::{host::Host, sim::SimHost};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    runtime::{self, Runtime},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::support::{KEY, LONG, Server, answer, eventually, failure};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn try_open(server: &Server, path: &str) -> Result<Socket, Error> {
    let url = format!("ws://{}{path}", server.address);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("x-api-key", HeaderValue::from_static(KEY));
    Ok(connect_async(request).await?.0)
}

async fn open(server: &Server, path: &str) -> Socket {
    try_open(server, path).await.unwrap()
}

async fn next(socket: &mut Socket) -> Option<Message> {
    loop {
        match timeout(LONG, socket.next()).await.unwrap()? {
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(message) => return Some(message),
            Err(_) => return None,
        }
    }
}

async fn said(socket: &mut Socket) -> Value {
    match next(socket).await {
        Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn output(socket: &mut Socket, length: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < length {
        match next(socket).await {
            Some(Message::Binary(data)) => got.extend_from_slice(&data),
            other => panic!("{other:?} after {got:?}"),
        }
    }
    got
}

#[tokio::test]
async fn r5_a_terminal_carries_bytes_both_ways_and_ends_with_the_exit() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/pty?cmd=echo+hello%3B+cat&rows=30&cols=100");
    let mut socket = open(&server, &path).await;
    let started = said(&mut socket).await;
    assert_eq!(started["type"], "started");
    let pid = started["pid"].as_u64().unwrap();
    assert_eq!(output(&mut socket, 6).await, b"hello\n");
    socket
        .send(Message::binary(&b"\xff\x00typed"[..]))
        .await
        .unwrap();
    assert_eq!(output(&mut socket, 7).await, b"\xff\x00typed");
    let resize = json!({"type": "resize", "rows": 50, "cols": 132});
    socket
        .send(Message::text(resize.to_string()))
        .await
        .unwrap();
    // What is not understood does no harm.
    socket.send(Message::text("nonsense")).await.unwrap();
    let signal = json!({"type": "signal", "signal": "SIGTERM"});
    socket
        .send(Message::text(signal.to_string()))
        .await
        .unwrap();
    let exit = said(&mut socket).await;
    assert_eq!(exit["type"], "exit");
    assert_eq!(exit["signal"], 15);
    assert!(matches!(next(&mut socket).await, Some(Message::Close(_))));
    let listed = answer(server.get(&format!("{sandbox}/processes")).await, 200).await;
    assert_eq!(listed["items"][0]["pid"], pid);
    assert_eq!(listed["items"][0]["pty"], true);
}

#[tokio::test]
async fn closing_a_terminal_hangs_its_process_up() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let mut socket = open(&server, &format!("{sandbox}/pty?cmd=cat")).await;
    said(&mut socket).await;
    socket.close(None).await.unwrap();
    eventually("the process ends", || async {
        let listed = answer(server.get(&format!("{sandbox}/processes")).await, 200).await;
        (listed["items"][0]["exit"]["signal"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lost_terminal_is_taken_up_again_with_no_byte_lost() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let mut socket = open(&server, &format!("{sandbox}/pty?cmd=cat")).await;
    let pid = said(&mut socket).await["pid"].clone();
    socket.send(Message::binary(&b"one"[..])).await.unwrap();
    assert_eq!(output(&mut socket, 3).await, b"one");
    // The connection breaks without a word.
    drop(socket);
    let path = format!("{sandbox}/pty?pid={pid}&offset=3");
    let mut socket = open(&server, &path).await;
    assert_eq!(said(&mut socket).await["pid"], pid);
    socket.send(Message::binary(&b"two"[..])).await.unwrap();
    assert_eq!(output(&mut socket, 3).await, b"two");
    let listed = answer(server.get(&format!("{sandbox}/processes")).await, 200).await;
    assert_eq!(listed["items"][0]["running"], true);
}

#[tokio::test]
async fn a_stopping_daemon_closes_terminals_and_leaves_their_processes() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let mut socket = open(&server, &format!("{sandbox}/pty?cmd=cat")).await;
    said(&mut socket).await;
    let host = server.host.clone();
    server.stop().await;
    match next(&mut socket).await {
        Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("{other:?}"),
    }
    assert!(!has_ended(&host).await);
}

/// Whether the one process of the one machine has ended.
async fn has_ended(host: &SimHost) -> bool {
    let guest = host.guest(host.machines()[0].id);
    guest.processes().await.unwrap()[0].exit.is_some()
}

/// Far more than what connections hold.
const MUCH_BYTES: usize = 64 * 1024 * 1024;

fn impatient(terminal_patience: Duration) -> Limits {
    Limits {
        terminal_patience,
        ..Limits::default()
    }
}

#[test]
fn r36_a_terminal_s_process_does_not_wait_for_ever_for_a_daemon_that_was_killed() {
    // All its tasks end where they stand, as in a kill.
    let daemon = runtime::Builder::new_current_thread().enable_all().build();
    let daemon = daemon.unwrap();
    let (host, socket) = daemon.block_on(async {
        let server = Server::with(impatient(Duration::from_secs(2))).await;
        let sandbox = server.sandbox().await;
        let path = format!("{sandbox}/pty?cmd=spew+{MUCH_BYTES}");
        let mut socket = open(&server, &path).await;
        said(&mut socket).await;
        (server.host.clone(), socket)
    });
    drop((daemon, socket));
    let after = Runtime::new().unwrap();
    after.block_on(async {
        assert!(!has_ended(&host).await, "it waits for a reader");
        eventually("it ends without one", || async {
            has_ended(&host).await.then_some(())
        })
        .await;
    });
}

#[tokio::test]
async fn r5_a_client_slower_than_that_patience_misses_nothing() {
    let patience = Duration::from_millis(1500);
    let server = Server::with(impatient(patience)).await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/pty?cmd=spew+{MUCH_BYTES}");
    let mut socket = open(&server, &path).await;
    said(&mut socket).await;
    // It reads nothing, while time passes for the process.
    let idle_until = tokio::time::Instant::now() + 2 * patience;
    while tokio::time::Instant::now() < idle_until {
        assert!(!has_ended(&server.host).await, "it waits for its reader");
        tokio::time::sleep(patience / 50).await;
    }
    assert_eq!(output(&mut socket, MUCH_BYTES).await.len(), MUCH_BYTES);
    assert_eq!(said(&mut socket).await["type"], "exit");
}

#[tokio::test]
async fn what_is_wrong_is_told_before_the_socket_opens() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let plain = server.get(&format!("{sandbox}/pty?cmd=cat")).await;
    failure(plain, 400, "invalid_request").await;
    for (path, status) in [
        (format!("{sandbox}/pty?cmd=cat&rows=0"), 400),
        (format!("{sandbox}/pty?cmd=cat&colour=red"), 400),
        (format!("{sandbox}/pty?cmd="), 400),
        (format!("{sandbox}/pty?offset=3"), 400),
        (format!("{sandbox}/pty?pid=99999&rows=1&cols=1"), 404),
        (format!("{sandbox}/pty?pid=99999"), 404),
        ("/v1/sandboxes/x/pty".to_owned(), 400),
    ] {
        match try_open(&server, &path).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), status, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    let listed = answer(server.get(&format!("{sandbox}/processes")).await, 200).await;
    assert_eq!(listed["items"], json!([]));
}
