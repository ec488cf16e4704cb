//! What becomes of calls when connections break, servers restart, and peers misbehave.

#![cfg(feature = "rpc-server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "suite/bytes.rs"]
mod bytes;
mod remote_support;

use std::time::Duration;

use bytes::{pattern, stdout};
use futures::TryStreamExt;
use remote_support::{KEY, Serving, Wire, World, connect, until};
use sandbox_core::sim::Call;
use sandbox_sdk::{
    Client, Error, PageRequest, ProcessEvent, RemoteConfig, SandboxFilter, SandboxState,
    rpc::{Listener, Server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn r5_a_stream_goes_on_where_its_connection_was_cut() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let sandbox = client.create().await.unwrap();
    let content = pattern(6 * MIB);
    sandbox
        .files()
        .write("/big", content.clone())
        .await
        .unwrap();
    let process = sandbox.shell("cat /big").wait_for_readers();
    let process = process.spawn().await.unwrap();
    let mut events = std::pin::pin!(process.events());
    let (mut seen, mut bytes) = (Vec::new(), 0);
    while let Some(event) = events.try_next().await.unwrap() {
        if let ProcessEvent::Stdout(more) = &event {
            if bytes / MIB != (bytes + more.len()) / MIB {
                wire.cut();
            }
            bytes += more.len();
        }
        seen.push(event);
    }
    assert!(stdout(&seen) == content, "{bytes} bytes");
    assert_eq!(sandbox.processes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn r5_a_command_whose_connection_is_cut_runs_once_and_to_its_end() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let sandbox = client.create().await.unwrap();
    let local = world.local().get(sandbox.id()).await.unwrap();
    let run = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.exec("echo begun; sleep 0.6; echo done").await }
    });
    for _ in 0..3 {
        until("it runs", || async {
            local.processes().await.unwrap().len() == 1
        })
        .await;
        wire.cut();
    }
    let output = run.await.unwrap().unwrap();
    assert_eq!(output.stdout, "begun\ndone\n");
    assert_eq!(local.processes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn r15_a_command_goes_on_when_its_client_has_gone() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    let local = world.local().get(sandbox.id()).await.unwrap();
    let run = tokio::spawn({
        let sandbox = sandbox.clone();
        // More than is retained: someone must go on reading.
        async move { sandbox.exec("sleep 0.1; spew 9000000; echo last").await }
    });
    until("it runs", || async {
        local.processes().await.unwrap().len() == 1
    })
    .await;
    run.abort();
    drop((sandbox, client));
    until("it ends well", || async {
        let processes = local.processes().await.unwrap();
        processes[0].exit.is_some_and(|exit| exit.status.success())
            && processes[0].output_end == 9_000_005
    })
    .await;
}

#[tokio::test]
async fn trap_38_a_create_whose_answer_is_lost_makes_one_sandbox() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    for key in [None, Some("mine")] {
        let before = world.store.all_sandboxes().len();
        wire.lose_answers();
        let create = tokio::spawn({
            let client = client.clone();
            async move {
                let create = client.create();
                match key {
                    Some(key) => create.idempotency_key(key).await,
                    None => create.await,
                }
            }
        });
        until("it runs", || async {
            let all = world.store.all_sandboxes();
            all.len() == before + 1 && all.iter().all(|one| one.state == SandboxState::Running)
        })
        .await;
        assert!(!create.is_finished());
        wire.mend();
        let sandbox = create.await.unwrap().unwrap();
        assert_eq!(sandbox.info().await.unwrap().state, SandboxState::Running);
        assert_eq!(world.store.all_sandboxes().len(), before + 1);
    }
    assert_eq!(world.host.count(Call::Create), 2);
}

