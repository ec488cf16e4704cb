use std::time::Duration;

use reqwest::Method;
use sandbox_core::{
    host::HostError,
    sim::{Call, When},
};
use serde_json::json;

use crate::support::{LONG, Server, answer, failure};

#[tokio::test]
async fn r47_health_needs_no_key() {
    let server = Server::start().await;
    for path in ["/healthz", "/readyz"] {
        let healthy = server.bare(Method::GET, path).send().await.unwrap();
        assert_eq!(answer(healthy, 200).await["status"], "ok");
    }
}

#[tokio::test]
async fn r47_a_daemon_whose_host_does_not_answer_is_not_ready() {
    let server = Server::start().await;
    let down = HostError::Unavailable("/secret".to_owned());
    server.host.fail(Call::Hello, When::Before, down);
    let message = failure(server.get("/readyz").await, 503, "unavailable").await;
    assert!(
        message.contains("host") && !message.contains("secret"),
        "{message}"
    );
    answer(server.get("/readyz").await, 200).await;
}

#[tokio::test]
async fn r47_requests_are_counted_by_route_and_status() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    answer(server.get(&sandbox).await, 200).await;
    failure(server.get("/v1/nothing").await, 404, "not_found").await;
    let scraped = server.bare(Method::GET, "/metrics").send().await.unwrap();
    let kind = scraped.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = scraped.text().await.unwrap();
    for line in [
        "sandboxd_http_requests_total{method=\"POST\",route=\"/v1/sandboxes\",status=\"201\"} 1",
        "sandboxd_http_requests_total{method=\"GET\",route=\"/v1/sandboxes/{id}\",status=\"200\"} 1",
        "sandboxd_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "sandboxd_http_connections 1",
    ] {
        assert!(text.lines().any(|got| got == line), "{line}: {text}");
    }
    // IDs never become labels.
    assert!(!text.contains("sb-"), "{text}");
}

#[tokio::test]
async fn r47_sandboxes_are_counted_by_state_and_operations_by_outcome() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    server.sandbox().await;
    answer(server.delete(&sandbox).await, 204).await;
    let broken = HostError::Boot("no".to_owned());
    server.host.fail(Call::Create, When::Before, broken);
    failure(
        server.post("/v1/sandboxes", json!({})).await,
        502,
        "host_error",
    )
    .await;
    let scraped = server.bare(Method::GET, "/metrics").send().await.unwrap();
    let text = scraped.text().await.unwrap();
    for line in [
        "sandboxd_sandboxes{state=\"running\"} 1",
        "sandboxd_sandboxes{state=\"paused\"} 0",
        "sandboxd_operations_total{kind=\"create\",outcome=\"succeeded\"} 2",
        "sandboxd_operations_total{kind=\"create\",outcome=\"failed\"} 1",
        "sandboxd_operations_total{kind=\"destroy\",outcome=\"succeeded\"} 1",
        "sandboxd_operation_duration_seconds_count{kind=\"create\"} 3",
        concat!(
            "sandboxd_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
    ] {
        assert!(text.lines().any(|got| got == line), "{line}: {text}");
    }
}

#[tokio::test]
async fn r47_scrapes_in_a_row_ask_the_store_once_and_a_silent_store_spoils_none() {
    let server = Server::start().await;
    let scrape = || async {
        let scraped = server.bare(Method::GET, "/metrics").send().await.unwrap();
        assert_eq!(scraped.status(), 200);
        scraped.text().await.unwrap()
    };
    let running = |count| format!("sandboxd_sandboxes{{state=\"running\"}} {count}\n");
    server.store.slow_down(LONG);
    let text = scrape().await;
    assert!(text.contains("sandboxd_http_connections 1"), "{text}");
    assert!(!text.contains("sandboxd_sandboxes{"), "{text}");
    server.store.slow_down(Duration::ZERO);
    assert!(scrape().await.contains(&running(0)));
    server.sandbox().await;
    let asked = server.store.transactions();
    assert!(scrape().await.contains(&running(0)), "some seconds old");
    assert_eq!(server.store.transactions(), asked);
}

#[tokio::test]
async fn r47_a_daemon_whose_store_does_not_answer_is_not_ready() {
    let server = Server::start().await;
    server.store.slow_down(LONG);
    let message = failure(server.get("/readyz").await, 503, "unavailable").await;
    assert!(message.contains("store"), "{message}");
    answer(server.get("/healthz").await, 200).await;
    server.store.slow_down(Duration::ZERO);
    answer(server.get("/readyz").await, 200).await;
}

#[tokio::test]
async fn r47_request_ids_come_back_or_are_made() {
    let server = Server::start().await;
    let given = server
        .bare(Method::GET, "/healthz")
        .header("X-Request-Id", "mine-1")
        .send()
        .await
        .unwrap();
    assert_eq!(given.headers()["x-request-id"], "mine-1");
    let long = "x".repeat(1000);
    for odd in ["", "two words", "\"quoted\"", &long] {
        let asked = server
            .bare(Method::GET, "/v1/nothing")
            .header("X-Request-Id", odd);
        let made = asked.send().await.unwrap();
        let id = made.headers()["x-request-id"].to_str().unwrap();
        assert!(id.starts_with("req-"), "{id}");
    }
}

#[tokio::test]
async fn the_page_to_read_the_document_by_loads_nothing_from_elsewhere() {
    let server = Server::start().await;
    let page = server.bare(Method::GET, "/docs").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"));
    let text = page.text().await.unwrap();
    assert!(text.contains("/openapi.json"));
    assert!(!text.contains("https://"), "{text}");
}
