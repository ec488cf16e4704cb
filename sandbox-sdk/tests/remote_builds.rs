//! Template builds over a connection: from the request to the template, when connections break, and
//! when there is much to tell.

#![cfg(feature = "rpc-server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "not every test target uses all of it")]
mod remote_support;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use remote_support::{KEY, Serving, Wire, World, connect, until};
use sandbox_core::{
    audit::Actor,
    build::{BuildFilter, BuildPageRequest},
    caller::Caller,
};
use sandbox_sdk::{
    BuildError, BuildEvent, BuildStatus, Client, Error, LogCursor, LogStream, RemoteConfig, TeamId,
    TemplateKind, rpc::Server,
};
use uuid::Uuid;

async fn all_builds(client: &Client) -> usize {
    let page = BuildPageRequest::default();
    let page = client.builds(BuildFilter::default(), page).await.unwrap();
    page.items.len()
}

#[tokio::test]
async fn r44_a_build_is_told_step_by_step_and_gives_its_template() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    for client in [world.local(), serving.connect().await] {
        let (mut printed, mut started, mut ended) = (String::new(), Vec::new(), Vec::new());
        let template = client
            .build_template("web")
            .recipe(["echo one", "echo two"])
            .step("START sleep 1000")
            .healthcheck("true")
            .no_cache(true)
            .run(|event| match event {
                BuildEvent::StepStarted(step) => started.push(step.step),
                BuildEvent::StepEnded(step) => ended.push((step.step, step.ok)),
                BuildEvent::Output(entry) if entry.stream == LogStream::Stdout => {
                    printed.push_str(&String::from_utf8(entry.data).unwrap());
                }
                _ => {}
            })
            .await
            .unwrap();
        assert_eq!(
            (template.name(), template.kind()),
            ("web", TemplateKind::Snapshot)
        );
        assert_eq!(printed, "one\ntwo\n");
        assert_eq!(started, [1, 2, 3, 4, 5, 6]);
        assert!(ended.iter().all(|(_, ok)| *ok == Some(true)), "{ended:?}");
        assert_eq!(ended.len(), 6);
        client.create().template(&template).await.unwrap();
    }
}

#[tokio::test]
async fn r33_a_failed_build_says_which_step_and_shows_the_end_of_its_output() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let text = "FROM minimal\nRUN echo fine\nRUN echo oops >&2; exit 3\n";
    let build = client.build_template("web").recipe_text(text);
    let build = build.submit().await.unwrap();
    let error = build.wait().await.unwrap_err();
    let BuildError::Failed(failed) = &error else {
        panic!("{error:?}");
    };
    let step = failed.step.as_ref().unwrap();
    assert_eq!((step.step, step.exit_code), (3, Some(3)));
    assert_eq!((step.stdout.as_str(), step.stderr.as_str()), ("", "oops\n"));
    assert!(error.to_string().contains("step 3"), "{error}");
    let details = client.build(build.id()).await.unwrap().get().await.unwrap();
    assert_eq!(details.record.status, BuildStatus::Failed);
    let ended = build.cancel().await.unwrap_err();
    assert!(matches!(ended, Error::BuildEnded { .. }), "{ended:?}");

    let bad = client.build_template("web").recipe_text("RUN a\nFOO b");
    let bad = bad.submit().await.unwrap_err().to_string();
    assert!(bad.contains("line 2, column 1"), "{bad}");
}

#[tokio::test]
async fn r28_a_request_whose_answer_is_lost_makes_one_build() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    client.templates().get("minimal").await.unwrap();
    wire.lose_answers();
    let asked = tokio::spawn({
        let client = client.clone();
        async move {
            let build = client.build_template("web").step("echo x");
            build.submit().await
        }
    });
    let local = world.local();
    until("it is asked for", || async {
        all_builds(&local).await == 1
    })
    .await;
    assert!(!asked.is_finished());
    wire.mend();
    let build = asked.await.unwrap().unwrap();
    build.wait().await.unwrap();
    assert_eq!(all_builds(&local).await, 1);
}

