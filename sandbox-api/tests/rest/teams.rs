//! R23, R24: what each kind of caller sees, may and may not, by its key.

use reqwest::{Method, Response};
use sandbox_core::sim::Call;
use serde_json::{Value, json};

use crate::support::{KEY, Server, TEAMS, answer, failure};

const A: &str = TEAMS[0].0;
const B: &str = TEAMS[1].0;

impl Server {
    async fn send(&self, key: &str, method: Method, path: &str, body: Value) -> Response {
        let asked = self.bare(method, path).header("X-API-Key", key);
        asked.json(&body).send().await.unwrap()
    }

    async fn get_as(&self, key: &str, path: &str) -> Response {
        let asked = self.bare(Method::GET, path).header("X-API-Key", key);
        asked.send().await.unwrap()
    }

    async fn delete_as(&self, key: &str, path: &str) -> Response {
        let asked = self.bare(Method::DELETE, path).header("X-API-Key", key);
        asked.send().await.unwrap()
    }

    async fn made_by(&self, key: &str) -> String {
        let made = self
            .send(key, Method::POST, "/v1/sandboxes", json!({}))
            .await;
        answer(made, 201).await["id"].as_str().unwrap().to_owned()
    }

    /// A template made of a caller's own sandbox.
    async fn snapshot_by(&self, key: &str, name: &str) -> Value {
        let sandbox_id = self.made_by(key).await;
        let body = json!({"sandbox_id": sandbox_id, "name": name});
        let made = self.send(key, Method::POST, "/v1/snapshots", body).await;
        answer(made, 201).await
    }

