//! Pausing, snapshots, templates and imports.

use std::time::Duration;

use reqwest::Method;
use sandbox_core::{
    host::HostError,
    sim::{Call, When},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{KEY, Server, answer, eventually, failure};

/// Long enough to look in the middle of.
const WORK: Duration = Duration::from_millis(400);

fn id_of(sandbox: &str) -> &str {
    sandbox.rsplit('/').next().unwrap()
}

impl Server {
    async fn state(&self, sandbox: &str) -> Value {
        answer(self.get(sandbox).await, 200).await["state"].clone()
    }

    /// The outcome of an operation.
    async fn ended(&self, id: &str) -> Value {
        eventually("the operation ends", || async {
            let operation = self.get(&format!("/v1/operations/{id}")).await;
            let operation = answer(operation, 200).await;
            (operation["status"] != "running").then_some(operation)
        })
        .await
    }

    async fn names(&self, query: &str) -> Vec<String> {
        let listed = answer(self.get(query).await, 200).await;
        let items = listed["items"].as_array().unwrap().iter();
        let mut names: Vec<_> = items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn r12_pause_and_resume_answer_with_the_sandbox_and_are_done_twice_as_well_as_once() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    for (path, state) in [("pause", "paused"), ("resume", "running")] {
        for _ in 0..2 {
            let turned = server.post(&format!("{sandbox}/{path}"), json!({})).await;
            let turned = answer(turned, 200).await;
            assert_eq!(turned["state"], state);
            assert_eq!(turned["operation"], Value::Null);
        }
        assert_eq!(server.state(&sandbox).await, state);
    }
    answer(
        server.post(&format!("{sandbox}/pause"), json!({})).await,
        200,
    )
    .await;
    let path = format!("{sandbox}/exec");
    let exec = server.post(&path, json!({"cmd": "true"}));
    let message = failure(exec.await, 409, "invalid_state").await;
    assert!(message.contains("paused"), "{message}");
    assert_eq!(
        server.names("/v1/templates").await,
        ["minimal"],
        "pausing makes no template"
    );
    let paused = answer(server.get("/v1/sandboxes?state=paused").await, 200).await;
    assert_eq!(paused["items"].as_array().unwrap().len(), 1);

    let nobody = "/v1/sandboxes/sb-00000000-0000-7000-8000-000000000000/pause";
    failure(server.post(nobody, json!({})).await, 404, "not_found").await;
    let get = server.get(&format!("{sandbox}/pause")).await;
    failure(get, 405, "invalid_request").await;
}

#[tokio::test]
async fn r13_a_host_that_can_t_pause_leaves_the_sandbox_as_it_says() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let broken = HostError::Internal("secret".to_owned());
    server.host.fail(Call::Pause, When::Before, broken);
    let paused = server.post(&format!("{sandbox}/pause"), json!({})).await;
    let message = failure(paused, 502, "host_error").await;
    assert!(!message.contains("secret"), "{message}");
    assert_eq!(server.state(&sandbox).await, "running");
}

#[tokio::test]
async fn r14_a_snapshot_has_the_fields_that_are_fixed_and_its_clones_start_from_it() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let body = json!({"sandbox_id": id_of(&sandbox), "name": "warm"});
    let made = server.post("/v1/snapshots", body).await;
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    let made = answer(made, 201).await;
    let fields: Vec<_> = made.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "created_at",
            "disk_size_mb",
            "id",
            "memory_mb",
            "name",
            "platform",
            "size_bytes",
            "team_id",
            "type",
            "vcpus"
        ]
    );
    assert_eq!(
        (&made["name"], &made["type"]),
        (&json!("warm"), &json!("snapshot"))
    );
    // An administrator's sandbox is the platform's, and so is what is made of it.
    assert_eq!(made["platform"], true);
    assert_eq!(
        (&made["vcpus"], &made["memory_mb"]),
        (&json!(1), &json!(512))
    );
    assert_eq!(made["disk_size_mb"], 5120);
    assert!(made["size_bytes"].as_u64().unwrap() > 0);
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        location,
        format!("/v1/templates/{}", made["id"].as_str().unwrap())
    );
    for path in [location.as_str(), "/v1/templates/warm"] {
        assert_eq!(answer(server.get(path).await, 200).await, made);
    }
    assert_eq!(server.state(&sandbox).await, "paused");

    for template in [&made["name"], &made["id"]] {
        let clone = server.post("/v1/sandboxes", json!({"template": template}));
        assert_eq!(answer(clone.await, 201).await["template"], "warm");
    }
    let other_size = json!({"template": "warm", "memory_mb": 1024});
    let message = server.post("/v1/sandboxes", other_size).await;
    let message = failure(message, 400, "invalid_request").await;
    assert!(message.contains("`memory_mb`"), "{message}");
}

