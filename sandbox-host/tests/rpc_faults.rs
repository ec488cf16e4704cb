//! What becomes of orders and calls when connections break, hosts restart, and peers misbehave.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rpc_support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rpc_support::{LONG, World, id, made, order, until};
use sandbox_core::{
    guest::{CallError, GuestError},
    host::{Host, HostError},
    process::{OutputRequest, ProcessSpec, Stdin},
    sim::{Call, SimClock, SimHost},
};
use sandbox_host::rpc::{HostServer, Listener, NotLocal, RemoteHost, RemoteHostConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn r36_an_order_whose_connection_is_lost_is_asked_again_and_done_once() {
    let world = World::new();
    let serving = world.serve().await;
    world.host.delay(Call::Create, Duration::from_millis(400));
    let remote = world.remote();
    let create = tokio::spawn({
        let remote = remote.clone();
        async move { remote.create_sandbox(order(1, 1)).await }
    });
    until("the order arrives", || async {
        world.host.count(Call::Create) == 1
    })
    .await;
    serving.kill().await;
    let _serving = world.serve().await;
    timeout(LONG, create).await.unwrap().unwrap().unwrap();
    assert_eq!(world.host.machines().len(), 1);
    assert_eq!(world.host.count(Call::Create), 2, "asked twice");
    remote.guest(id(1)).ping().await.unwrap();
}

#[tokio::test]
async fn an_order_goes_on_when_whoever_gave_it_has_gone() {
    let world = World::new();
    let serving = world.serve().await;
    world.host.delay(Call::Create, Duration::from_millis(200));
    let remote = world.remote();
    let create = tokio::spawn(async move { remote.create_sandbox(order(1, 1)).await });
    until("the order arrives", || async {
        world.host.count(Call::Create) == 1
    })
    .await;
    create.abort();
    serving.kill().await;
    until("it is done", || async {
        world.host.guest(id(1)).ping().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn trap_38_a_call_that_changes_a_guest_is_never_sent_twice() {
    let world = World::new();
    let serving = world.serve().await;
    let id = made(&world.host, 1).await;
    let remote = world.remote();
    let start = tokio::spawn({
        let guest = remote.guest(id);
        async move {
            guest
                .start_process(ProcessSpec::shell("sleep 60"), LONG)
                .await
        }
    });
    let local = world.host.guest(id);
    until("it runs", || async {
        local.processes().await.unwrap().len() == 1
    })
    .await;
    serving.kill().await;
    let _serving = world.serve().await;
    let lost = timeout(LONG, start).await.unwrap().unwrap();
    assert_eq!(lost.unwrap_err(), CallError::ConnectionLost);
    // Reads are asked again, and find what was begun.
    assert_eq!(remote.guest(id).processes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn r36_output_is_read_on_where_the_reader_was_when_its_host_restarts() {
    let world = World::new();
    let serving = world.serve().await;
    let id = made(&world.host, 1).await;
    let guest = world.remote().guest(id);
    let spec = ProcessSpec::shell("echo before; sleep 0.5; echo after");
    let started = guest.start_process(spec, Duration::ZERO).await.unwrap();
    let request = |offset| OutputRequest {
        offset,
        max_bytes: 1024,
        wait_ms: 10_000,
    };
    let first = guest.read_output(started.pid, request(0)).await.unwrap();
    assert_eq!(first.chunks[0].data, "before\n");
    let waiting = tokio::spawn(async move {
        guest
            .read_output(started.pid, request(first.next_offset))
            .await
    });
    tokio::task::yield_now().await;
    serving.kill().await;
    let _serving = world.serve().await;
    let second = timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(second.chunks[0].data, "after\n");
}

#[tokio::test]
async fn a_host_that_stays_away_is_unavailable_when_patience_ends() {
    let world = World::new();
    let remote = world.hasty(Duration::from_millis(200));
    let begun = Instant::now();
    let refused = remote.create_sandbox(order(1, 1)).await.unwrap_err();
    assert!(matches!(&refused, HostError::Unavailable(words) if words.contains("hostd.sock")));
    assert!(matches!(
        remote.hello().await,
        Err(HostError::Unavailable(_))
    ));
    assert!(matches!(
        remote.guest(id(1)).ping().await,
        Err(CallError::NoAnswer(_))
    ));
    assert!(begun.elapsed() < Duration::from_secs(5));
    // It comes back without anyone asking for that.
    let _serving = world.serve().await;
    remote.reached(LONG).await.unwrap();
    assert!(remote.hello().await.is_ok());
}

#[tokio::test]
async fn what_a_host_tells_goes_on_above_what_it_told_before_its_restart() {
    let world = World::new();
    let serving = world.serve().await;
    let remote = world.remote();
    for number in 1..=5 {
        made(&world.host, number).await;
    }
    let before = remote.list_sandboxes().await.unwrap().sequence;
    serving.kill().await;
    world.host.restart();
    let _serving = world.serve().await;
    let changed = timeout(LONG, remote.changed(before, LONG)).await.unwrap();
    assert!(changed.unwrap() > before, "a restart is a change");
    let report = remote.list_sandboxes().await.unwrap();
    assert!(report.sequence > before && report.sandboxes.len() == 5);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_at_once_and_the_right_one_is_not() {
    let world = World::new();
    let (_serving, address) = world
        .serve_at("tcp:127.0.0.1:0", Some("a secret of some length"))
        .await;
    for wrong in [None, Some(""), Some("a secret of some lengti")] {
        let mut config = RemoteHostConfig::new(&address);
        config.secret = wrong.map(str::to_owned);
        let remote = RemoteHost::new(config).unwrap();
        let begun = Instant::now();
        let refused = remote.create_sandbox(order(1, 1)).await.unwrap_err();
        let HostError::Unavailable(words) = refused else {
            panic!("{refused}");
        };
        assert!(words.contains("does not accept this key"), "{words}");
        assert!(remote.is_refused() && begun.elapsed() < Duration::from_secs(5));
    }
    assert!(world.host.machines().is_empty());
    let mut config = RemoteHostConfig::new(&address);
    config.secret = Some("a secret of some length".to_owned());
    assert!(!format!("{config:?}").contains("some length"));
    let remote = RemoteHost::new(config).unwrap();
    remote.create_sandbox(order(1, 1)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_served_or_sent_that_others_could_read() {
    let server = |secret: Option<&str>| {
        let host = SimHost::new(Arc::new(SimClock::new()));
        HostServer::new(Arc::new(host), secret.map(str::to_owned))
    };
    let open = Listener::bind("tcp:0.0.0.0:0").await.unwrap();
    let refused = server(Some("a secret")).check(&open).unwrap_err();
    assert!(matches!(refused, NotLocal::OtherMachines(_)), "{refused}");
    let loopback = Listener::bind("tcp:127.0.0.1:0").await.unwrap();
    let refused = server(None).serve(loopback, std::future::pending()).await;
    assert!(matches!(refused, Err(NotLocal::NoSecret(_))));

    let elsewhere = RemoteHost::new(RemoteHostConfig::new("tcp:192.0.2.1:7")).unwrap();
    let refused = elsewhere.list_sandboxes().await.unwrap_err().to_string();
    assert!(refused.contains("is another machine"), "{refused}");
}

#[tokio::test]
async fn trap_36_what_is_larger_than_a_message_comes_in_pieces_or_fails_alone() {
    let world = World::new();
    let _serving = world.serve().await;
    for number in 1..=1200 {
        let id = made(&world.host, number).await;
        world.host.end_machine(id, &"x".repeat(10_000));
    }
    let remote = world.remote();
    let report = remote.list_sandboxes().await.unwrap();
    assert_eq!(report, world.host.list_sandboxes().await.unwrap());

    let id = made(&world.host, 5000).await;
    let guest = remote.guest(id);
    let mut spec = ProcessSpec::shell("cat");
    spec.stdin = Stdin::Bytes(Bytes::from(vec![0; 9 * MIB]));
    let waiting = tokio::spawn({
        let remote = remote.clone();
        let seen = report.sequence + 1_000;
        async move { remote.changed(seen, Duration::from_millis(500)).await }
    });
    let refused = guest.start_process(spec, Duration::ZERO).await;
    assert!(
        matches!(&refused, Err(CallError::Guest(GuestError::Invalid(words))) if words.contains("larger")),
        "{refused:?}"
    );
    waiting.await.unwrap().unwrap();
    guest.ping().await.unwrap();
}

#[tokio::test]
async fn garbage_and_slow_peers_harm_nobody_else() {
    let world = World::new();
    let _serving = world.serve().await;
    let remote = world.remote();
    remote.hello().await.unwrap();
    let stranger = || UnixStream::connect(world.socket());
    let mut slow = Vec::new();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 3, 0xc1, 0xc1, 0xc1],
        // A stranger's frame of 1 MiB.
        &[0, 0x10, 0, 0, 1, 2, 3],
    ] {
        let mut stream = stranger().await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        // Closed, and not answered.
        let closed = timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(closed.is_err() || rest.is_empty(), "{rest:?}");
        // Half a frame, and then nothing.
        let mut stream = stranger().await.unwrap();
        stream.write_all(&[0, 0, 0, 200, 1, 2]).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        remote.hello().await.unwrap();
    }
    assert!(world.remote().hello().await.is_ok(), "new ones come in");
}
