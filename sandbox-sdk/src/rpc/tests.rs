//! What a peer gets that does not behave as our client does.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::BytesMut;
use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    engine::{Engine, EngineConfig, Parts},
    error::Error,
    host::HostError,
    id::{SandboxId, TeamId},
    operation::OperationStatus,
    process::ProcessSpec,
    sandbox::{CreateSandbox, PageRequest, SandboxFilter},
    sim::{Call, MemoryStore, SimClock, SimHost, SimQueue, When},
    template::{ImportSource, ImportTemplate, TemplatePageRequest},
    wire::{ClientCodec, ClientHello, FRAME_MAX_BYTES, FrameLimit, Heard, Refusal, ServerCodec},
};
use sandbox_host::rpc::Listener;
use tarpc::{Response, context};
use tokio::{io::AsyncReadExt, net::UnixStream};
use tokio_util::codec::{Decoder, Encoder, Framed};
use uuid::Uuid;

use super::{
    protocol::{ControlPlaneClient, ExecProgress, PROTOCOL_VERSION},
    server::Server,
};

async fn api() -> Arc<dyn Api> {
    api_and_host().await.0
}

async fn api_and_host() -> (Arc<dyn Api>, SimHost) {
    let (engine, host) = engine().await;
    (Arc::new(engine.api(Caller::admin(Actor::app()))), host)
}

async fn engine() -> (Engine, SimHost) {
    let clock = Arc::new(SimClock::new());
    let host = SimHost::new(clock.clone());
    let parts = Parts {
        store: Arc::new(MemoryStore::new()),
        host: Arc::new(host.clone()),
        queue: Arc::new(SimQueue::new()),
        clock,
    };
    let engine = Engine::start(parts, EngineConfig::default()).await.unwrap();
    (engine, host)
}

/// A server on a unix socket.
async fn serve(server: Server, path: &Path) {
    let listener = Listener::bind(&format!("unix:{}", path.display()))
        .await
        .unwrap();
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
}

/// A connection that has said nothing yet.
async fn stranger(path: &Path) -> ControlPlaneClient {
    let stream = UnixStream::connect(path).await.unwrap();
    let transport = Framed::new(stream, ClientCodec::new(Heard::default()));
    ControlPlaneClient::new(tarpc::client::Config::default(), transport).spawn()
}

fn hello(protocol_version: u32) -> ClientHello {
    ClientHello {
        protocol_version,
        version: "0.0.0".to_owned(),
        key: None,
    }
}

/// A client that has shown this key, or none.
async fn known(path: &Path, key: Option<&str>) -> Result<ControlPlaneClient, Refusal> {
    let client = stranger(path).await;
    let hello = ClientHello::new(PROTOCOL_VERSION, key);
    let welcome = client.hello(context::current(), hello).await.unwrap();
    welcome.map(|_| client)
}

const TEAM_KEY: &str = "sbk_team";

/// A server for the owner, and for a team.
async fn serve_a_team(path: &Path) -> Arc<dyn Api> {
    let (engine, _) = engine().await;
    let owner: Arc<dyn Api> = Arc::new(engine.api(Caller::admin(Actor::app())));
    let team = Caller::team(
        Actor::api_key("team"),
        TeamId::from_uuid(Uuid::from_u128(7)),
    );
    let server = Server::new(Arc::clone(&owner), Some("sbk_owner".to_owned()))
        .with_key(TEAM_KEY.to_owned(), Arc::new(engine.api(team)));
    serve(server, path).await;
    owner
}

#[tokio::test]
async fn r39_a_team_s_key_opens_what_is_its_team_s_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let owner = serve_a_team(&path).await;
    let theirs = owner.create(CreateSandbox::default()).await.unwrap().id;
    let team = known(&path, Some(TEAM_KEY)).await.unwrap();
    let now = context::current;

    let import = ImportTemplate {
        name: "mine".to_owned(),
        source: ImportSource::Directory {
            path: "/etc".to_owned(),
        },
        vcpus: None,
        memory_mb: None,
        disk_size_mb: None,
    };
    let refused = team.begin_import(now(), Uuid::now_v7(), import).await;
    let refused = refused.unwrap().unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
    let all = team.all_templates(now(), None, TemplatePageRequest::default());
    let refused = all.await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)), "{refused:?}");
    let plan = team.reconciler_plan(now()).await.unwrap().unwrap_err();
    assert!(matches!(plan, Error::Forbidden(_)), "{plan:?}");
    let minimal = team.delete_template(now(), Uuid::now_v7(), "minimal".to_owned());
    minimal.await.unwrap().unwrap_err();

    let unknown = Some(Error::SandboxNotFound(theirs));
    assert_eq!(team.get(now(), theirs).await.unwrap().err(), unknown);
    assert_eq!(team.destroy(now(), theirs).await.unwrap().err(), unknown);
    let spec = ProcessSpec::shell("true");
    let exec = team.exec(now(), Uuid::now_v7(), theirs, spec);
    assert_eq!(exec.await.unwrap().err(), unknown);
    let filter = SandboxFilter::default();
    let listed = team.list(now(), filter, PageRequest::default());
    assert!(listed.await.unwrap().unwrap().items.is_empty());
    assert_eq!(owner.get(theirs).await.unwrap().id, theirs);

    let mine = team.create(now(), CreateSandbox::default(), "1".to_owned());
    let mine = mine.await.unwrap().unwrap();
    assert_eq!(mine.team_id, TeamId::from_uuid(Uuid::from_u128(7)));
}

