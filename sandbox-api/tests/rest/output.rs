//! Output by server-sent events.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    events::{Event, events},
    support::{Server, answer, failure},
};

fn text_of(events: &[Event]) -> String {
    let texts = events.iter().filter(|event| event.name == "stdout");
    texts
        .map(|event| event.data["data"].as_str().unwrap())
        .collect()
}

const COUNT: &str = "echo 1; echo 2 >&2; sleep 0.2; echo 3; exit 4";

#[tokio::test]
async fn r5_output_comes_as_events_and_ends_with_the_exit() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server.process(&sandbox, json!({"cmd": COUNT})).await;
    let events = events(
        server.get(&format!("{process}/output?follow=true")).await,
        99,
    )
    .await;
    let names: Vec<(&str, Option<u64>)> = events
        .iter()
        .map(|event| (event.name.as_str(), event.id))
        .collect();
    assert_eq!(
        names,
        [
            ("stdout", Some(2)),
            ("stderr", Some(4)),
            ("stdout", Some(6)),
            ("exit", Some(6))
        ]
    );
    assert_eq!(events[0].data, json!({"data": "1\n", "encoding": "utf-8"}));
    assert_eq!(events[3].data["exit_code"], 4);
}

#[tokio::test]
async fn r5_a_reader_that_comes_back_loses_and_doubles_nothing() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server.process(&sandbox, json!({"cmd": COUNT})).await;
    let path = format!("{process}/output?follow=true");
    let all = events(server.get(&path).await, 99).await;
    for cut in 0..all.len() {
        let id = all[..cut].last().map_or(0, |event| event.id.unwrap());
        let again = server
            .ask(Method::GET, &path)
            .header("Last-Event-ID", id.to_string());
        let rest = events(again.send().await.unwrap(), 99).await;
        assert_eq!(rest, all[cut..], "cut after {cut} events");
        let by_offset = server.get(&format!("{path}&offset={id}")).await;
        assert_eq!(events(by_offset, 99).await, all[cut..]);
    }
    // From the middle of a piece.
    let odd = events(server.get(&format!("{path}&offset=1")).await, 99).await;
    assert_eq!(text_of(&odd), "\n3\n");
}

/// The next piece of a body. It is on its way for as long as it is held.
async fn piece(body: &mut Body) -> Bytes {
    let frame = body.frame().await.unwrap().unwrap();
    frame.into_data().unwrap()
}

/// The offset behind an event.
fn id_of(event: &Bytes) -> u64 {
    let text = std::str::from_utf8(event).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("id: "));
    id.unwrap().parse().unwrap()
}

#[tokio::test]
async fn r5_what_a_reader_was_not_sent_is_there_when_it_comes_back() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let body = json!({"cmd": "spew 100000", "retain_bytes": 4096, "when_full": "wait"});
    let process = server.process(&sandbox, body).await;
    let path = format!("{process}/output?follow=true");
    let mut body = server.body(&path).await;
    let mut offset = 0;
    for _ in 0..3 {
        let sent = piece(&mut body).await;
        assert!(id_of(&sent) > offset);
        offset = id_of(&sent);
    }
    let held = piece(&mut body).await;
    assert!(id_of(&held) > offset);
    // However often the connection asks for more, nothing is taken that it has not sent.
    let more = timeout(Duration::from_millis(300), piece(&mut body)).await;
    assert_eq!(more.ok(), None);
    // It breaks.
    drop((body, held));
    let rest = events(server.get(&format!("{path}&offset={offset}")).await, 99).await;
    assert_eq!(rest[0].name, "stdout", "nothing was dropped: {:?}", rest[0]);
    assert_eq!(offset + text_of(&rest).len() as u64, 100_000);
    assert_eq!(rest.last().unwrap().name, "exit");
}

