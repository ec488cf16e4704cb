//! R42: bad input of any kind gets a 4xx with a code and a message that helps, and changes nothing.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{KEY, Server, answer, failure};

async fn refused(server: &Server, path: &str, body: Value) -> String {
    failure(server.post(path, body).await, 400, "invalid_request").await
}

#[tokio::test]
async fn r42_a_field_that_makes_no_sense_is_named() {
    let server = Server::start().await;
    for (body, named) in [
        (json!({"colour": "red"}), "colour"),
        (json!({"vcpus": 0}), "vcpus"),
        (json!({"vcpus": "one"}), "vcpus"),
        (json!({"vcpus": 1.5}), "vcpus"),
        (json!({"vcpus": 1_000_000_000_000_u64}), "vcpus"),
        (json!({"memory_mb": -1}), "memory_mb"),
        (json!({"disk_size_mb": u32::MAX}), "disk_size_mb"),
        (json!({"timeout_sec": 0}), "timeout_sec"),
        (json!({"template": "../../etc"}), "template"),
        (json!({"metadata": []}), "metadata"),
        (json!({"metadata": {"a": 1}}), "metadata"),
        (json!({"env": {"A=B": "x"}}), "env"),
    ] {
        let message = refused(&server, "/v1/sandboxes", body).await;
        assert!(message.contains(named), "{message}");
    }
    for body in [json!([]), json!("x"), json!(1), Value::Null] {
        refused(&server, "/v1/sandboxes", body).await;
    }
    assert_eq!(server.host.machines(), []);
}

#[tokio::test]
async fn r42_commands_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    for (body, named) in [
        (json!({}), "cmd"),
        (json!({"cmd": ""}), "cmd"),
        (json!({"cmd": ["a"]}), "cmd"),
        (json!({"cmd": "true", "args": "x"}), "args"),
        (json!({"cmd": "true", "cwd": "relative"}), "cwd"),
        (json!({"cmd": "true", "user": ""}), "user"),
        (json!({"cmd": "true", "timeout_sec": 0}), "timeout_sec"),
        (json!({"cmd": "true", "timeout_sec": -1}), "timeout_sec"),
        (
            json!({"cmd": "true", "stdin": "a", "stdin_base64": "YQ=="}),
            "stdin",
        ),
        (json!({"cmd": "true", "stdin_base64": "?"}), "stdin_base64"),
        (json!({"cmd": "true\0"}), "cmd"),
        (json!({"cmd": "true", "pty": {"rows": 1, "cols": 1}}), "pty"),
    ] {
        let message = refused(&server, &format!("{sandbox}/exec"), body).await;
        assert!(message.contains(named), "{message}");
    }
}

#[tokio::test]
async fn r42_malformed_bodies_are_refused() {
    let server = Server::start().await;
    let post = |body: &'static [u8], kind: Option<&'static str>| {
        let mut asked = server.ask(Method::POST, "/v1/sandboxes").body(body);
        if let Some(kind) = kind {
            asked = asked.header("Content-Type", kind);
        }
        asked.send()
    };
    let json = Some("application/json");
    for (body, kind) in [
        (&b"{"[..], json),
        (b"{} {}", json),
        (b"nonsense", json),
        (b"\xff\xfe", json),
        (b"{\"vcpus\": 1, \"vcpus\": 2}", json),
        (b"vcpus=1", Some("application/x-www-form-urlencoded")),
        (b"{}", Some("text/plain")),
        (b"{}", None),
    ] {
        failure(post(body, kind).await.unwrap(), 400, "invalid_request").await;
    }
    let deep: &'static [u8] = "[".repeat(100_000).leak().as_bytes();
    failure(post(deep, json).await.unwrap(), 400, "invalid_request").await;
    let charset = Some("application/json; charset=utf-8");
    answer(post(b"{}", charset).await.unwrap(), 201).await;
}

