//! Clients that are slow, many, half gone, or gone.

use std::time::Duration;

use sandbox_api::Limits;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use crate::support::{KEY, LONG, Server, answer, eventually, failure, read_all};

const SHORT: Duration = Duration::from_millis(300);

fn impatient() -> Limits {
    Limits {
        header_timeout: SHORT,
        body_timeout: SHORT,
        stop_timeout: Duration::from_secs(1),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_closed() {
    let server = Server::with(impatient()).await;
    for head in ["", "GET", "GET /healthz HTTP/1.1\r\nhost: x\r\nx: "] {
        let started = Instant::now();
        let answer = server.raw(head.as_bytes()).await;
        assert!(started.elapsed() >= SHORT, "{head:?}");
        assert!(started.elapsed() < LONG, "{head:?}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let server = Server::with(impatient()).await;
    let sandbox = server.sandbox().await;
    for (method, path) in [
        ("POST", "/v1/sandboxes".to_owned()),
        ("POST", format!("{sandbox}/exec")),
        ("PUT", format!("{sandbox}/files?path=/x")),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\
             content-type: application/json\r\ncontent-length: 100\r\n\
             connection: close\r\n\r\n{{"
        );
        let answer = server.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        assert!(answer.contains("invalid_request"), "{answer}");
    }
    failure(
        server.get(&format!("{sandbox}/files?path=/x")).await,
        404,
        "not_found",
    )
    .await;
}

#[tokio::test]
async fn a_body_that_is_shorter_than_announced_changes_nothing() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let request = format!(
        "PUT {sandbox}/files?path=/x HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\
         content-length: 100\r\n\r\nhalf"
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    read_all(&mut stream).await;
    failure(
        server.get(&format!("{sandbox}/files?path=/x")).await,
        404,
        "not_found",
    )
    .await;
}

#[tokio::test]
async fn a_half_closed_client_is_answered_or_closed() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let text = read_all(&mut stream).await;
    assert!(
        text.is_empty() || text.starts_with("HTTP/1.1 200"),
        "{text}"
    );
    answer(server.get("/healthz").await, 200).await;
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_and_room_comes_back() {
    let limits = Limits {
        connections_max: 4,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    let refused = server
        .raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("\"code\":\"unavailable\""), "{refused}");
    drop(held);
    eventually("there is room again", || async {
        let asked = server.get("/healthz").await;
        (asked.status() == 200).then_some(())
    })
    .await;
}

/// How many connections this process may hold both ends of, at most ten thousand.
fn connections_possible() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    }
    usize::try_from((hard.saturating_sub(200) / 2).min(10_000)).unwrap()
}

#[tokio::test]
async fn ten_thousand_open_connections_are_held_or_refused_and_the_daemon_lives() {
    let count = connections_possible();
    assert!(count >= 400, "{count}");
    let limits = Limits {
        connections_max: count * 4 / 5,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let mut held = Vec::with_capacity(count);
    for _ in 0..limits.connections_max {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    // Idle ones are in nobody's way, and the last one is served as well as the first.
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut last = held.pop().unwrap();
    let started = Instant::now();
    last.write_all(request).await.unwrap();
    let text = read_all(&mut last).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(5));
    // Those over the limit are told so, or closed; none is left hanging.
    let mut over = Vec::with_capacity(count);
    while held.len() + over.len() < count {
        over.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut taken = 0;
    for mut stream in over {
        // An end that was closed may not be written to.
        let _ = stream.write_all(request).await;
        let text = read_all(&mut stream).await;
        taken += usize::from(text.starts_with("HTTP/1.1 200"));
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 503") || text.contains("200 OK"),
            "{text}"
        );
    }
    // One place was free.
    assert!(taken <= 1, "{taken}");
    drop(held);
    eventually("there is room again", || async {
        let asked = server.get("/healthz").await;
        (asked.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_head_that_comes_drop_by_drop_is_given_up() {
    let server = Server::with(impatient()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let started = Instant::now();
    let mut drops = b"GET /healthz HTTP/1.1\r\nx: "
        .iter()
        .chain([b'y'].iter().cycle());
    let mut pause = tokio::time::interval(SHORT / 6);
    // Each drop comes in time; all of them together never do.
    while started.elapsed() < LONG {
        pause.tick().await;
        let Some(byte) = drops.next() else { break };
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
    }
    assert!(started.elapsed() < LONG, "it is still listened to");
    answer(server.get("/healthz").await, 200).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_in_nobodys_way() {
    let server = Server::with(impatient()).await;
    let sandbox = server.sandbox().await;
    let path = format!("{sandbox}/files?path=/x");
    answer(server.put(&path, vec![7; 32 * 1024 * 1024]).await, 200).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n");
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    let whole = server.get(&path).await.bytes().await.unwrap();
    assert_eq!(whole.len(), 32 * 1024 * 1024);
    // Nor do they keep the daemon from stopping.
    server.stop().await;
    drop(deaf);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up_and_its_work_goes_on() {
    let limits = Limits {
        request_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    server
        .host
        .delay(sandbox_core::sim::Call::Create, SHORT * 3);
    let late = server.post("/v1/sandboxes", json!({})).await;
    failure(late, 503, "unavailable").await;
    eventually("the sandbox runs", || async {
        let page = answer(server.get("/v1/sandboxes?state=running").await, 200).await;
        (page["items"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    // A command may take as long as it takes.
    server.host.heal();
    let page = answer(server.get("/v1/sandboxes").await, 200).await;
    let path = format!(
        "/v1/sandboxes/{}/exec",
        page["items"][0]["id"].as_str().unwrap()
    );
    let output = answer(
        server
            .post(&path, json!({"cmd": "sleep 1; echo done"}))
            .await,
        200,
    )
    .await;
    assert_eq!(output["stdout"], "done\n");
}

#[tokio::test]
async fn a_stop_answers_what_is_in_flight_and_takes_nothing_new() {
    let server = Server::with(impatient()).await;
    let sandbox = server.sandbox().await;
    let address = server.address;
    let exec = server
        .ask(reqwest::Method::POST, &format!("{sandbox}/exec"))
        .json(&json!({"cmd": "sleep 100"}))
        .send();
    let exec = tokio::spawn(exec);
    eventually("the command runs", || async {
        let listed = answer(server.get(&format!("{sandbox}/processes")).await, 200).await;
        (!listed["items"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    let host = server.host.clone();
    server.stop().await;
    failure(exec.await.unwrap().unwrap(), 503, "unavailable").await;
    assert!(TcpStream::connect(address).await.is_err());
    // The command goes on in its sandbox.
    let guest = sandbox_core::host::Host::guest(&host, host.machines()[0].id);
    assert!(guest.processes().await.unwrap()[0].exit.is_none());
}