#[tokio::test]
async fn r39_nobody_joins_another_s_request_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let api = serve_a_team(&path).await;
    let id = api.create(CreateSandbox::default()).await.unwrap().id;
    let owner = known(&path, None).await.unwrap();
    let team = known(&path, Some(TEAM_KEY)).await.unwrap();
    let (now, request) = (context::current, Uuid::now_v7());
    let spec = ProcessSpec::shell("echo secret");
    let ended = owner.exec(now(), request, id, spec.clone()).await;
    assert!(matches!(ended.unwrap(), Ok(ExecProgress::Ended { .. })));
    let taken = team.exec_result(now(), request, 0).await.unwrap();
    assert!(matches!(taken, Err(Error::Unavailable(_))), "{taken:?}");
    let taken = team.exec(now(), request, id, spec).await.unwrap();
    assert_eq!(taken.err(), Some(Error::SandboxNotFound(id)));
    team.exec_forget(now(), request).await.unwrap();
    let again = owner.exec_result(now(), request, 0).await.unwrap();
    assert!(matches!(again, Ok(ExecProgress::Ended { .. })), "{again:?}");
}

#[tokio::test]
async fn trap_32_a_key_that_is_not_known_makes_nobody_the_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    serve_a_team(&path).await;
    for key in ["sbk_tea", "sbk_teams", "SBK_TEAM", "sbk_taken_away"] {
        let refused = known(&path, Some(key)).await.err();
        assert_eq!(refused, Some(Refusal::Unauthorized), "{key}");
    }
    for key in [None, Some(""), Some("sbk_owner")] {
        let owner = known(&path, key).await.unwrap();
        let request = TemplatePageRequest::default();
        let all = owner.all_templates(context::current(), None, request).await;
        all.unwrap().unwrap();
    }
    // A second hello is judged like the first, and its refusal ends what the first opened.
    let team = known(&path, Some(TEAM_KEY)).await.unwrap();
    let wrong = ClientHello::new(PROTOCOL_VERSION, Some("sbk_wrong"));
    let now = context::current;
    let refused = team.hello(now(), wrong).await.unwrap().err();
    assert_eq!(refused, Some(Refusal::Unauthorized));
    let id = SandboxId::from_uuid(Uuid::nil());
    let refused = team.get(now(), id).await.unwrap().err();
    assert!(
        matches!(refused, Some(Error::Unauthorized(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn strangers_never_keep_a_client_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    serve(Server::new(api().await, None), &path).await;
    let first = known(&path, None).await.unwrap();
    let mut strangers = Vec::new();
    for _ in 0..1100 {
        strangers.push(UnixStream::connect(&path).await.unwrap());
    }
    // All places are taken, and those who say who they are come in all the same.
    let now = context::current;
    for _ in 0..3 {
        known(&path, None)
            .await
            .unwrap()
            .heartbeat(now())
            .await
            .unwrap();
    }
    first.heartbeat(now()).await.unwrap();
    let mut rest = Vec::new();
    let oldest = strangers[0].read_to_end(&mut rest).await;
    assert!(matches!(oldest, Ok(0) | Err(_)), "its place was needed");
}

#[tokio::test]
async fn a_client_that_says_nothing_behind_its_hello_is_not_taken_for_a_stranger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    serve(Server::new(api().await, None), &path).await;
    let client = known(&path, None).await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::time::resume();
    client.heartbeat(context::current()).await.unwrap();
}

#[tokio::test]
async fn before_hello_every_call_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let api = api().await;
    serve(Server::new(Arc::clone(&api), None), &path).await;
    let client = stranger(&path).await;
    let (id, request) = (SandboxId::from_uuid(Uuid::nil()), Uuid::now_v7());
    let spec = ProcessSpec::shell("true");
    let now = context::current;
    let create = client.create(now(), CreateSandbox::default(), "k".to_owned());
    let errors = [
        create.await.unwrap().err(),
        client.get(now(), id).await.unwrap().err(),
        client.destroy(now(), id).await.unwrap().err(),
        client
            .exec(now(), request, id, spec.clone())
            .await
            .unwrap()
            .err(),
        client.exec_result(now(), request, 0).await.unwrap().err(),
        client
            .start_process(now(), request, id, spec, 0)
            .await
            .unwrap()
            .err(),
        client.processes(now(), id).await.unwrap().err(),
        client
            .read_file(now(), id, "/x".to_owned(), 0, 1)
            .await
            .unwrap()
            .err(),
        client
            .remove(now(), request, id, "/".to_owned(), true)
            .await
            .unwrap()
            .err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(Error::Unauthorized(_))), "{error:?}");
    }
    let all = api.list(SandboxFilter::default(), PageRequest::default());
    assert!(all.await.unwrap().items.is_empty());
    client
        .hello(now(), hello(PROTOCOL_VERSION))
        .await
        .unwrap()
        .unwrap();
    let error = client.get(now(), id).await.unwrap().err();
    assert_eq!(error, Some(Error::SandboxNotFound(id)));
}

