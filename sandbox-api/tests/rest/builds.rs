//! Template builds.

use std::io::Write as _;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    events::{Event, events},
    support::{Server, TEAMS, answer, eventually, failure},
};

const BUILDS: &str = "/v1/admin/builds";

impl Server {
    /// A build's path.
    async fn build(&self, body: Value) -> String {
        let queued = answer(self.post(BUILDS, body).await, 202).await;
        format!("{BUILDS}/{}", queued["id"].as_str().unwrap())
    }

    /// A build that has ended.
    async fn built(&self, path: &str) -> Value {
        eventually("the build ends", || async {
            let build = answer(self.get(path).await, 200).await;
            let status = build["status"].as_str().unwrap();
            (status != "pending" && status != "running").then_some(build)
        })
        .await
    }

    async fn names_of(&self, query: &str) -> Vec<String> {
        let listed = answer(self.get(&format!("{BUILDS}{query}")).await, 200).await;
        let items = listed["items"].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// The names of an object's fields.
fn fields(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn r28_a_build_is_queued_at_once_and_makes_a_template_that_sandboxes_start_from() {
    let server = Server::start().await;
    let recipe = ["echo one", "ENV WHO=me", "echo two >&2; echo three"];
    let asked = server.post(BUILDS, json!({"name": "web", "recipe": recipe}));
    let asked = asked.await;
    let location = asked.headers()["location"].to_str().unwrap().to_owned();
    let queued = answer(asked, 202).await;
    assert_eq!(
        location,
        format!("{BUILDS}/{}", queued["id"].as_str().unwrap())
    );
    assert_eq!(queued["status"], "pending");
    assert_eq!(queued["total_steps"], 5, "two of the platform's own");
    assert!(queued.get("logs").is_none() && queued.get("recipe").is_none());

    let built = server.built(&location).await;
    assert_eq!(built["status"], "success", "{built}");
    assert_eq!(built["current_step"], 5);
    assert_eq!(built["recipe"], json!(recipe));
    assert_eq!(built["error"], Value::Null);
    let template = answer(server.get("/v1/templates/web").await, 200).await;
    assert_eq!(template["id"], built["template_id"]);
    assert_eq!(template["type"], "image");
    let made = server.post("/v1/sandboxes", json!({"template": "web"}));
    answer(made.await, 201).await;
}

#[tokio::test]
async fn r29_each_step_is_told_with_what_it_printed() {
    let server = Server::start().await;
    let recipe = ["echo one", "echo two >&2; echo three"];
    let path = server.build(json!({"name": "web", "recipe": recipe})).await;
    let built = server.built(&path).await;
    let logs = built["logs"].as_array().unwrap();
    for log in logs {
        assert_eq!(
            fields(log),
            [
                "cached",
                "cmd",
                "dropped_bytes",
                "elapsed_ms",
                "exit_code",
                "ok",
                "phase",
                "stderr",
                "stdout",
                "step"
            ]
        );
        assert_eq!(log["ok"], true);
    }
    let phases: Vec<_> = logs
        .iter()
        .map(|log| log["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["pre", "recipe", "recipe", "post"]);
    let second = &logs[2];
    assert_eq!(second["step"], 3);
    assert_eq!(second["cmd"], recipe[1]);
    assert_eq!(second["stdout"], "three\n");
    assert_eq!(second["stderr"], "two\n");
    assert_eq!(second["exit_code"], 0);
}

#[tokio::test]
async fn r33_a_step_that_fails_ends_the_build_and_is_named() {
    let server = Server::start().await;
    let recipe = ["echo fine", "echo broken >&2; exit 7", "echo never"];
    let path = server.build(json!({"name": "web", "recipe": recipe})).await;
    let built = server.built(&path).await;
    assert_eq!(built["status"], "failed");
    assert_eq!(built["template_id"], Value::Null);
    assert_eq!(built["error"]["step"], 3);
    let message = built["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("step 3") && message.contains("broken"),
        "{message}"
    );
    let logs = built["logs"].as_array().unwrap();
    assert_eq!(logs.len(), 3, "{logs:?}");
    assert_eq!(logs[2]["ok"], false);
    assert_eq!(logs[2]["exit_code"], 7);
    assert_eq!(logs[2]["stderr"], "broken\n");
    let template = server.get("/v1/templates/web").await;
    failure(template, 404, "not_found").await;
    let ended = server.post(&format!("{path}/cancel"), json!({})).await;
    let message = failure(ended, 409, "invalid_state").await;
    assert!(message.contains("failed"), "{message}");
}

#[tokio::test]
async fn r30_with_a_healthcheck_the_template_is_a_snapshot() {
    let server = Server::start().await;
    for (name, check) in [
        ("plain", json!("true")),
        (
            "full",
            json!({"cmd": "true", "interval_sec": 1, "retries": 3.0}),
        ),
    ] {
        let body = json!({
            "name": name,
            "recipe": ["START sleep 1000"],
            "healthcheck": check,
        });
        let path = server.build(body).await;
        let built = server.built(&path).await;
        assert_eq!(built["status"], "success", "{built}");
        assert_eq!(built["healthcheck"]["cmd"], "true");
        let template = answer(server.get(&format!("/v1/templates/{name}")).await, 200).await;
        assert_eq!(template["type"], "snapshot");
    }
}

#[tokio::test]
async fn r28_a_recipe_may_be_one_text_with_base_and_healthcheck() {
    let server = Server::start().await;
    server.image("debian").await;
    let text = "# A server\nFROM debian\nENV A=b\nRUN echo \\\n  one\nHEALTHCHECK CMD true\nCMD sleep 1000\n";
    let path = server.build(json!({"name": "web", "recipe": text})).await;
    let built = server.built(&path).await;
    assert_eq!(built["status"], "success", "{built}");
    assert_eq!(built["base_template"], "debian");
    assert_eq!(built["healthcheck"]["cmd"], "true");
    let recipe = built["recipe"].as_array().unwrap();
    assert!(
        recipe
            .last()
            .unwrap()
            .as_str()
            .unwrap()
            .starts_with("START"),
        "{recipe:?}"
    );
    // What the request says goes before the text.
    let body = json!({"name": "web", "recipe": text, "base_template": "minimal", "no_cache": true});
    let other = answer(server.get(&server.build(body).await).await, 200).await;
    assert_eq!(other["base_template"], "minimal");
    assert_eq!(other["no_cache"], true);
}

#[tokio::test]
async fn r32_builds_are_listed_the_newest_first_by_pages_and_without_logs() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        let path = server
            .build(json!({"name": name, "recipe": ["echo x"]}))
            .await;
        server.built(&path).await;
    }
    let bad = server
        .build(json!({"name": "a", "recipe": ["exit 1"]}))
        .await;
    server.built(&bad).await;
    assert_eq!(server.names_of("").await, ["a", "c", "b", "a"]);
    assert_eq!(server.names_of("?order=oldest").await, ["a", "b", "c", "a"]);
    assert_eq!(server.names_of("?name=a&status=success").await, ["a"]);
    assert_eq!(server.names_of("?status=failed").await, ["a"]);
    assert_eq!(server.names_of("?status=pending").await, [""; 0]);
    let mut names = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = answer(server.get(&format!("{BUILDS}{query}")).await, 200).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item.get("logs").is_none()));
        names.extend(items.iter().map(|item| item["name"].clone()));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["a", "c", "b", "a"]);
}

