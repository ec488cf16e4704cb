//! The program `sandbox`: pausing, snapshots and templates.

#![cfg(all(feature = "cli", feature = "rpc-server"))]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cli_support;
#[expect(dead_code, reason = "not every test target uses all of it")]
mod remote_support;

use cli_support::{Desk, json};

#[tokio::test]
async fn r45_a_sandbox_is_paused_and_resumed() {
    let desk = Desk::new().await;
    let id = desk.create().await.id();
    assert_eq!(
        desk.run(&format!("pause {id}")).await.ok(),
        format!("{id}\n")
    );
    assert!(desk.run("ls").await.ok().contains("paused"));
    assert_eq!(
        desk.run("ls -q --state paused").await.ok(),
        format!("{id}\n")
    );
    let why = desk.run(&format!("exec {id} true")).await.failed(125);
    assert!(
        why.contains("paused") && why.contains("sandbox get"),
        "{why}"
    );
    let resumed = desk.run(&format!("resume {id} --json")).await.ok();
    assert_eq!(json(&resumed)["state"], "running");
    desk.run(&format!("exec {id} true")).await.ok();
    let nobody = "sb-0190163d-8694-739b-aea5-966c26f8ad91";
    let why = desk.run(&format!("pause {nobody} --json")).await.failed(1);
    assert_eq!(json(&why)["error"]["code"], "not_found");
}

#[tokio::test]
async fn r45_a_snapshot_is_made_listed_started_from_and_removed() {
    let desk = Desk::new().await;
    let sandbox = desk.create().await;
    let id = sandbox.id();
    sandbox.files().write("/kept", "kept").await.unwrap();
    let made = desk
        .run(&format!("snapshot {id} --name warm --resume"))
        .await;
    assert_eq!(made.ok(), "warm\n");
    let unnamed = desk.run(&format!("snapshot {id} --image --json")).await;
    let unnamed = json(&unnamed.ok());
    assert_eq!(
        (&unnamed["type"], &unnamed["platform"]),
        (&"image".into(), &true.into())
    );
    assert!(desk.run("ls").await.ok().contains("paused"));

    let table = desk.run("templates").await.ok();
    assert!(
        table.starts_with("NAME ") && table.lines().count() == 4,
        "{table}"
    );
    assert_eq!(
        desk.run("templates -q --type snapshot").await.ok(),
        "warm\n"
    );
    let listed = json(&desk.run("templates --json").await.ok());
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(listed[0].get("in_use_by").is_none(), "{listed}");

    let clone = desk.run("create --template warm").await.ok();
    let clone = clone.trim_end();
    let kept = desk.run(&format!("exec {clone} cat /kept")).await;
    assert_eq!(kept.ok(), "kept");
    let all = json(
        &desk
            .run("templates --all --type snapshot --json")
            .await
            .ok(),
    );
    assert_eq!(all[0]["in_use_by"][0], clone);
    let table = desk.run("templates --all").await.ok();
    assert!(table.contains("1 sandbox"), "{table}");

    let shown = desk.run("template get warm").await.ok();
    assert!(shown.contains("type          snapshot"), "{shown}");
    let by_id = json(&desk.run("template get warm --json").await.ok());
    let template_id = by_id["id"].as_str().unwrap();
    let again = desk
        .run(&format!("template get {template_id} --json"))
        .await;
    assert_eq!(json(&again.ok()), by_id);

    let why = desk
        .run(&format!("snapshot {id} --name warm"))
        .await
        .failed(1);
    assert!(why.contains("warm") && why.contains("template rm"), "{why}");
    let name = unnamed["name"].as_str().unwrap();
    let removed = desk.run(&format!("template rm warm {name}")).await.ok();
    assert_eq!(removed, format!("warm\n{name}\n"));
    assert_eq!(desk.run("templates -q").await.ok(), "minimal\n");
    let why = desk.run("create --template warm").await.failed(1);
    assert!(why.contains("sandbox templates"), "{why}");
    let why = desk.run("template rm warm --json").await.failed(1);
    assert_eq!(json(&why)["error"]["code"], "not_found");
}

#[tokio::test]
async fn r45_templates_are_imported_from_everywhere() {
    let desk = Desk::new().await;
    for (name, source) in [
        ("dir", "--dir /srv/root"),
        (
            "tar",
            "--tar root.tar --memory-mb 256 --vcpus 2 --disk-size-mb 1024",
        ),
        ("layout", "--oci-layout /srv/layout --reference app:1"),
        ("oci", "--oci registry.example/app:1 --insecure"),
        ("debian", "--debian bookworm:python3,python3-pip"),
    ] {
        let made = desk.run(&format!("template import {name} {source}")).await;
        assert_eq!(made.ok(), format!("{name}\n"));
    }
    let shown = json(&desk.run("template get tar --json").await.ok());
    assert_eq!(
        (&shown["memory_mb"], &shown["vcpus"]),
        (&256.into(), &2.into())
    );
    let why = desk.run("template import dir --dir /srv/root --json").await;
    assert_eq!(json(&why.failed(1))["error"]["code"], "already_exists");
    let why = desk
        .run("template import other --dir missing")
        .await
        .failed(1);
    let here = std::env::current_dir().unwrap().join("missing");
    assert!(why.contains(here.to_str().unwrap()), "{why}");
    for line in [
        "template import x",
        "template import x --dir a --tar b",
        "template",
    ] {
        assert_eq!(desk.run(line).await.code, 2, "{line}");
    }
}

#[tokio::test]
async fn r45_completion_knows_the_commands() {
    let desk = Desk::new().await;
    let script = desk.run("completion bash").await.ok();
    for word in [
        "pause",
        "resume",
        "snapshot",
        "templates",
        "import",
        "--oci-layout",
    ] {
        assert!(script.contains(word), "{word}");
    }
}