    async fn names_seen_by(&self, key: &str, path: &str) -> Vec<String> {
        let listed = answer(self.get_as(key, path).await, 200).await;
        let items = listed["items"].as_array().unwrap().iter();
        let mut names: Vec<_> = items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn r39_a_team_knows_nothing_of_another_s_sandboxes() {
    let server = Server::start().await;
    let (of_a, of_b) = (server.made_by(A).await, server.made_by(B).await);
    let of_admin = server.made_by(KEY).await;
    for (key, ids) in [
        (A, vec![&of_a]),
        (B, vec![&of_b]),
        (KEY, vec![&of_a, &of_b, &of_admin]),
    ] {
        let listed = answer(server.get_as(key, "/v1/sandboxes").await, 200).await;
        let items = listed["items"].as_array().unwrap();
        let seen: Vec<_> = items
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect();
        assert_eq!(seen, ids);
    }
    for path in ["pause", "resume", "ping", "exec", "processes"] {
        let path = format!("/v1/sandboxes/{of_a}/{path}");
        let body = json!({"cmd": "true"});
        for key in [B, "sbk_nobody"] {
            let status = if key == B { 404 } else { 401 };
            let refused = server.send(key, Method::POST, &path, body.clone()).await;
            assert_eq!(refused.status(), status, "{path}");
        }
    }
    let path = format!("/v1/sandboxes/{of_a}");
    failure(server.get_as(B, &path).await, 404, "not_found").await;
    failure(server.delete_as(B, &path).await, 404, "not_found").await;
    let files = format!("{path}/files?path=/x");
    failure(server.get_as(B, &files).await, 404, "not_found").await;
    failure(
        server
            .get_as(B, &format!("{path}/processes/1/output"))
            .await,
        404,
        "not_found",
    )
    .await;
    let body = json!({"sandbox_id": of_a, "name": "stolen"});
    let stolen = server.send(B, Method::POST, "/v1/snapshots", body).await;
    failure(stolen, 404, "not_found").await;
    assert_eq!(
        answer(server.get_as(A, &path).await, 200).await["state"],
        "running"
    );
    assert_eq!(server.host.count(Call::Snapshot), 0);
}

#[tokio::test]
async fn r39_an_operation_is_its_team_s_alone() {
    let server = Server::start().await;
    let sandbox_id = server.made_by(A).await;
    let body = json!({"sandbox_id": sandbox_id, "name": "own"});
    let begun = server.send(A, Method::POST, "/v1/snapshots?wait=false", body);
    let begun = answer(begun.await, 202).await;
    let path = format!("/v1/operations/{}", begun["id"].as_str().unwrap());
    failure(server.get_as(B, &path).await, 404, "not_found").await;
    answer(server.get_as(A, &path).await, 200).await;
    answer(server.get_as(KEY, &path).await, 200).await;
}

#[tokio::test]
async fn r23_get_list_and_list_by_type_agree_on_what_a_caller_sees() {
    let server = Server::start().await;
    let of_a = server.snapshot_by(A, "of-a").await;
    let of_b = server.snapshot_by(B, "of-b").await;
    let shared = server.snapshot_by(KEY, "shared").await;
    assert_eq!(
        (&of_a["platform"], &shared["platform"]),
        (&json!(false), &json!(true))
    );
    assert_ne!(of_a["team_id"], of_b["team_id"]);
    for (key, own, others) in [(A, &of_a, &of_b), (B, &of_b, &of_a)] {
        let name = |template: &Value| template["name"].as_str().unwrap().to_owned();
        let all = [name(own), "shared".to_owned()];
        for path in ["/v1/snapshots?type=snapshot", "/v1/templates?type=snapshot"] {
            assert_eq!(server.names_seen_by(key, path).await, all);
        }
        let images = server.names_seen_by(key, "/v1/snapshots?type=image").await;
        assert_eq!(images, ["minimal"]);
        assert_eq!(server.names_seen_by(key, "/v1/snapshots").await.len(), 3);
        for field in ["name", "id"] {
            for (template, status) in [(own, 200), (&shared, 200), (others, 404)] {
                let path = format!("/v1/templates/{}", template[field].as_str().unwrap());
                let got = server.get_as(key, &path).await;
                assert_eq!(got.status(), status, "{path}");
                let body = json!({"template": template[field]});
                let made = server.send(key, Method::POST, "/v1/sandboxes", body).await;
                assert_eq!(
                    made.status(),
                    if status == 200 { 201 } else { 404 },
                    "{path}"
                );
            }
        }
    }
    // One name in two teams is two templates.
    for key in [A, B] {
        let path = "/v1/templates/same";
        let made = server.snapshot_by(key, "same").await;
        assert_eq!(answer(server.get_as(key, path).await, 200).await, made);
    }
    let all = server.names_seen_by(KEY, "/v1/admin/templates").await;
    assert_eq!(all, ["minimal", "of-a", "of-b", "same", "same", "shared"]);
}

#[tokio::test]
async fn r24_a_team_can_t_remove_replace_or_shadow_what_is_the_platform_s() {
    let server = Server::start().await;
    let shared = server.snapshot_by(KEY, "shared").await;
    let sandbox_id = server.made_by(A).await;
    let made_before = server.host.count(Call::Snapshot);
    for name in ["shared", "minimal", shared["id"].as_str().unwrap()] {
        let path = format!("/v1/snapshots/{name}");
        failure(server.delete_as(A, &path).await, 403, "forbidden").await;
    }
    for name in ["shared", "minimal"] {
        for kind in ["image", "snapshot"] {
            let body = json!({"sandbox_id": sandbox_id, "name": name, "type": kind});
            for path in ["/v1/snapshots", "/v1/snapshots?wait=false"] {
                let refused = server.send(A, Method::POST, path, body.clone()).await;
                failure(refused, 403, "forbidden").await;
            }
        }
        let source = json!({"type": "tar", "path": "/x.tar"});
        let body = json!({"name": name, "source": source});
        for path in ["/v1/admin/templates", "/v1/admin/templates?wait=true"] {
            let refused = server.send(A, Method::POST, path, body.clone()).await;
            failure(refused, 403, "forbidden").await;
        }
    }
    failure(
        server.get_as(A, "/v1/admin/templates").await,
        403,
        "forbidden",
    )
    .await;
    // Before anything was touched.
    let sandbox = server
        .get_as(A, &format!("/v1/sandboxes/{sandbox_id}"))
        .await;
    assert_eq!(answer(sandbox, 200).await["state"], "running");
    assert_eq!(server.host.count(Call::Snapshot), made_before);
    assert_eq!(server.host.count(Call::Import), 0);
    assert_eq!(server.host.count(Call::DeleteImage), 0);
    for key in [A, B, KEY] {
        let got = server.get_as(key, "/v1/templates/shared").await;
        assert_eq!(answer(got, 200).await, shared);
    }
    // What is another team's is not even forbidden.
    server.snapshot_by(B, "of-b").await;
    failure(
        server.delete_as(A, "/v1/snapshots/of-b").await,
        404,
        "not_found",
    )
    .await;
    answer(server.delete_as(B, "/v1/snapshots/of-b").await, 204).await;
    answer(server.delete_as(KEY, "/v1/snapshots/shared").await, 204).await;
}

#[tokio::test]
async fn nobody_gets_anything_without_a_key() {
    let server = Server::start().await;
    let sandbox = server.made_by(KEY).await;
    for (method, path) in [
        (Method::POST, format!("/v1/sandboxes/{sandbox}/pause")),
        (Method::POST, format!("/v1/sandboxes/{sandbox}/resume")),
        (Method::POST, "/v1/snapshots".to_owned()),
        (Method::GET, "/v1/snapshots".to_owned()),
        (Method::DELETE, "/v1/snapshots/minimal".to_owned()),
        (Method::GET, "/v1/templates".to_owned()),
        (Method::GET, "/v1/templates/minimal".to_owned()),
        (Method::GET, "/v1/admin/templates".to_owned()),
        (Method::POST, "/v1/admin/templates".to_owned()),
    ] {
        let bare = server.bare(method.clone(), &path).send().await.unwrap();
        failure(bare, 401, "unauthorized").await;
        let wrong = server.bare(method, &path).header("X-API-Key", "sbk_team");
        failure(wrong.send().await.unwrap(), 401, "unauthorized").await;
    }
}

#[tokio::test]
async fn r40_what_was_done_is_told_of_the_key_s_name_and_never_of_the_key() {
    let server = Server::start().await;
    let made = server.snapshot_by(A, "own").await;
    let id = made["id"].as_str().unwrap();
    let store: &dyn sandbox_core::store::Store = &*server.store;
    let entries = store.audit_of(id, 10).await.unwrap();
    assert!(!entries.is_empty());
    for entry in entries {
        let actor = entry.actor.to_string();
        assert!(actor.starts_with("api_key:team-"), "{actor}");
        assert!(!actor.contains(A), "{actor}");
    }
}