#[tokio::test]
async fn r28_one_idempotency_key_makes_one_build() {
    let server = Server::start().await;
    let ask = |recipe: &'static str| {
        let body = json!({"name": "web", "recipe": [recipe]});
        let asked = server.ask(Method::POST, BUILDS);
        asked.header("Idempotency-Key", "k").json(&body).send()
    };
    let first = answer(ask("echo a").await.unwrap(), 202).await;
    let again = answer(ask("echo a").await.unwrap(), 202).await;
    assert_eq!(first["id"], again["id"]);
    failure(ask("echo b").await.unwrap(), 409, "conflict").await;
    assert_eq!(server.names_of("").await.len(), 1);
}

#[tokio::test]
async fn r31_a_build_is_cancelled_while_it_waits_or_runs_and_twice() {
    let server = Server::start().await;
    let slow = json!({"name": "slow", "recipe": ["sleep 1000"]});
    let mut paths = Vec::new();
    // Two workers: the third waits.
    for _ in 0..3 {
        paths.push(server.build(slow.clone()).await);
    }
    eventually("the first runs its recipe", || async {
        let build = answer(server.get(&paths[0]).await, 200).await;
        (build["current_step"] == 2).then_some(())
    })
    .await;
    let waits = answer(server.get(&paths[2]).await, 200).await;
    assert_eq!(waits["status"], "pending");
    for path in [&paths[2], &paths[0], &paths[1], &paths[0]] {
        let cancelled = server.post(&format!("{path}/cancel"), json!({})).await;
        assert_eq!(answer(cancelled, 200).await["status"], "cancelled");
    }
    for path in &paths {
        assert_eq!(server.built(path).await["status"], "cancelled");
    }
    eventually("no machine is left", || async {
        server.host.machines().is_empty().then_some(())
    })
    .await;
    failure(server.get("/v1/templates/slow").await, 404, "not_found").await;
}

