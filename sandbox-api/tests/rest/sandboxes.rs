use std::time::Duration;

use reqwest::Method;
use sandbox_core::{
    host::HostError,
    sim::{Call, When},
};
use serde_json::{Value, json};

use crate::support::{Server, answer, eventually, failure};

#[tokio::test]
async fn r4_a_sandbox_has_the_fields_that_are_fixed() {
    let server = Server::start().await;
    let created = server.post("/v1/sandboxes", json!({})).await;
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    let created = answer(created, 201).await;
    assert_eq!(
        location,
        format!("/v1/sandboxes/{}", created["id"].as_str().unwrap())
    );
    assert_eq!(created["state"], "running");
    assert_eq!(created["template"], "minimal");
    assert_eq!(created["vcpus"], 1);
    assert_eq!(created["memory_mb"], 512);
    assert_eq!(created["disk_size_mb"], 5120);
    assert_eq!(created["timeout_sec"], Value::Null);
    assert_eq!(created["metadata"], json!({}));
    assert_eq!(created["expires_at"], Value::Null);
    assert!(created["host_id"].as_str().unwrap().starts_with("host-"));
    for time in ["created_at", "started_at"] {
        assert!(created[time].as_str().unwrap().ends_with('Z'), "{created}");
    }
    assert_eq!(answer(server.get(&location).await, 200).await, created);
}

#[tokio::test]
async fn r4_what_is_asked_for_is_what_is_made() {
    let server = Server::start().await;
    server.image("other").await;
    let asked = json!({
        "template": "other", "vcpus": 2, "memory_mb": 1024, "disk_size_mb": 8192,
        "timeout_sec": 60, "metadata": {"a": "1"}, "env": {"MODE": "test"},
    });
    let made = answer(server.post("/v1/sandboxes", asked.clone()).await, 201).await;
    for field in [
        "template",
        "vcpus",
        "memory_mb",
        "disk_size_mb",
        "timeout_sec",
        "metadata",
    ] {
        assert_eq!(made[field], asked[field], "{field}");
    }
    assert!(made["expires_at"].is_string());
    let path = format!("/v1/sandboxes/{}/exec", made["id"].as_str().unwrap());
    let output = answer(
        server.post(&path, json!({"cmd": "printenv MODE"})).await,
        200,
    )
    .await;
    assert_eq!(output["stdout"], "test\n");
}

#[tokio::test]
async fn no_body_at_all_makes_a_default_sandbox() {
    let server = Server::start().await;
    let created = server
        .ask(Method::POST, "/v1/sandboxes")
        .send()
        .await
        .unwrap();
    answer(created, 201).await;
}

#[tokio::test]
async fn r10_trap_38_one_idempotency_key_makes_one_sandbox() {
    let server = Server::start().await;
    let create = |body: Value| {
        let asked = server.ask(Method::POST, "/v1/sandboxes");
        asked.header("Idempotency-Key", "k").json(&body).send()
    };
    let (one, two) = tokio::join!(create(json!({})), create(json!({})));
    let one = answer(one.unwrap(), 201).await;
    let two = answer(two.unwrap(), 201).await;
    let three = answer(create(json!({})).await.unwrap(), 201).await;
    assert_eq!(one["id"], two["id"]);
    assert_eq!(one["id"], three["id"]);
    failure(create(json!({"vcpus": 2})).await.unwrap(), 409, "conflict").await;
    assert_eq!(server.host.machines().len(), 1);
}

#[tokio::test]
async fn lists_come_page_by_page_and_filtered() {
    let server = Server::start().await;
    server.image("other").await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let body = json!({
            "template": if number == 0 { "other" } else { "minimal" },
            "metadata": {"parity": if number % 2 == 0 { "even" } else { "odd" }},
        });
        let made = answer(server.post("/v1/sandboxes", body).await, 201).await;
        ids.push(made["id"].clone());
    }
    let mut seen = Vec::new();
    let mut path = "/v1/sandboxes?limit=2".to_owned();
    loop {
        let page = answer(server.get(&path).await, 200).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert!(page["next_cursor"].is_null());
            break;
        };
        path = format!("/v1/sandboxes?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ids);
    for (query, count) in [
        ("state=running", 5),
        ("state=paused", 0),
        ("template=other", 1),
        ("metadata.parity=even", 3),
        ("metadata=parity:odd", 2),
        ("metadata.parity=even&template=other&state=running", 1),
        ("metadata.parity=even&metadata.x=y", 0),
    ] {
        let page = answer(server.get(&format!("/v1/sandboxes?{query}")).await, 200).await;
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test]
async fn r9_delete_is_done_twice_as_well_as_once() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    answer(server.delete(&sandbox).await, 204).await;
    answer(server.delete(&sandbox).await, 204).await;
    failure(server.get(&sandbox).await, 404, "not_found").await;
    assert_eq!(server.host.machines(), []);
    let never = "/v1/sandboxes/sb-00000000-0000-7000-8000-000000000000";
    failure(server.delete(never).await, 404, "not_found").await;
}