#[tokio::test]
async fn r14_a_snapshot_may_leave_its_origin_running_and_take_the_disk_alone() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let id = id_of(&sandbox);
    let body = json!({"sandbox_id": id, "name": "disk", "type": "image", "resume": true});
    let made = answer(server.post("/v1/snapshots", body.clone()).await, 201).await;
    assert_eq!(made["type"], "image");
    assert_eq!(server.state(&sandbox).await, "running");
    let taken = server.post("/v1/snapshots", body).await;
    let message = failure(taken, 409, "already_exists").await;
    assert!(message.contains("disk"), "{message}");
    // A name is made up where none is given.
    let unnamed = server.post("/v1/snapshots", json!({"sandbox_id": id}));
    let unnamed = answer(unnamed.await, 201).await;
    assert!(unnamed["name"].as_str().unwrap().starts_with("snap-"));
    let booted = json!({"template": "disk", "memory_mb": 1024});
    answer(server.post("/v1/sandboxes", booted).await, 201).await;
}

#[tokio::test]
async fn r23_templates_are_listed_by_type_and_page_by_page() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    for (name, kind) in [("a", "image"), ("b", "snapshot"), ("c", "snapshot")] {
        let body = json!({"sandbox_id": id_of(&sandbox), "name": name, "type": kind});
        answer(server.post("/v1/snapshots", body).await, 201).await;
    }
    for path in ["/v1/snapshots", "/v1/templates", "/v1/admin/templates"] {
        assert_eq!(server.names(path).await, ["a", "b", "c", "minimal"]);
        let images = server.names(&format!("{path}?type=image")).await;
        assert_eq!(images, ["a", "minimal"]);
        let snapshots = server.names(&format!("{path}?type=snapshot")).await;
        assert_eq!(snapshots, ["b", "c"]);
        let mut seen = Vec::new();
        let mut next = format!("{path}?limit=1");
        loop {
            let page = answer(server.get(&next).await, 200).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 1);
            seen.extend(
                items
                    .iter()
                    .map(|it| it["name"].as_str().unwrap().to_owned()),
            );
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            next = format!("{path}?limit=1&cursor={cursor}");
        }
        seen.sort();
        assert_eq!(seen, ["a", "b", "c", "minimal"]);
        for bad in ["type=disk", "limit=0", "limit=x", "cursor=x", "colour=red"] {
            let refused = server.get(&format!("{path}?{bad}")).await;
            failure(refused, 400, "invalid_request").await;
        }
    }
}

#[tokio::test]
async fn r25_r26_administrators_see_who_uses_a_template_and_a_used_one_is_not_lost() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let body = json!({"sandbox_id": id_of(&sandbox), "name": "warm"});
    let made = answer(server.post("/v1/snapshots", body).await, 201).await;
    let clone = server.post("/v1/sandboxes", json!({"template": "warm"}));
    let clone = answer(clone.await, 201).await;
    let all = answer(server.get("/v1/admin/templates?type=snapshot").await, 200).await;
    let one = &all["items"][0];
    assert_eq!(one["in_use_by"], json!([clone["id"]]));
    for field in made.as_object().unwrap().keys() {
        assert_eq!(one[field], made[field], "{field}");
    }
    let parts = one["disk_bytes"].as_u64().unwrap() + one["memory_bytes"].as_u64().unwrap();
    assert_eq!(one["size_bytes"], parts);

    answer(server.delete("/v1/snapshots/warm").await, 204).await;
    failure(server.get("/v1/templates/warm").await, 404, "not_found").await;
    failure(server.delete("/v1/snapshots/warm").await, 404, "not_found").await;
    assert_eq!(server.names("/v1/snapshots").await, ["minimal"]);
    let again = server.post("/v1/sandboxes", json!({"template": "warm"}));
    failure(again.await, 404, "not_found").await;
    assert_eq!(server.host.images().len(), 1, "its files stay");
    let path = format!("/v1/sandboxes/{}", clone["id"].as_str().unwrap());
    let exec_path = format!("{path}/exec");
    let exec = server.post(&exec_path, json!({"cmd": "true"}));
    assert_eq!(answer(exec.await, 200).await["exit_code"], 0);
    answer(server.delete(&path).await, 204).await;
    eventually("its files go with the last sandbox on them", || async {
        server.host.images().is_empty().then_some(())
    })
    .await;
    failure(
        server.delete("/v1/snapshots/minimal").await,
        403,
        "forbidden",
    )
    .await;
}

