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
    id::SandboxId,
    operation::OperationStatus,
    process::ProcessSpec,
    sandbox::{CreateSandbox, PageRequest, SandboxFilter},
    sim::{Call, MemoryStore, SimClock, SimHost, When},
    wire::{ClientCodec, ClientHello, FRAME_MAX_BYTES, FrameLimit, Heard, Refusal, ServerCodec},
};
use sandbox_host::rpc::Listener;
use tarpc::{Response, context};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, Encoder, Framed};
use uuid::Uuid;

use super::{
    protocol::{ControlPlaneClient, PROTOCOL_VERSION},
    server::Server,
};

async fn api() -> Arc<dyn Api> {
    api_and_host().await.0
}

async fn api_and_host() -> (Arc<dyn Api>, SimHost) {
    let clock = Arc::new(SimClock::new());
    let host = SimHost::new(clock.clone());
    let parts = Parts {
        store: Arc::new(MemoryStore::new()),
        host: Arc::new(host.clone()),
        clock,
    };
    let engine = Engine::start(parts, EngineConfig::default()).await.unwrap();
    (Arc::new(engine.api(Caller::admin(Actor::app()))), host)
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
        let super::protocol::ExecProgress::Ended { piece, .. } = ended else {
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