/// The text of one stream of one step.
fn text_of(events: &[Event], name: &str, step: u32) -> String {
    let of_step = events.iter().filter(|event| event.name == name);
    of_step
        .filter(|event| event.data["step"] == step)
        .map(|event| event.data["data"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn r32_the_log_is_followed_live_to_the_final_status() {
    let server = Server::start().await;
    let recipe = ["echo one; sleep 0.2; echo two >&2", "echo \u{20ac}"];
    let path = server.build(json!({"name": "web", "recipe": recipe})).await;
    let stream = server.get(&format!("{path}/logs?follow=true")).await;
    let events = events(stream, 999).await;
    assert_eq!(text_of(&events, "stdout", 2), "one\n");
    assert_eq!(text_of(&events, "stderr", 2), "two\n");
    assert_eq!(text_of(&events, "stdout", 3), "\u{20ac}\n");
    let last = events.last().unwrap();
    assert_eq!(
        (last.name.as_str(), &last.data["status"]),
        ("end", &json!("success"))
    );
    let ends = events
        .iter()
        .filter(|event| event.name == "step" && event.data["ok"] == true);
    let ended: Vec<_> = ends
        .map(|event| event.data["step"].as_u64().unwrap())
        .collect();
    assert_eq!(ended, [1, 2, 3, 4]);
    let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let began = place(&|event| event.name == "step" && event.data["step"] == 3);
    let printed = place(&|event| event.name == "stdout" && event.data["step"] == 3);
    assert!(began < printed, "{events:?}");
}

#[tokio::test]
async fn r32_a_reader_that_comes_back_loses_and_doubles_nothing() {
    let server = Server::start().await;
    let recipe = ["echo one; echo two >&2; echo three", "echo four"];
    let path = server.build(json!({"name": "web", "recipe": recipe})).await;
    server.built(&path).await;
    let logs = format!("{path}/logs?follow=true");
    let output = |events: Vec<Event>| -> Vec<Event> {
        events
            .into_iter()
            .filter(|event| event.id.is_some())
            .collect()
    };
    let all = output(events(server.get(&logs).await, 999).await);
    assert!(all.len() >= 3, "{all:?}");
    for cut in 1..=all.len() {
        let id = all[cut - 1].id.unwrap().to_string();
        let again = server.ask(Method::GET, &logs).header("Last-Event-ID", &id);
        let rest = events(again.send().await.unwrap(), 999).await;
        assert_eq!(rest.last().unwrap().name, "end");
        assert_eq!(output(rest), all[cut..], "cut after {cut}");
        let by_offset = server.get(&format!("{path}/logs?offset={id}")).await;
        assert_eq!(output(events(by_offset, 999).await), all[cut..]);
    }
    for bad in [
        "?offset=-1",
        "?offset=9007199254740992",
        "?offset=x",
        "?colour=red",
    ] {
        let refused = server.get(&format!("{path}/logs{bad}")).await;
        failure(refused, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn r32_without_follow_the_stream_ends_with_what_there_is() {
    let server = Server::start().await;
    let path = server
        .build(json!({"name": "web", "recipe": ["echo one; sleep 1000"]}))
        .await;
    let logs = format!("{path}/logs");
    eventually("something was printed", || async {
        let events = events(server.get(&logs).await, 999).await;
        assert!(events.iter().all(|event| event.name != "end"));
        (text_of(&events, "stdout", 2) == "one\n").then_some(())
    })
    .await;
    // A stop of the daemon ends a stream that is followed.
    let stream = server.get(&format!("{logs}?follow=true")).await;
    let (events, ()) = tokio::join!(events(stream, 999), server.stop());
    assert_eq!(text_of(&events, "stdout", 2), "one\n");
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    // A ustar header by hand: name, mode, size, checksum, type.
    let mut tar = Vec::new();
    for (name, content) in files {
        let mut head = [0_u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..107].copy_from_slice(b"0000644");
        head[108..115].copy_from_slice(b"0000000");
        head[116..123].copy_from_slice(b"0000000");
        head[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        head[136..147].copy_from_slice(b"00000000000");
        head[148..156].copy_from_slice(b"        ");
        head[156] = b'0';
        head[257..263].copy_from_slice(b"ustar\0");
        head[263..265].copy_from_slice(b"00");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        write!(&mut head[148..155], "{sum:06o}\0").unwrap();
        tar.extend_from_slice(&head);
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[tokio::test]
async fn r28_files_are_uploaded_and_copied() {
    let server = Server::start().await;
    let contexts = format!("{BUILDS}/contexts");
    let tar = archive(&[("app/hello", "hello there\n")]);
    let put = answer(server.put(&contexts, tar.clone()).await, 200).await;
    let posted = server.ask(Method::POST, &contexts).body(tar).send();
    assert_eq!(
        answer(posted.await.unwrap(), 200).await,
        put,
        "named by its content"
    );
    let body = json!({
        "name": "web",
        "recipe": ["COPY app/hello /srv/hello", "cat /srv/hello"],
        "context": put["context"],
    });
    let built = server.built(&server.build(body).await).await;
    assert_eq!(built["status"], "success", "{built}");
    assert_eq!(built["logs"][2]["stdout"], "hello there\n");

    let missing = json!({"name": "web", "recipe": ["COPY a b"]});
    let message = failure(server.post(BUILDS, missing).await, 400, "invalid_request").await;
    assert!(message.contains("context"), "{message}");
    let refused = server.put(&contexts, "no archive").await;
    failure(refused, 400, "invalid_request").await;
    let large = server.put(&contexts, vec![0; 64 * 1024 * 1024 + 1]).await;
    failure(large, 413, "too_large").await;
}

#[tokio::test]
async fn r24_only_administrators_build() {
    let server = Server::start().await;
    let path = server
        .build(json!({"name": "web", "recipe": ["echo x"]}))
        .await;
    let (key, _) = TEAMS[0];
    let sound = json!({"name": "web", "recipe": ["echo x"]});
    for (method, path, body) in [
        (Method::POST, BUILDS.to_owned(), Some(sound)),
        (
            Method::POST,
            BUILDS.to_owned(),
            Some(json!({"name": "x", "recipe": ["RUN"]})),
        ),
        (Method::GET, BUILDS.to_owned(), None),
        (Method::GET, path.clone(), None),
        (Method::GET, format!("{path}/logs"), None),
        (Method::POST, format!("{path}/cancel"), None),
        (Method::PUT, format!("{BUILDS}/contexts"), None),
        (Method::POST, format!("{BUILDS}/contexts"), None),
    ] {
        let mut asked = server.bare(method.clone(), &path).header("X-API-Key", key);
        if let Some(body) = &body {
            asked = asked.json(body);
        }
        let refused = asked.send().await.unwrap();
        let message = failure(refused, 403, "forbidden").await;
        assert!(!message.is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn r42_a_build_that_makes_no_sense_is_refused_with_the_place() {
    let server = Server::start().await;
    for (body, words) in [
        (json!({"name": "x"}), &["recipe"][..]),
        (json!({"name": "x", "recipe": []}), &["recipe", "empty"]),
        (json!({"name": "x", "recipe": 5}), &["recipe", "list"]),
        (json!({"name": "x", "recipe": [5]}), &["recipe", "list"]),
        (
            json!({"name": "x", "recipe": ["echo a", "COPY a"]}),
            &["recipe", "entry 2", "column"],
        ),
        (
            json!({"name": "x", "recipe": "RUN echo a\n\nFOO b\n"}),
            &["recipe", "line 3", "column 1", "FOO"],
        ),
        (json!({"name": "x", "recipe": ["START a", "b"]}), &["START"]),
        (json!({"name": "../x", "recipe": ["a"]}), &["name"]),
        (
            json!({"name": "x", "recipe": ["a"], "vcpus": 0}),
            &["vcpus"],
        ),
        (
            json!({"name": "x", "recipe": ["a"], "colour": 1}),
            &["colour"],
        ),
        (
            json!({"name": "x", "recipe": ["a"], "healthcheck": {"cmd": "a", "interval_sec": 0}}),
            &["healthcheck.interval_sec"],
        ),
        (
            json!({"name": "x", "recipe": ["a"], "healthcheck": {"interval_sec": 1}}),
            &["healthcheck"],
        ),
        (
            json!({"name": "x", "recipe": ["a"], "context": "../x"}),
            &["context"],
        ),
    ] {
        let message = failure(server.post(BUILDS, body).await, 400, "invalid_request").await;
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
    let unknown = json!({"name": "x", "recipe": ["a"], "base_template": "none"});
    failure(server.post(BUILDS, unknown).await, 404, "not_found").await;
    let minimal = json!({"name": "minimal", "recipe": ["a"]});
    failure(server.post(BUILDS, minimal).await, 403, "forbidden").await;
    let nobody = format!("{BUILDS}/bld-0190163d-8694-739b-aea5-966c26f8ad91");
    for path in [
        nobody.clone(),
        format!("{nobody}/logs"),
        format!("{nobody}/logs?offset=9"),
    ] {
        failure(server.get(&path).await, 404, "not_found").await;
    }
    let cancel = server.post(&format!("{nobody}/cancel"), json!({})).await;
    failure(cancel, 404, "not_found").await;
    failure(
        server.get(&format!("{BUILDS}/x")).await,
        400,
        "invalid_request",
    )
    .await;
    assert_eq!(server.names_of("").await, [""; 0]);
}