#[tokio::test]
async fn r15_a_snapshot_begun_is_answered_at_once_and_found_under_its_operation() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    server.host.delay(Call::Snapshot, WORK);
    for (name, query, prefer) in [
        ("one", "?wait=false", ""),
        ("two", "", "respond-async"),
        ("three", "?wait=0", "respond-async"),
    ] {
        let body = json!({"sandbox_id": id_of(&sandbox), "name": name, "resume": true});
        let asked = server.ask(Method::POST, &format!("/v1/snapshots{query}"));
        let begun = asked.header("Prefer", prefer).json(&body).send();
        let begun = begun.await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let begun = answer(begun, 202).await;
        let id = begun["id"].as_str().unwrap();
        assert_eq!(location, format!("/v1/operations/{id}"));
        assert_eq!(
            (&begun["status"], &begun["kind"]),
            (&json!("running"), &json!("snapshot"))
        );
        // Meanwhile it stands still, and says why.
        let standing = answer(server.get(&sandbox).await, 200).await;
        assert_eq!(standing["state"], "paused");
        assert_eq!(standing["operation"]["id"], begun["id"]);
        let ended = server.ended(id).await;
        assert_eq!(ended["status"], "succeeded");
        let made = answer(server.get(&format!("/v1/templates/{name}")).await, 200).await;
        assert_eq!(ended["template_id"], made["id"]);
        assert_eq!(server.state(&sandbox).await, "running");
    }
}

#[tokio::test]
async fn r15_a_client_that_hangs_up_in_the_middle_changes_nothing() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    server.host.delay(Call::Snapshot, WORK);
    let body = json!({"sandbox_id": id_of(&sandbox), "name": "warm"}).to_string();
    let request = format!(
        "POST /v1/snapshots HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let operation = eventually("it is at work", || async {
        let standing = answer(server.get(&sandbox).await, 200).await;
        standing["operation"]["id"].as_str().map(str::to_owned)
    })
    .await;
    drop(stream);
    eventually("the connection is known to be dead", || async {
        let scraped = server.bare(Method::GET, "/metrics").send().await.unwrap();
        let text = scraped.text().await.unwrap();
        // The one that asks is the only one that is left.
        text.contains("sandboxd_http_connections 1\n").then_some(())
    })
    .await;
    let at_work = server.get(&format!("/v1/operations/{operation}")).await;
    assert_eq!(answer(at_work, 200).await["status"], "running");
    let ended = server.ended(&operation).await;
    assert_eq!(ended["status"], "succeeded");
    assert_eq!(server.names("/v1/snapshots?type=snapshot").await, ["warm"]);
    assert_eq!(server.state(&sandbox).await, "paused");
    assert_eq!(server.host.count(Call::Snapshot), 1);
    // Nothing was answered to the dead: the request is in no count.
    let scraped = server.bare(Method::GET, "/metrics").send().await.unwrap();
    let text = scraped.text().await.unwrap();
    let answered = "sandboxd_http_requests_total{method=\"POST\",route=\"/v1/snapshots\"";
    assert!(!text.contains(answered), "{text}");
}