#[tokio::test]
async fn r32_a_log_is_followed_over_connections_that_break() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let lines: Vec<String> = (0..8).map(|n| format!("echo {n}; sleep 0.05")).collect();
    let build = client.build_template("web").recipe(lines);
    let build = build.submit().await.unwrap();
    let mut events = std::pin::pin!(build.follow(LogCursor::default()));
    let (mut printed, mut last) = (String::new(), LogCursor::default());
    while let Some(event) = events.next().await {
        if let BuildEvent::Output(entry) = event.unwrap() {
            if entry.stream == LogStream::Stdout {
                printed.push_str(&String::from_utf8(entry.data).unwrap());
            }
            assert!(entry.cursor > last);
            last = entry.cursor;
            wire.cut();
        }
    }
    assert_eq!(
        printed,
        (0..8).map(|n| format!("{n}\n")).collect::<String>()
    );
    let rest: Vec<_> = build.log(last).try_collect().await.unwrap();
    let output = |event: &BuildEvent| matches!(event, BuildEvent::Output(_));
    assert!(!rest.iter().any(output), "{rest:?}");
}

#[tokio::test]
async fn trap_36_a_build_that_printed_more_than_a_message_holds_is_told_whole() {
    const SPEWED: usize = 250 * 1024;
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let recipe = (0..24).map(|_| format!("spew {SPEWED}"));
    let build = client.build_template("web").recipe(recipe);
    let build = build.submit().await.unwrap();
    build.wait().await.unwrap();
    let here = world.api().build(build.id()).await.unwrap();
    let bytes: usize = here.steps.iter().map(|step| step.stdout.len()).sum();
    assert!(bytes > 4 * 1024 * 1024, "{bytes}");
    assert_eq!(build.get().await.unwrap(), here);
}

#[tokio::test]
async fn r28_a_context_is_uploaded_in_pieces_also_when_the_connection_breaks() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, size) in [("large", 5_000_000_u64), ("small", 6)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        let content = std::io::Read::take(std::io::repeat(b'x'), size);
        archive.append_data(&mut header, name, content).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let api = world.api();
    let expected = api.upload_context(archive.clone().into()).await.unwrap();
    let built = tokio::spawn({
        let client = client.clone();
        async move {
            let build = client.build_template("web").context(archive);
            let build = build.recipe(["COPY small /srv/", "cat /srv/small"]);
            build.submit().await
        }
    });
    // However often it is cut, no half of it is taken for the whole.
    for _ in 0..3 {
        tokio::task::yield_now().await;
        wire.cut();
    }
    let build = built.await.unwrap().unwrap();
    build.wait().await.unwrap();
    let details = build.get().await.unwrap();
    assert_eq!(details.record.context.as_deref(), Some(expected.as_str()));
    assert_eq!(details.steps[2].stdout, b"xxxxxx");
}

#[tokio::test]
async fn r24_a_team_s_key_builds_nothing_and_uploads_nothing() {
    let world = World::new().await;
    let team = TeamId::from_uuid(Uuid::from_u128(7));
    let caller = Caller::team(Actor::api_key("team"), team);
    let server = Server::new(world.api(), Some(KEY.to_owned()))
        .with_key("sbk_team".to_owned(), Arc::new(world.engine.api(caller)));
    let unix = format!("unix:{}", world.socket().display());
    let serving = Serving::begin(server, &unix).await;
    let admin = serving.connect().await;
    let build = admin.build_template("web").step("sleep 1000");
    let build = build.submit().await.unwrap();
    let config = RemoteConfig::new(&serving.address).key("sbk_team");
    let team = Client::connect_with(config).await.unwrap();
    let forbidden = |error: Error| assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
    let asked = team.build_template("x").step("echo").submit().await;
    forbidden(asked.unwrap_err());
    let copy = team.build_template("x").step("COPY a b");
    forbidden(copy.context(vec![0; 2_000_000]).submit().await.unwrap_err());
    forbidden(team.build(build.id()).await.unwrap_err());
    let page = BuildPageRequest::default();
    forbidden(team.builds(BuildFilter::default(), page).await.unwrap_err());
    build.cancel().await.unwrap();
    let error = build.wait().await.unwrap_err();
    assert_eq!(error, BuildError::Cancelled(build.id()));
}
