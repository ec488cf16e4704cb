//! R47: each line of the log names the request, and the operation, that it is about.

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use reqwest::Method;
use sandbox_api::Limits;
use sandbox_core::{
    host::HostError,
    sim::{Call, When},
};
use sandbox_host::rpc::{CauseLayer, HostServer, RemoteHost, RemoteHostConfig};
use sandbox_sdk::{
    Client,
    rpc::{self, Listener},
};
use serde_json::{Value, json};
use tracing::{level_filters::LevelFilter, subscriber::DefaultGuard};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{Server, answer, eventually, failure};

/// The log as the daemon writes it, kept where a test can read it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Begins to keep what this thread logs, which is all that a test's runtime does.
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt::layer().json();
        let subscriber = tracing_subscriber::registry()
            .with(LevelFilter::DEBUG)
            .with(CauseLayer)
            .with(lines.with_writer(move || writer.clone()));
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The line with this message, and the fields of all spans around it by `SPAN.FIELD`.
    fn line(&self, message: &str) -> Value {
        let lines = self.lines();
        let line = lines.iter().find(|it| it["fields"]["message"] == message);
        line.unwrap_or_else(|| panic!("{message}: {lines:#?}"))
            .clone()
    }
}

/// A field of a span around a line.
fn spanned<'l>(line: &'l Value, span: &str, field: &str) -> &'l str {
    let spans = line["spans"].as_array().unwrap();
    let span = spans.iter().find(|it| it["name"] == span);
    span.unwrap_or_else(|| panic!("{line:#}"))[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field}: {line:#}"))
}

#[tokio::test]
async fn r47_a_request_and_its_operation_are_joined_in_the_log() {
    let (log, _guard) = Log::begin();
    let server = Server::start().await;
    let asked = server
        .ask(Method::POST, "/v1/sandboxes")
        .header("X-Request-Id", "mine-1");
    let made = answer(asked.send().await.unwrap(), 201).await;
    let line = log.line("the operation is done");
    assert_eq!(spanned(&line, "request", "request_id"), "mine-1");
    assert_eq!(spanned(&line, "request", "route"), "/v1/sandboxes");
    assert_eq!(spanned(&line, "operation", "kind"), "create");
    assert_eq!(spanned(&line, "operation", "sandbox"), made["id"]);
    let id = spanned(&line, "operation", "operation_id");
    let operation = answer(server.get(&format!("/v1/operations/{id}")).await, 200).await;
    assert_eq!(operation["sandbox_id"], made["id"]);
    assert_eq!(operation["status"], "succeeded");
}

#[tokio::test]
async fn r47_work_that_outlives_its_request_still_names_it() {
    let (log, _guard) = Log::begin();
    let server = Server::start().await;
    let asked = server
        .ask(Method::POST, "/v1/sandboxes")
        .header("Prefer", "respond-async")
        .header("X-Request-Id", "mine-2");
    let begun = answer(asked.send().await.unwrap(), 202).await;
    let line = eventually("the operation ends", || async {
        let lines = log.lines();
        let mut lines = lines.into_iter();
        lines.find(|line| line["fields"]["message"] == "the operation is done")
    })
    .await;
    assert_eq!(spanned(&line, "request", "request_id"), "mine-2");
    assert_eq!(
        spanned(&line, "operation", "operation_id"),
        begun["operation"]["id"]
    );
}

#[tokio::test]
async fn r33_r47_a_failure_is_found_by_its_error_id_and_names_its_request() {
    let (log, _guard) = Log::begin();
    let server = Server::start().await;
    let broken = HostError::Internal("/var/lib/sandbox is gone".to_owned());
    server.host.fail(Call::Create, When::Before, broken);
    let refused = server.post("/v1/sandboxes", json!({})).await;
    let request_id = refused.headers()["x-request-id"].clone();
    let message = failure(refused, 502, "host_error").await;
    let line = log.line("a request failed");
    let error_id = line["fields"]["error_id"].as_str().unwrap();
    assert!(message.contains(error_id), "{message}");
    assert!(line["fields"]["detail"].as_str().unwrap().contains("gone"));
    assert_eq!(spanned(&line, "request", "request_id"), request_id);
    let line = log.line("the operation failed");
    assert_eq!(spanned(&line, "request", "request_id"), request_id);
}