#[tokio::test]
async fn r8_ping_pushes_the_deadline() {
    let server = Server::start().await;
    let made = answer(
        server
            .post("/v1/sandboxes", json!({"timeout_sec": 100}))
            .await,
        201,
    )
    .await;
    let path = format!("/v1/sandboxes/{}", made["id"].as_str().unwrap());
    eventually("the deadline moves", || async {
        let pinged = server.post(&format!("{path}/ping"), json!({})).await;
        let pinged = answer(pinged, 200).await;
        (pinged["expires_at"].as_str() > made["expires_at"].as_str()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn r15_work_goes_on_when_the_client_has_gone() {
    let server = Server::start().await;
    server.host.delay(Call::Create, Duration::from_millis(500));
    let create = server
        .ask(Method::POST, "/v1/sandboxes")
        .timeout(Duration::from_millis(100));
    assert!(create.send().await.unwrap_err().is_timeout());
    eventually("the sandbox runs", || async {
        let page = answer(server.get("/v1/sandboxes?state=running").await, 200).await;
        (page["items"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn r15_who_does_not_wait_finds_the_outcome_under_the_operation() {
    let server = Server::start().await;
    server.host.delay(Call::Create, Duration::from_millis(300));
    let begin = || {
        let asked = server.ask(Method::POST, "/v1/sandboxes");
        asked.header("Prefer", "respond-async").send()
    };
    let begun = answer(begin().await.unwrap(), 202).await;
    assert_eq!(begun["state"], "pending");
    assert_eq!(begun["operation"]["kind"], "create");
    let path = format!(
        "/v1/operations/{}",
        begun["operation"]["id"].as_str().unwrap()
    );
    let running = answer(server.get(&path).await, 200).await;
    assert_eq!(running["status"], "running");
    assert_eq!(running["sandbox_id"], begun["id"]);
    let done = eventually("the operation ends", || async {
        let operation = answer(server.get(&path).await, 200).await;
        (operation["status"] != "running").then_some(operation)
    })
    .await;
    assert_eq!(done["status"], "succeeded");
    assert!(done["finished_at"].is_string());
    assert_eq!(done["error"], Value::Null);

    let secret = HostError::Boot("/secret/path".to_owned());
    server.host.fail(Call::Create, When::Before, secret);
    let begun = answer(begin().await.unwrap(), 202).await;
    let path = format!(
        "/v1/operations/{}",
        begun["operation"]["id"].as_str().unwrap()
    );
    let failed = eventually("the operation ends", || async {
        let operation = answer(server.get(&path).await, 200).await;
        (operation["status"] != "running").then_some(operation)
    })
    .await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"]["code"], "host_error");
    assert!(!failed.to_string().contains("secret"), "{failed}");
}

#[tokio::test]
async fn r33_a_failing_host_is_reported_without_its_secrets() {
    let server = Server::start().await;
    for (error, status, code) in [
        (HostError::Boot("/secret".to_owned()), 502, "host_error"),
        (HostError::Internal("/secret".to_owned()), 502, "host_error"),
        (
            HostError::Capacity("/secret".to_owned()),
            503,
            "host_unavailable",
        ),
        (
            HostError::NotSetUp {
                missing: "/secret".to_owned(),
                mend: "/secret".to_owned(),
            },
            503,
            "host_unavailable",
        ),
    ] {
        server.host.fail(Call::Create, When::Before, error);
        let message = failure(server.post("/v1/sandboxes", json!({})).await, status, code).await;
        assert!(!message.contains("secret"), "{message}");
        assert!(message.contains("err-"), "{message}");
    }
    let down = HostError::Unavailable("/secret".to_owned());
    server.host.fail_always(Call::Create, When::Before, down);
    let refused = server.post("/v1/sandboxes", json!({})).await;
    let message = failure(refused, 503, "unavailable").await;
    assert!(!message.contains("secret"), "{message}");
}

#[tokio::test]
async fn a_template_that_is_not_there_is_not_found() {
    let server = Server::start().await;
    let refused = server
        .post("/v1/sandboxes", json!({"template": "nope"}))
        .await;
    let message = failure(refused, 404, "not_found").await;
    assert!(message.contains("nope"));
}

#[tokio::test]
async fn a_sandbox_that_ended_is_in_the_wrong_state_for_commands() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let id = server.host.machines()[0].id;
    server.host.end_machine(id, "the guest powered off");
    eventually("the sandbox stops", || async {
        let record = answer(server.get(&sandbox).await, 200).await;
        (record["state"] == "stopped").then_some(())
    })
    .await;
    eventually("the platform's short memory ends", || async {
        let refused = server
            .post(&format!("{sandbox}/exec"), json!({"cmd": "true"}))
            .await;
        (refused.status() == 409).then_some(())
    })
    .await;
    let refused = server.post(&format!("{sandbox}/ping"), json!({})).await;
    failure(refused, 409, "invalid_state").await;
    answer(server.delete(&sandbox).await, 204).await;
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let refused = server.get(&format!("{sandbox}/files/watch?path=/")).await;
    failure(refused, 501, "unsupported").await;
}
