//! What a peer gets that does not behave as our client does.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{path::Path, sync::Arc};

use sandbox_core::{
    guest::CallError,
    host::HostError,
    id::SandboxId,
    process::ProcessSpec,
    sim::{SimClock, SimHost},
    wire::{ClientCodec, ClientHello, Heard, Refusal},
};
use tarpc::context;
use tokio::net::UnixStream;
use tokio_util::codec::Framed;
use uuid::Uuid;

use super::{
    HostServer, Listener,
    client::calls::{Calls, Client},
    protocol::PROTOCOL_VERSION,
};

async fn serve(path: &Path) -> SimHost {
    let host = SimHost::new(Arc::new(SimClock::new()));
    let address = format!("unix:{}", path.display());
    let listener = Listener::bind(&address).await.unwrap();
    let server = HostServer::new(Arc::new(host.clone()), None);
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    host
}

/// A connection that has said nothing yet.
async fn stranger(path: &Path) -> Client {
    let stream = UnixStream::connect(path).await.unwrap();
    let transport = Framed::new(stream, ClientCodec::new(Heard::default()));
    let channel = tarpc::client::new(tarpc::client::Config::default(), transport);
    Client::from(Calls::on(channel.spawn()))
}

#[tokio::test]
async fn before_hello_every_call_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let host = serve(&path).await;
    let client = stranger(&path).await;
    let (id, now) = (SandboxId::from_uuid(Uuid::nil()), context::current);
    host.put_machine(id, 1);
    let refused = [
        client.host_info(now()).await.unwrap().err(),
        client.destroy_sandbox(now(), id, 1).await.unwrap().err(),
        client.list_sandboxes(now()).await.unwrap().err(),
        client.changed(now(), 0, 0).await.unwrap().err(),
    ];
    for error in refused {
        assert!(
            matches!(&error, Some(HostError::Unavailable(words)) if words.contains("`hello`")),
            "{error:?}"
        );
    }
    let spec = ProcessSpec::shell("true");
    let refused = client.start_process(now(), id, spec, 0).await.unwrap();
    assert!(matches!(refused, Err(CallError::NotRunning(_))));
    assert_eq!(host.machines().len(), 1);
    let hello = ClientHello::new(PROTOCOL_VERSION, None);
    client.hello(now(), hello).await.unwrap().unwrap();
    client.ping(now(), id).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_of_a_far_version_is_told_so_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    serve(&path).await;
    let client = stranger(&path).await;
    let far = ClientHello::new(PROTOCOL_VERSION + 2, None);
    let refused = client.hello(context::current(), far).await.unwrap();
    assert_eq!(refused.err(), Some(Refusal::protocol(PROTOCOL_VERSION)));
    let near = ClientHello::new(PROTOCOL_VERSION, None);
    let again = client.hello(context::current(), near).await.unwrap();
    assert_eq!(again.err(), Some(Refusal::Unauthorized));
}