#[tokio::test]
async fn r33_r47_so_is_a_failure_over_tarpc() {
    let (log, _guard) = Log::begin();
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let client = client_of(&server, folder.path()).await;
    let broken = HostError::Internal("/var/lib/sandbox is gone".to_owned());
    server.host.fail(Call::Create, When::Before, broken);
    let told = client.create().await.unwrap_err().to_string();
    assert!(!told.contains("/var"), "{told}");
    let line = log.line("a request failed");
    let error_id = line["fields"]["error_id"].as_str().unwrap();
    assert!(told.contains(error_id), "{told}");
    assert!(line["fields"]["detail"].as_str().unwrap().contains("gone"));
    assert!(spanned(&line, "request", "request_id").starts_with("req-"));
}

/// A client of the server's other door.
async fn client_of(server: &Server, folder: &Path) -> Client {
    let address = format!("unix:{}", folder.join("socket").display());
    let door = Listener::bind(&address).await.unwrap();
    let remote = rpc::Server::new(server.api(), None);
    tokio::spawn(async move { remote.serve(door, std::future::pending()).await });
    Client::connect(address).await.unwrap()
}

#[tokio::test]
async fn r47_a_request_over_tarpc_is_joined_to_its_operation_too() {
    let (log, _guard) = Log::begin();
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let client = client_of(&server, folder.path()).await;
    let sandbox = client.create().await.unwrap();
    let made = log.line("the operation is done");
    let create = spanned(&made, "request", "request_id").to_owned();
    assert!(create.starts_with("req-"), "{create}");
    assert_eq!(
        spanned(&made, "operation", "sandbox"),
        sandbox.id().to_string()
    );
    sandbox.destroy().await.unwrap();
    let mut lines = log.lines().into_iter();
    let removed = lines.rfind(|line| line["fields"]["message"] == "the operation is done");
    let removed = removed.unwrap();
    assert_eq!(spanned(&removed, "operation", "kind"), "destroy");
    assert_ne!(spanned(&removed, "request", "request_id"), create);
}

/// A server whose host is behind a socket, as another process is.
async fn with_a_host_elsewhere(folder: &Path) -> Server {
    let address = format!("unix:{}", folder.join("hostd.sock").display());
    let door = Listener::bind(&address).await.unwrap();
    Server::reaching(Limits::default(), |host| {
        let hostd = HostServer::new(Arc::new(host), None);
        tokio::spawn(async move { hostd.serve(door, std::future::pending()).await });
        Arc::new(RemoteHost::new(RemoteHostConfig::new(address)).unwrap())
    })
    .await
}

impl Log {
    /// The line that the host's daemon writes about a call, of which there is one.
    fn on_the_host(&self, call: &str) -> Value {
        let lines = self.lines();
        let mut calls = lines
            .iter()
            .filter(|line| line["fields"]["message"] == "answered" && line["span"]["call"] == call);
        let line = calls.next().unwrap_or_else(|| panic!("{call}: {lines:#?}"));
        assert_eq!(calls.next(), None);
        line.clone()
    }
}

#[tokio::test]
async fn r47_a_request_and_its_operation_are_named_by_the_host_s_daemon_too() {
    let (log, _guard) = Log::begin();
    let folder = tempfile::tempdir().unwrap();
    let server = with_a_host_elsewhere(folder.path()).await;
    let asked = server
        .ask(Method::POST, "/v1/sandboxes")
        .header("X-Request-Id", "mine-3");
    let made = answer(asked.send().await.unwrap(), 201).await;
    let operation = log.line("the operation is done");
    let operation = spanned(&operation, "operation", "operation_id");
    let line = log.on_the_host("HostRpc.create_sandbox");
    assert_eq!(line["span"]["request_id"], "mine-3");
    assert_eq!(line["span"]["operation_id"], operation);

    let path = format!("/v1/sandboxes/{}/exec", made["id"].as_str().unwrap());
    let asked = server
        .ask(Method::POST, &path)
        .header("X-Request-Id", "mine-4")
        .json(&json!({"cmd": "true"}));
    answer(asked.send().await.unwrap(), 200).await;
    let line = log.on_the_host("HostRpc.start_process");
    assert_eq!(line["span"]["request_id"], "mine-4");
    assert_eq!(line["span"]["operation_id"], Value::Null);

    // What nobody asked for has an ID of its own.
    let line = log.lines().into_iter().find(|line| {
        line["fields"]["message"] == "answered" && line["span"]["call"] == "HostRpc.host_info"
    });
    let id = line.unwrap()["span"]["request_id"].clone();
    assert!(id.as_str().unwrap().starts_with("req-"), "{id}");
}