#[tokio::test]
async fn trap_38_a_process_whose_start_is_not_answered_is_started_once() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let sandbox = client.create().await.unwrap();
    let local = world.local().get(sandbox.id()).await.unwrap();

    wire.lose_answers();
    let start = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.command("cat").piped_stdin().spawn().await }
    });
    until("it runs", || async {
        local.processes().await.unwrap().len() == 1
    })
    .await;
    wire.mend();
    let process = start.await.unwrap().unwrap();

    wire.lose_answers();
    let written = tokio::spawn({
        let process = process.clone();
        async move { process.write_stdin("once\n").await }
    });
    until("it was read", || async {
        local.processes().await.unwrap()[0].output_end == 5
    })
    .await;
    wire.mend();
    written.await.unwrap().unwrap();
    process.close_stdin().await.unwrap();
    let events: Vec<_> = process.events().try_collect().await.unwrap();
    assert_eq!(stdout(&events), b"once\n");
    assert_eq!(sandbox.processes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn r36_after_a_restart_reads_go_on_and_other_calls_say_what_is_not_known() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    let run = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.exec("sleep 1; echo done").await }
    });
    let local = world.local().get(sandbox.id()).await.unwrap();
    until("it runs", || async {
        local.processes().await.unwrap().len() == 1
    })
    .await;
    serving.stop().await;
    assert!(!world.socket().exists());
    let get = tokio::spawn({
        let client = client.clone();
        async move { client.get(sandbox.id()).await }
    });
    let _again = world.serve_unix().await;
    let error = run.await.unwrap().err();
    assert!(
        matches!(&error, Some(Error::Unavailable(words)) if words.contains("may have been done")),
        "{error:?}"
    );
    assert_eq!(get.await.unwrap().unwrap().id(), local.id());
    assert_eq!(local.processes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_control_plane_that_is_gone_is_a_clear_error_once_patience_ends() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let config = RemoteConfig::new(&serving.address).patience(Duration::from_millis(300));
    let client = Client::connect_with(config).await.unwrap();
    let address = serving.address.clone();
    serving.stop().await;
    let error = client.create().await.err().unwrap();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    let error = Client::connect(&address).await.err().unwrap();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let error = Client::connect("http://x").await.err().unwrap();
    assert!(matches!(error, Error::InvalidRequest(_)), "{error:?}");
}

#[tokio::test]
async fn trap_31_over_tcp_nobody_is_served_without_the_key() {
    let world = World::new().await;
    let serving = world.serve("tcp:127.0.0.1:0").await;
    let with = |key: Option<&str>| {
        let mut config = RemoteConfig::new(&serving.address);
        config.key = key.map(str::to_owned);
        Client::connect_with(config)
    };
    for wrong in [
        None,
        Some(""),
        Some("a key for test"),
        Some("A key for tests"),
    ] {
        let error = with(wrong).await.err().unwrap();
        assert!(
            matches!(error, Error::Unauthorized(_)),
            "{wrong:?}: {error:?}"
        );
        assert!(!error.to_string().contains(KEY));
    }
    with(Some(KEY)).await.unwrap().create().await.unwrap();
    for key in [None, Some(String::new())] {
        let open = Listener::bind("tcp:127.0.0.1:0").await.unwrap();
        let server = Server::new(world.api(), key);
        let error = server
            .serve(open, std::future::pending())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn trap_31_a_unix_socket_is_its_owner_s_alone_and_is_taken_from_the_dead_only() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    let path = world.socket();
    let address = format!("unix:{}", path.display());
    // What a process leaves behind that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let serving = world.serve_unix().await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let taken = Listener::bind(&address).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    Client::connect(&address)
        .await
        .unwrap()
        .create()
        .await
        .unwrap();
    serving.stop().await;
    std::fs::write(&path, "precious").unwrap();
    assert!(Listener::bind(&address).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn r42_garbage_and_giant_frames_end_their_own_connection_only() {
    let world = World::new().await;
    let serving = world.serve("tcp:127.0.0.1:0").await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    let busy = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.exec("sleep 0.3; echo fine").await }
    });
    let place = serving.address.strip_prefix("tcp:").unwrap();
    let giant = u32::MAX.to_be_bytes().to_vec();
    let large_for_a_stranger = [&100_000_u32.to_be_bytes()[..], &[0x81; 100_000]].concat();
    let not_messagepack = [&8_u32.to_be_bytes()[..], &[0xc1; 8]].concat();
    let http = b"GET /v1/sandboxes HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    for junk in [
        giant,
        large_for_a_stranger,
        not_messagepack,
        http,
        pattern(70_000),
    ] {
        let mut stream = TcpStream::connect(place).await.unwrap();
        // It may be closed before all is written.
        stream.write_all(&junk).await.ok();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
        closed.await.expect("the connection is closed").ok();
        assert!(answer.is_empty());
    }
    assert_eq!(busy.await.unwrap().unwrap().stdout, "fine\n");
}

