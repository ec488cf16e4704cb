//! Pausing, snapshots and templates when connections break, servers restart, and callers differ.

#![cfg(feature = "rpc-server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "not every test target uses all of it")]
mod remote_support;

use std::{sync::Arc, time::Duration};

use remote_support::{KEY, Serving, Wire, World, connect, until};
use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    sim::{Call, Window},
};
use sandbox_sdk::{
    Client, Error, OperationStatus, RemoteConfig, SandboxState, TeamId, TemplatePageRequest,
    rpc::Server,
};
use uuid::Uuid;

/// Long enough to be cut in the middle of.
const WORK: Duration = Duration::from_millis(600);

/// Waits until the host has been given so many such orders.
async fn until_ordered(world: &World, call: Call, count: u64) {
    until("it is at work", || async {
        world.host.count(call) == count
    })
    .await;
}

fn templates(world: &World) -> Vec<String> {
    let all = world.store.all_templates();
    let mut names: Vec<_> = all.iter().map(|one| one.name.to_string()).collect();
    names.retain(|name| name != "minimal");
    names
}

#[tokio::test]
async fn r15_a_snapshot_whose_connection_is_cut_is_made_once() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let sandbox = client.create().await.unwrap();
    world.host.delay(Call::Snapshot, WORK);
    let made = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.snapshot("warm").await }
    });
    until_ordered(&world, Call::Snapshot, 1).await;
    for _ in 0..3 {
        wire.cut();
        client.get(sandbox.id()).await.unwrap();
    }
    assert!(!made.is_finished());
    assert_eq!(made.await.unwrap().unwrap().name(), "warm");
    assert_eq!(world.host.count(Call::Snapshot), 1);
    assert_eq!(templates(&world), ["warm"]);
}

#[tokio::test]
async fn r15_a_snapshot_whose_beginning_is_not_answered_is_made_once() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let sandbox = client.create().await.unwrap();
    wire.lose_answers();
    let made = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.snapshot("warm").await }
    });
    until("it is made", || async { world.host.images().len() == 1 }).await;
    assert!(!made.is_finished());
    wire.mend();
    assert_eq!(made.await.unwrap().unwrap().name(), "warm");
    assert_eq!(templates(&world), ["warm"]);
}

#[tokio::test]
async fn r15_a_snapshot_goes_on_and_its_outcome_stays_when_its_client_has_gone() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    world.host.delay(Call::Snapshot, WORK);
    let making = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.snapshot("warm").await }
    });
    until_ordered(&world, Call::Snapshot, 1).await;
    let operation = sandbox.info().await.unwrap().operation.unwrap().id;
    making.abort();
    drop((sandbox, client));
    let back = serving.connect().await;
    let at_work = back.operation(operation).await.unwrap();
    assert_eq!(at_work.status, OperationStatus::Running);
    until("it is made", || async {
        let operation = back.operation(operation).await.unwrap();
        operation.status == OperationStatus::Succeeded
    })
    .await;
    back.templates().get("warm").await.unwrap();
}

#[tokio::test]
async fn r15_another_server_tells_the_outcome_where_the_first_has_gone() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    world.host.delay(Call::Snapshot, WORK);
    let made = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.snapshot("warm").await }
    });
    until_ordered(&world, Call::Snapshot, 1).await;
    // It has been told the operation's ID by the time that it asks how that stands.
    client.get(sandbox.id()).await.unwrap();
    serving.stop().await;
    let _again = world.serve_unix().await;
    assert_eq!(made.await.unwrap().unwrap().name(), "warm");
    assert_eq!(world.host.count(Call::Snapshot), 1);
}

#[tokio::test]
async fn r12_a_pause_whose_answer_is_lost_is_done_once() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let sandbox = client.create().await.unwrap();
    for (call, state) in [
        (Call::Pause, SandboxState::Paused),
        (Call::Resume, SandboxState::Running),
    ] {
        wire.lose_answers();
        let turned = tokio::spawn({
            let sandbox = sandbox.clone();
            async move {
                match call {
                    Call::Pause => sandbox.pause().await,
                    _ => sandbox.resume().await,
                }
            }
        });
        until("it is done", || async {
            let all = world.store.all_sandboxes();
            all[0].state == state && all[0].operation.is_none()
        })
        .await;
        assert!(!turned.is_finished());
        wire.mend();
        assert_eq!(turned.await.unwrap().unwrap().state, state);
        assert_eq!(world.host.count(call), 1);
    }
}

#[tokio::test]
async fn r13_what_stands_still_for_a_snapshot_is_paused_for_everyone() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    // The host has it out of its live map meanwhile.
    world.host.show_at_work(Window::Absent);
    world.host.delay(Call::Snapshot, WORK);
    let operation = sandbox.snapshot("warm").resume(true).begin().await.unwrap();
    until_ordered(&world, Call::Snapshot, 1).await;
    let info = sandbox.info().await.unwrap();
    assert_eq!(info.state, SandboxState::Paused);
    assert_eq!(info.operation.map(|it| it.id), Some(operation));
    until("it runs again", || async {
        sandbox.info().await.unwrap().state == SandboxState::Running
    })
    .await;
}

/// A server whose second key is a team's.
async fn with_a_team(world: &World) -> (Serving, Client, Client) {
    let team = TeamId::from_uuid(Uuid::from_u128(0xa));
    let actor = Actor {
        id: team.to_string(),
        ..Actor::app()
    };
    let teams: Arc<dyn Api> = Arc::new(world.engine.api(Caller::team(actor, team)));
    let server = Server::new(world.api(), Some(KEY.to_owned()));
    let server = server.with_key("the team's".to_owned(), teams);
    let serving = Serving::begin(server, "tcp:127.0.0.1:0").await;
    let admin = serving.connect().await;
    let config = RemoteConfig::new(&serving.address).key("the team's");
    let team = Client::connect_with(config).await.unwrap();
    (serving, admin, team)
}

#[tokio::test]
async fn r23_r24_each_key_opens_its_own_team_s_things() {
    let world = World::new().await;
    let (serving, admin, team) = with_a_team(&world).await;
    let theirs = team.create().await.unwrap();
    let ours = admin.create().await.unwrap();
    assert_eq!(
        team.get(ours.id()).await.err(),
        Some(Error::SandboxNotFound(ours.id()))
    );
    admin.get(theirs.id()).await.unwrap();
    ours.snapshot("tools").await.unwrap();
    let own = theirs.snapshot("own").await.unwrap();

    let page = TemplatePageRequest::default();
    let seen = team.templates().list(None, page).await.unwrap();
    let mut seen: Vec<_> = seen.items.iter().map(|it| it.name.as_str()).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["minimal", "own", "tools"]);
    let denied = [
        team.templates().delete("tools").await.err(),
        team.templates().all(None, page).await.err(),
        theirs.snapshot("tools").await.err(),
        theirs.snapshot("minimal").await.err(),
    ];
    for error in denied {
        assert!(matches!(error, Some(Error::Forbidden(_))), "{error:?}");
    }
    own.delete().await.unwrap();
    assert_eq!(templates(&world), ["tools"]);

    let wrong = RemoteConfig::new(&serving.address).key("the teams");
    let refused = Client::connect_with(wrong).await.err();
    assert!(
        matches!(refused, Some(Error::Unauthorized(_))),
        "{refused:?}"
    );
}