#[tokio::test]
async fn a_client_of_a_far_version_is_told_so_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    serve(Server::new(api().await, None), &path).await;
    let client = stranger(&path).await;
    let now = context::current;
    let refused = client
        .hello(now(), hello(PROTOCOL_VERSION + 2))
        .await
        .unwrap();
    assert_eq!(
        refused.err(),
        Some(Refusal::Protocol {
            server_protocol_version: PROTOCOL_VERSION,
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    );
    // One attempt for each connection: a key can't be guessed on one.
    let again = client.hello(now(), hello(PROTOCOL_VERSION)).await.unwrap();
    assert_eq!(again.err(), Some(Refusal::Unauthorized));
}

#[tokio::test]
async fn trap_36_an_answer_over_the_limit_fails_its_own_call() {
    type Text = Response<String>;
    let mut server = ServerCodec::<String, String>::new(FrameLimit::for_a_stranger());
    let mut client = ClientCodec::<String, String>::new(Heard::default());
    let mut wire = BytesMut::new();
    let mut exchange = |text: String| -> Text {
        let response = Response {
            request_id: 9,
            message: Ok(text),
        };
        server.encode(response, &mut wire).unwrap();
        client.decode(&mut wire).unwrap().unwrap()
    };
    let small = exchange("fits".to_owned());
    assert_eq!(
        (small.request_id, small.message.unwrap().as_str()),
        (9, "fits")
    );
    let large = exchange("x".repeat(FRAME_MAX_BYTES));
    assert_eq!(large.request_id, 9);
    assert!(
        large
            .message
            .unwrap_err()
            .detail
            .contains("more than a message may have")
    );
    assert!(exchange("goes on".to_owned()).message.is_ok());
}

#[tokio::test]
async fn requests_sent_again_join_the_first_also_from_another_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let api = api().await;
    serve(Server::new(Arc::clone(&api), None), &path).await;
    let id = api.create(CreateSandbox::default()).await.unwrap().id;
    let request = Uuid::now_v7();
    for _ in 0..3 {
        let client = stranger(&path).await;
        let now = context::current;
        client
            .hello(now(), hello(PROTOCOL_VERSION))
            .await
            .unwrap()
            .unwrap();
        let spec = ProcessSpec::shell("sleep 0.05; spew 3");
        let ended = client
            .exec(now(), request, id, spec)
            .await
            .unwrap()
            .unwrap();
        let ExecProgress::Ended { piece, .. } = ended else {
            panic!("it runs for {:?}", Duration::from_millis(50));
        };
        assert_eq!(piece, "xxx");
    }
    assert_eq!(api.processes(id).await.unwrap().len(), 1);
}

/// What must never reach a client.
const SECRET: &str = "/var/lib/sandbox SELECT 10.0.0.1";

#[tokio::test]
async fn r33_what_the_platform_says_to_itself_is_not_told_to_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (api, host) = api_and_host().await;
    serve(Server::new(Arc::clone(&api), None), &path).await;
    let client = stranger(&path).await;
    let now = context::current;
    let welcome = client.hello(now(), hello(PROTOCOL_VERSION)).await;
    welcome.unwrap().unwrap();
    let broken = || HostError::Internal(SECRET.to_owned());

    host.fail(Call::Create, When::Before, broken());
    let create = client.create(now(), CreateSandbox::default(), "1".to_owned());
    let Err(Error::Host(words)) = create.await.unwrap() else {
        panic!("the host fails");
    };
    assert!(
        words.starts_with("the host could not do it (err-"),
        "{words}"
    );

    host.fail(Call::Create, When::Before, broken());
    let begun = client.begin_create(now(), CreateSandbox::default(), "2".to_owned());
    let operation = begun.await.unwrap().unwrap().operation.unwrap();
    let ended = client.wait_operation(now(), operation).await;
    let told = OperationStatus::Failed {
        error: Error::Host("the host could not do it".to_owned()),
    };
    assert_eq!(ended.unwrap().unwrap().status, told);
    // Those within have it all.
    let OperationStatus::Failed { error } = api.operation(operation).await.unwrap().status else {
        panic!("it failed");
    };
    assert!(error.to_string().contains(SECRET), "{error}");

    let id = api.create(CreateSandbox::default()).await.unwrap().id;
    host.fail(Call::Pause, When::Before, broken());
    let paused = client.pause(now(), Uuid::now_v7(), id).await.unwrap();
    let words = paused.unwrap_err().to_string();
    assert!(
        words.contains("err-") && !words.contains("SELECT"),
        "{words}"
    );
}