#[tokio::test]
async fn a_silent_stranger_is_not_kept() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    tokio::time::pause();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn trap_36_a_request_over_the_limit_is_refused_and_others_go_on() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    let busy = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.exec("sleep 0.3; echo fine").await }
    });
    for length in [5 * MIB, 9 * MIB, 40 * MIB] {
        let much = sandbox.command("cat").stdin(vec![7; length]).output();
        let error = much.await.err();
        assert!(matches!(error, Some(Error::InvalidRequest(_))), "{error:?}");
    }
    assert_eq!(busy.await.unwrap().unwrap().stdout, "fine\n");
}

#[tokio::test]
async fn trap_36_a_list_larger_than_a_message_comes_in_more_pages() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let large = "x".repeat(60_000);
    const COUNT: usize = 160;
    for _ in 0..COUNT {
        client.create().env("LARGE", &large).await.unwrap();
    }
    let (mut pages, mut seen) = (0, Vec::new());
    let mut page = PageRequest {
        after: None,
        limit: PageRequest::LIMIT_MAX,
    };
    loop {
        let part = client.list(SandboxFilter::default(), page).await.unwrap();
        pages += 1;
        seen.extend(part.items.into_iter().map(|item| item.id));
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    let all: Vec<_> = world
        .store
        .all_sandboxes()
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(all.len(), COUNT);
    assert_eq!(seen, all);
    assert!(pages > 1);
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let world = World::new().await;
    let serving = world.serve_unix().await;
    let client = serving.connect().await;
    let sandbox = client.create().await.unwrap();
    // More than are let through at a time, long polls among them.
    let waiting = sandbox.shell("sleep 0.5").spawn().await.unwrap();
    let calls = (0..600).map(|number| {
        let (sandbox, waiting) = (sandbox.clone(), waiting.clone());
        async move {
            if number % 2 == 0 {
                assert!(waiting.wait().await.unwrap().status.success());
            } else {
                let output = sandbox.exec(format!("echo {number}")).await.unwrap();
                assert_eq!(output.stdout, format!("{number}\n"));
            }
        }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn two_listeners_are_one_server() {
    let world = World::new().await;
    let server = Server::new(world.api(), Some(KEY.to_owned()));
    let unix = format!("unix:{}", world.socket().display());
    let unix = Serving::begin(server.clone(), &unix).await;
    let tcp = Serving::begin(server, "tcp:127.0.0.1:0").await;
    let id = unix.connect().await.create().await.unwrap().id();
    assert_eq!(tcp.connect().await.get(id).await.unwrap().id(), id);
    unix.stop().await;
    assert_eq!(tcp.connect().await.get(id).await.unwrap().id(), id);
    tcp.stop().await;
}

#[tokio::test]
async fn a_connection_that_breaks_each_time_is_given_up() {
    let world = World::new().await;
    let _serving = world.serve_unix().await;
    let wire = Wire::to(&world);
    let client = connect(&wire.address).await;
    let sandbox = client.create().await.unwrap();
    let run = tokio::spawn(async move { sandbox.exec("sleep 5").await });
    until("it is given up", || async {
        wire.cut();
        run.is_finished()
    })
    .await;
    let error = run.await.unwrap().err();
    assert!(
        matches!(&error, Some(Error::Unavailable(words)) if words.contains("lost each time")),
        "{error:?}"
    );
}
