use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Server, answer, eventually, failure};

async fn exec(server: &Server, body: Value) -> Value {
    let sandbox = server.sandbox().await;
    answer(server.post(&format!("{sandbox}/exec"), body).await, 200).await
}

#[tokio::test]
async fn r5_a_command_ends_with_all_that_is_fixed() {
    let server = Server::start().await;
    let output = exec(&server, json!({"cmd": "echo out; echo err >&2; exit 3"})).await;
    let fields: Vec<&String> = output.as_object().unwrap().keys().collect();
    let expected = [
        "duration_ms",
        "encoding",
        "exit_code",
        "signal",
        "stderr",
        "stdout",
        "timed_out",
        "truncated",
    ];
    assert_eq!(fields, expected);
    assert_eq!(output["exit_code"], 3);
    assert_eq!(output["signal"], Value::Null);
    assert_eq!(output["stdout"], "out\n");
    assert_eq!(output["stderr"], "err\n");
    assert_eq!(output["encoding"], "utf-8");
    assert_eq!(output["truncated"], false);
    assert!(output["duration_ms"].is_u64());
}

#[tokio::test]
async fn r5_with_args_it_is_a_program_and_no_shell() {
    let server = Server::start().await;
    let output = exec(&server, json!({"cmd": "echo", "args": ["a;b", "c  d"]})).await;
    assert_eq!(output["stdout"], "a;b c  d\n");
    let sandbox = server.sandbox().await;
    let body = json!({"cmd": "no-such-program", "args": []});
    let refused = server.post(&format!("{sandbox}/exec"), body).await;
    let message = failure(refused, 409, "invalid_state").await;
    assert!(message.contains("no-such-program"), "{message}");
}

#[tokio::test]
async fn r5_stdin_and_output_are_binary_safe() {
    let server = Server::start().await;
    let output = exec(&server, json!({"cmd": "cat", "stdin": "text\n"})).await;
    assert_eq!(output["stdout"], "text\n");
    let bytes = [0, 0xff, 0xfe, b'\n', 0x80];
    let body = json!({"cmd": "cat; echo err >&2", "stdin_base64": STANDARD.encode(bytes)});
    let output = exec(&server, body).await;
    assert_eq!(output["encoding"], "base64");
    assert_eq!(output["stdout"], STANDARD.encode(bytes));
    assert_eq!(output["stderr"], STANDARD.encode("err\n"));
}

#[tokio::test]
async fn r5_a_time_limit_ends_a_command() {
    let server = Server::start().await;
    let output = exec(&server, json!({"cmd": "sleep 100", "timeout_sec": 0.2})).await;
    assert_eq!(output["timed_out"], true);
    assert_eq!(output["signal"], 9);
    assert_eq!(output["exit_code"], Value::Null);
}

#[tokio::test]
async fn r5_output_beyond_the_bound_is_cut_and_said_to_be() {
    let server = Server::start().await;
    let output = exec(&server, json!({"cmd": "spew 20000000"})).await;
    assert_eq!(output["truncated"], true);
    assert_eq!(output["exit_code"], 0);
}

#[tokio::test]
async fn r5_a_background_process_is_listed_fed_and_signalled() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server.process(&sandbox, json!({"cmd": "cat"})).await;
    let listed = answer(server.get(&format!("{sandbox}/processes")).await, 200).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["cmd"], "cat");
    assert_eq!(listed["items"][0]["running"], true);
    assert_eq!(listed["next_cursor"], Value::Null);

    let stdin = format!("{process}/stdin");
    let written = answer(server.post(&stdin, json!({"data": "a"})).await, 200).await;
    assert_eq!(written, json!({"written_bytes": 1, "closed": false}));
    let raw = server
        .ask(Method::POST, &stdin)
        .header("Content-Type", "application/octet-stream")
        .body(&b"\xff{"[..]);
    let written = answer(raw.send().await.unwrap(), 200).await;
    assert_eq!(written["written_bytes"], 2);
    let body = json!({"data_base64": STANDARD.encode(b"z"), "close": true});
    let written = answer(server.post(&stdin, body).await, 200).await;
    assert_eq!(written, json!({"written_bytes": 1, "closed": true}));

    let piece = eventually("it ends", || async {
        let asked = server.ask(Method::GET, &format!("{process}/output?follow=true"));
        let asked = asked.header("Accept", "application/json");
        let piece = answer(asked.send().await.unwrap(), 200).await;
        piece["exit"].is_object().then_some(piece)
    })
    .await;
    assert_eq!(piece["exit"]["exit_code"], 0);
    assert_eq!(piece["next_offset"], 4);
    let closed = server.post(&stdin, json!({"data": "x"})).await;
    failure(closed, 409, "invalid_state").await;
}

#[tokio::test]
async fn r5_signals_go_by_number_and_by_name() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    for (signal, number) in [(json!(15), 15), (json!("SIGKILL"), 9), (json!("INT"), 2)] {
        let process = server.process(&sandbox, json!({"cmd": "sleep 100"})).await;
        let path = format!("{process}/signal");
        answer(server.post(&path, json!({"signal": signal})).await, 204).await;
        let asked = server.ask(Method::GET, &format!("{process}/output?follow=1"));
        let asked = asked
            .header("Accept", "application/json")
            .send()
            .await
            .unwrap();
        assert_eq!(answer(asked, 200).await["exit"]["signal"], number);
        let ended = server.post(&path, json!({"signal": 15})).await;
        failure(ended, 409, "invalid_state").await;
    }
    let path = format!("{sandbox}/processes/1/signal");
    for bad in [
        json!("SIGNOTHING"),
        json!(0),
        json!(65),
        json!(-9),
        json!(true),
    ] {
        let refused = server.post(&path, json!({"signal": bad})).await;
        failure(refused, 400, "invalid_request").await;
    }
    let nobody = format!("{sandbox}/processes/99999/signal");
    let nobody = server.post(&nobody, json!({"signal": 9}));
    failure(nobody.await, 404, "not_found").await;
}

#[tokio::test]
async fn r5_terminals_are_resized() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let body = json!({"cmd": "cat", "pty": {"rows": 24, "cols": 80}});
    let process = server.process(&sandbox, body).await;
    let path = format!("{process}/resize");
    answer(
        server.post(&path, json!({"rows": 40, "cols": 120})).await,
        204,
    )
    .await;
    for bad in [
        json!({"rows": 0, "cols": 1}),
        json!({"rows": 1}),
        json!({"rows": 99999, "cols": 1}),
    ] {
        failure(server.post(&path, bad).await, 400, "invalid_request").await;
    }
    let plain = server.process(&sandbox, json!({"cmd": "cat"})).await;
    let refused = server
        .post(&format!("{plain}/resize"), json!({"rows": 1, "cols": 1}))
        .await;
    failure(refused, 409, "invalid_state").await;
}

#[tokio::test]
async fn r5_stdin_given_at_the_start_is_all_there_is() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let process = server
        .process(&sandbox, json!({"cmd": "cat", "stdin": ""}))
        .await;
    let asked = server.ask(Method::GET, &format!("{process}/output?follow=true"));
    let asked = asked
        .header("Accept", "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(answer(asked, 200).await["exit"]["exit_code"], 0);
}