#[tokio::test]
async fn r15_a_failed_one_says_so_under_its_operation_and_leaves_nothing() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let broken = || HostError::Internal("secret".to_owned());
    server.host.fail(Call::Snapshot, When::During, broken());
    let body = json!({"sandbox_id": id_of(&sandbox), "name": "warm"});
    let begun = server.post("/v1/snapshots?wait=false", body.clone());
    let begun = answer(begun.await, 202).await;
    let ended = server.ended(begun["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["error"]["code"], "host_error");
    assert!(!ended.to_string().contains("secret"), "{ended}");
    assert_eq!(server.names("/v1/snapshots").await, ["minimal"]);
    server.host.fail(Call::Snapshot, When::During, broken());
    failure(
        server.post("/v1/snapshots", body.clone()).await,
        502,
        "host_error",
    )
    .await;
    // The name is free again.
    answer(server.post("/v1/snapshots", body).await, 201).await;
}

#[tokio::test]
async fn r27_an_import_is_answered_at_once_or_when_it_is_done() {
    let server = Server::start().await;
    let source = json!({"type": "tar", "path": "/srv/root.tar"});
    let body = json!({"name": "one", "source": source, "memory_mb": 256});
    let begun = server.post("/v1/admin/templates", body.clone()).await;
    assert!(
        begun.headers()["location"]
            .to_str()
            .unwrap()
            .starts_with("/v1/operations/op-")
    );
    let begun = answer(begun, 202).await;
    assert_eq!(begun["kind"], "import");
    let ended = server.ended(begun["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "succeeded");
    let made = answer(server.get("/v1/templates/one").await, 200).await;
    assert_eq!(ended["template_id"], made["id"]);
    assert_eq!(
        (&made["type"], &made["memory_mb"]),
        (&json!("image"), &json!(256))
    );
    for (number, source) in [
        json!({"type": "directory", "path": "/srv/root"}),
        json!({"type": "oci_layout", "path": "/srv/layout", "reference": "app:1"}),
        json!({"type": "oci_registry", "reference": "registry.example/app:1"}),
        json!({"type": "debian", "suite": "bookworm", "packages": ["python3"]}),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"name": format!("more-{number}"), "source": source});
        let made = server.post("/v1/admin/templates?wait=true", body).await;
        assert!(
            made.headers()["location"]
                .to_str()
                .unwrap()
                .starts_with("/v1/templates/tpl-")
        );
        answer(made, 201).await;
    }
    let taken = server.post("/v1/admin/templates", body).await;
    failure(taken, 409, "already_exists").await;
    let missing = json!({"name": "x", "source": {"type": "tar", "path": "/missing"}});
    let refused = server.post("/v1/admin/templates?wait=true", missing).await;
    failure(refused, 400, "invalid_request").await;
}

/// What an import holds is not in its request, so the simulated host must not refuse by it.
#[tokio::test]
async fn r43_an_import_onto_the_smallest_disk_in_the_document_is_one_that_is_done() {
    let server = Server::start().await;
    let document = serde_json::to_value(sandbox_api::openapi()).unwrap();
    let body = "/components/schemas/ImportBody/properties/disk_size_mb/minimum";
    let least = document.pointer(body).unwrap();
    let source = json!({"type": "directory", "path": "/srv/root"});
    let body = json!({"name": "least", "source": source, "disk_size_mb": least});
    let made = server.post("/v1/admin/templates?wait=true", body).await;
    assert_eq!(&answer(made, 201).await["disk_size_mb"], least);
    let body = json!({"template": "least"});
    let sandbox = answer(server.post("/v1/sandboxes", body).await, 201).await;
    assert_eq!(&sandbox["disk_size_mb"], least);
}

#[tokio::test]
async fn r42_bad_requests_are_refused_by_name_and_change_nothing() {
    let server = Server::start().await;
    let sandbox = server.sandbox().await;
    let id = id_of(&sandbox);
    let source = json!({"type": "tar", "path": "/x.tar"});
    for (path, body, word) in [
        ("/v1/snapshots", json!({}), "sandbox_id"),
        ("/v1/snapshots", json!({"sandbox_id": "x"}), "sandbox_id"),
        (
            "/v1/snapshots",
            json!({"sandbox_id": id, "name": "../x"}),
            "name",
        ),
        (
            "/v1/snapshots",
            json!({"sandbox_id": id, "name": "tpl-x"}),
            "name",
        ),
        (
            "/v1/snapshots",
            json!({"sandbox_id": id, "name": ""}),
            "name",
        ),
        (
            "/v1/snapshots",
            json!({"sandbox_id": id, "type": "disk"}),
            "type",
        ),
        (
            "/v1/snapshots",
            json!({"sandbox_id": id, "resume": 1}),
            "resume",
        ),
        (
            "/v1/snapshots",
            json!({"sandbox_id": id, "colour": 1}),
            "colour",
        ),
        (
            "/v1/snapshots?wait=maybe",
            json!({"sandbox_id": id}),
            "wait",
        ),
        ("/v1/snapshots?later=1", json!({"sandbox_id": id}), "later"),
        ("/v1/admin/templates", json!({"name": "x"}), "source"),
        ("/v1/admin/templates", json!({"source": source}), "name"),
        (
            "/v1/admin/templates",
            json!({"name": "x", "source": {"type": "zip", "path": "/x"}}),
            "zip",
        ),
        (
            "/v1/admin/templates",
            json!({"name": "x", "source": {"type": "tar", "path": "x.tar"}}),
            "path",
        ),
        (
            "/v1/admin/templates",
            json!({"name": "x", "source": {"type": "tar", "path": "/x", "colour": 1}}),
            "colour",
        ),
        (
            "/v1/admin/templates",
            json!({"name": "x", "source": source, "memory_mb": 1}),
            "memory_mb",
        ),
    ] {
        let refused = server.post(path, body.clone()).await;
        let message = failure(refused, 400, "invalid_request").await;
        assert!(message.contains(word), "{path} {body}: {message}");
    }
    let nobody = json!({"sandbox_id": "sb-00000000-0000-7000-8000-000000000000"});
    failure(server.post("/v1/snapshots", nobody).await, 404, "not_found").await;
    failure(server.get("/v1/templates/nothing").await, 404, "not_found").await;
    failure(
        server.get("/v1/templates/..%2Fx").await,
        400,
        "invalid_request",
    )
    .await;
    assert_eq!(server.names("/v1/admin/templates").await, ["minimal"]);
    assert_eq!(server.state(&sandbox).await, "running");
}