#[tokio::test]
async fn r42_ids_of_the_wrong_form_are_refused() {
    let server = Server::start().await;
    for path in [
        "/v1/sandboxes/x",
        "/v1/sandboxes/op-0190163d-8694-739b-aea5-966c26f8ad91",
        "/v1/sandboxes/sb-0190163D-8694-739b-aea5-966c26f8ad91",
        "/v1/sandboxes/%00",
        "/v1/operations/sb-0190163d-8694-739b-aea5-966c26f8ad91",
        "/v1/sandboxes/sb-0190163d-8694-739b-aea5-966c26f8ad91/processes/x/output",
        "/v1/sandboxes/sb-0190163d-8694-739b-aea5-966c26f8ad91/processes/-1/output",
        "/v1/sandboxes?limit=0",
        "/v1/sandboxes?limit=1001",
        "/v1/sandboxes?limit=x",
        "/v1/sandboxes?limit=1&limit=2",
        "/v1/sandboxes?state=asleep",
        "/v1/sandboxes?colour=red",
        "/v1/sandboxes?cursor=x",
    ] {
        failure(server.get(path).await, 400, "invalid_request").await;
    }
    let unknown = "/v1/sandboxes/sb-0190163d-8694-739b-aea5-966c26f8ad91";
    failure(server.get(unknown).await, 404, "not_found").await;
    let unknown = "/v1/operations/op-0190163d-8694-739b-aea5-966c26f8ad91";
    failure(server.get(unknown).await, 404, "not_found").await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_answer_in_the_same_form() {
    let server = Server::start().await;
    for path in ["/", "/v1", "/v1/nothing", "/v2/sandboxes", "/v1/sandboxes/"] {
        failure(server.get(path).await, 404, "not_found").await;
    }
    for (method, path) in [
        (Method::PUT, "/v1/sandboxes"),
        (Method::PATCH, "/v1/sandboxes"),
        (Method::POST, "/healthz"),
        (Method::DELETE, "/openapi.json"),
    ] {
        let refused = server.ask(method, path).send().await.unwrap();
        assert!(refused.headers().contains_key("allow"), "{path}");
        failure(refused, 405, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_answer_arrives() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let large = json!({"cmd": "cat", "stdin": "x".repeat(20 * 1024 * 1024)});
    let refused = server.post(&format!("{sandbox}/exec"), large).await;
    failure(refused, 413, "too_large").await;
    // Without its length said beforehand.
    let pieces =
        futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024])));
    let asked = server
        .ask(Method::POST, "/v1/sandboxes")
        .header("Content-Type", "application/json")
        .body(reqwest::Body::wrap_stream(pieces));
    failure(asked.send().await.unwrap(), 413, "too_large").await;
    let unauthorized = server
        .bare(Method::PUT, &format!("{sandbox}/files?path=/x"))
        .body(vec![0; 20 * 1024 * 1024]);
    failure(unauthorized.send().await.unwrap(), 401, "unauthorized").await;
}

#[tokio::test]
async fn the_longest_stdin_fits_also_as_base64() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let bytes = vec![0xff; 4 * 1024 * 1024];
    let body = json!({"cmd": "cat", "stdin_base64": STANDARD.encode(&bytes)});
    let output = answer(server.post(&format!("{sandbox}/exec"), body).await, 200).await;
    assert_eq!(output["encoding"], "base64");
    assert_eq!(
        STANDARD.decode(output["stdout"].as_str().unwrap()).unwrap(),
        bytes
    );
}

#[tokio::test]
async fn headers_that_make_no_sense_are_refused() {
    let server = Server::start().await;
    for value in [&b""[..], &[b'k'; 256], b"\xff"] {
        let asked = server
            .ask(Method::POST, "/v1/sandboxes")
            .header("Idempotency-Key", value);
        failure(asked.send().await.unwrap(), 400, "invalid_request").await;
    }
    assert_eq!(server.host.machines(), []);
}

#[tokio::test]
async fn what_is_not_http_is_told_so_or_closed() {
    let server = Server::start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"nonsense nonsense nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let answer = server.raw(bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    let head = format!("GET /v1/sandboxes HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n");
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = server.raw(format!("{head}{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long = "y".repeat(1024 * 1024);
    let answer = server
        .raw(format!("{head}x-long: {long}\r\n\r\n").as_bytes())
        .await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}