#[tokio::test]
async fn without_follow_the_stream_ends_with_what_there_is() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server
        .process(&sandbox, json!({"cmd": "echo 1; sleep 100"}))
        .await;
    let now = events(server.get(&format!("{process}/output")).await, 99).await;
    assert_eq!(text_of(&now), "1\n");
    assert_eq!(now.len(), 1);
    let none = events(server.get(&format!("{process}/output?offset=2")).await, 99).await;
    assert_eq!(none, []);
}

#[tokio::test]
async fn r5_dropped_output_is_told() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let body = json!({"cmd": "spew 100000", "retain_bytes": 4096});
    let process = server.process(&sandbox, body).await;
    let events = events(
        server.get(&format!("{process}/output?follow=true")).await,
        99,
    )
    .await;
    assert_eq!(events[0].name, "dropped");
    let dropped = events[0].data["dropped_bytes"].as_u64().unwrap();
    assert!(dropped > 0);
    assert_eq!(events[0].id, Some(dropped));
    assert_eq!(dropped + text_of(&events).len() as u64, 100_000);
    assert_eq!(events.last().unwrap().id, Some(100_000));
}

#[tokio::test]
async fn bytes_that_are_no_text_are_base64() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let body = json!({"cmd": "cat", "stdin_base64": "//4="});
    let process = server.process(&sandbox, body).await;
    let events = events(
        server.get(&format!("{process}/output?follow=true")).await,
        99,
    )
    .await;
    assert_eq!(
        events[0].data,
        json!({"data": "//4=", "encoding": "base64"})
    );
}

#[tokio::test]
async fn json_has_the_same_in_one_piece() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server
        .process(&sandbox, json!({"cmd": "echo 1; echo 2 >&2"}))
        .await;
    let ask = |query: &str| {
        let asked = server.ask(Method::GET, &format!("{process}/output{query}"));
        asked.header("Accept", "application/json").send()
    };
    let piece = answer(ask("?wait_ms=5000").await.unwrap(), 200).await;
    assert_eq!(
        piece["chunks"],
        json!([
            {"stream": "stdout", "data": "1\n", "encoding": "utf-8"},
            {"stream": "stderr", "data": "2\n", "encoding": "utf-8"},
        ])
    );
    assert_eq!(piece["dropped_bytes"], 0);
    assert_eq!(piece["next_offset"], 4);
    let rest = answer(ask("?offset=2").await.unwrap(), 200).await;
    assert_eq!(rest["chunks"][0]["data"], "2\n");
    assert_eq!(rest["exit"]["exit_code"], 0);
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_a_status_and_no_event() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let nobody = server
        .get(&format!("{sandbox}/processes/99999/output?follow=true"))
        .await;
    failure(nobody, 404, "not_found").await;
    let process = server.process(&sandbox, json!({"cmd": "true"})).await;
    for query in [
        "?offset=x",
        "?offset=-1",
        "?follow=maybe",
        "?wait_ms=30001",
        "?colour=red",
    ] {
        let refused = server.get(&format!("{process}/output{query}")).await;
        failure(refused, 400, "invalid_request").await;
    }
    let asked = server.ask(Method::GET, &format!("{process}/output"));
    let refused = asked.header("Last-Event-ID", "x").send().await.unwrap();
    failure(refused, 400, "invalid_request").await;
}

#[tokio::test]
async fn a_sandbox_that_is_destroyed_ends_its_streams_with_an_error() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server
        .process(&sandbox, json!({"cmd": "echo 1; sleep 100"}))
        .await;
    let stream = server.get(&format!("{process}/output?follow=true")).await;
    let (events, deleted) = tokio::join!(events(stream, 99), server.delete(&sandbox));
    answer(deleted, 204).await;
    assert_eq!(events.last().unwrap().name, "error", "{events:?}");
}

#[tokio::test]
async fn a_stopping_daemon_ends_its_streams() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server
        .process(&sandbox, json!({"cmd": "echo 1; sleep 100"}))
        .await;
    let stream = server.get(&format!("{process}/output?follow=true")).await;
    let (events, ()) = tokio::join!(events(stream, 99), server.stop());
    assert_eq!(text_of(&events), "1\n");
    assert_eq!(events.len(), 1);
}
