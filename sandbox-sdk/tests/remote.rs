//! The SDK over every kind of connection: the same calls, types and errors, and what happens to
//! them when a connection breaks. The platform behind is the real engine on a simulated host.

#![cfg(feature = "rpc-server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod remote_support;

use std::{collections::BTreeMap, time::Duration};

use futures::TryStreamExt;
use remote_support::{KEY, Serving, Wire, World, connect, pattern, until};
use sandbox_core::{process::ExitStatus, sim::Call};
use sandbox_sdk::{
    Client, Error, GuestError, OperationId, PageRequest, ProcessEvent, PtySize, RemoteConfig,
    SandboxFilter, SandboxId, SandboxState,
    rpc::{Listener, Server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

const MIB: usize = 1024 * 1024;

/// Each of these runs against the engine itself, over a unix socket, and over TCP.
macro_rules! everywhere {
    ($($test:ident),* $(,)?) => {
        mod embedded { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                super::$test(&world.local()).await;
            }
        )* }
        mod unix { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                let serving = world.serve_unix().await;
                super::$test(&serving.connect().await).await;
                serving.stop().await;
            }
        )* }
        mod tcp { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                let serving = world.serve("tcp:127.0.0.1:0").await;
                super::$test(&serving.connect().await).await;
                serving.stop().await;
            }
        )* }
    };
}

everywhere!(
    r44_sandboxes_are_created_found_listed_and_destroyed,
    r44_errors_come_out_as_they_went_in,
    r4_lists_are_filtered_and_come_in_pages,
    r5_a_command_s_output_status_and_surroundings,
    r5_ten_mib_of_output_are_the_same_to_the_byte,
    r5_processes_are_followed_fed_resized_and_killed,
    r6_files_go_both_ways,
    r10_a_key_makes_one_sandbox,
);

async fn r44_sandboxes_are_created_found_listed_and_destroyed(client: &Client) {
    let sandbox = client
        .create()
        .memory_mb(256)
        .metadata("job", "one")
        .env("NAME", "value")
        .await
        .unwrap();
    let info = sandbox.info().await.unwrap();
    assert_eq!((info.id, info.state), (sandbox.id(), SandboxState::Running));
    assert_eq!(info.size.memory_mb, 256);
    assert_eq!(
        info.metadata,
        BTreeMap::from([("job".into(), "one".into())])
    );
    assert!(info.started_at.is_some());

    let found = client.get(sandbox.id()).await.unwrap();
    let output = found.exec("printenv NAME").await.unwrap();
    assert_eq!(output.stdout, "value\n");
    assert_eq!(sandbox.ping().await.unwrap().id, sandbox.id());
    let page = client.list(SandboxFilter::default(), PageRequest::default());
    assert_eq!(page.await.unwrap().items.len(), 1);

    sandbox.destroy().await.unwrap();
    sandbox.destroy().await.unwrap();
    let gone = Error::SandboxNotFound(sandbox.id());
    assert_eq!(client.get(sandbox.id()).await.err(), Some(gone));
}

async fn r44_errors_come_out_as_they_went_in(client: &Client) {
    let nobody = SandboxId::from_uuid(uuid::Uuid::from_u128(7));
    let error = client.get(nobody).await.err();
    assert_eq!(error, Some(Error::SandboxNotFound(nobody)));
    let nothing = OperationId::from_uuid(uuid::Uuid::from_u128(7));
    let error = client.operation(nothing).await.err();
    assert_eq!(error, Some(Error::OperationNotFound(nothing)));
    let error = client.create().memory_mb(1).await.err();
    assert!(
        matches!(&error, Some(Error::InvalidRequest(words)) if words.contains("memory_mb")),
        "{error:?}"
    );

    let sandbox = client.create().await.unwrap();
    let path = "/no/such/file".to_owned();
    let error = sandbox.files().read(&path).await.err();
    assert_eq!(error, Some(Error::Guest(GuestError::NotFound { path })));
    let error = sandbox.command("no-such-program").output().await.err();
    assert!(
        matches!(&error, Some(Error::Guest(GuestError::Spawn { command, .. }))
            if command == "no-such-program"),
        "{error:?}"
    );
    let error = sandbox.process(4_000_000).kill().await.err();
    let no_such = GuestError::NoSuchProcess { pid: 4_000_000 };
    assert_eq!(error, Some(Error::Guest(no_such)));
    let error = sandbox.exec("  ").await.err();
    assert!(matches!(error, Some(Error::InvalidRequest(_))), "{error:?}");
}

async fn r4_lists_are_filtered_and_come_in_pages(client: &Client) {
    let mut ids = Vec::new();
    for job in ["a", "b", "a", "a"] {
        ids.push(client.create().metadata("job", job).await.unwrap().id());
    }
    let of_a = SandboxFilter {
        metadata: BTreeMap::from([("job".to_owned(), "a".to_owned())]),
        ..SandboxFilter::default()
    };
    let mut page = PageRequest {
        after: None,
        limit: 2,
    };
    let mut seen = Vec::new();
    loop {
        let part = client.list(of_a.clone(), page).await.unwrap();
        assert!(part.items.len() <= 2);
        seen.extend(part.items.iter().map(|item| item.id));
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [ids[0], ids[2], ids[3]]);
    page.limit = 0;
    let error = client.list(of_a, page).await.err();
    assert!(matches!(error, Some(Error::InvalidRequest(_))), "{error:?}");
}

async fn r5_a_command_s_output_status_and_surroundings(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let output = sandbox
        .shell("echo out; echo err >&2; printenv X; exit 3")
        .env("X", "from outside")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status, ExitStatus::Code(3));
    assert_eq!(output.stdout, "out\nfrom outside\n");
    assert_eq!(output.stderr, "err\n");
    assert!(!output.truncated() && !output.timed_out);

    let bytes: Vec<u8> = (0..=255).collect();
    let cat = sandbox.command("cat").stdin(bytes.clone()).output();
    assert_eq!(cat.await.unwrap().stdout, bytes);
    let silent = sandbox.exec("true").await.unwrap();
    assert!(silent.stdout.is_empty() && silent.stderr.is_empty());
    let limited = sandbox
        .shell("sleep 100")
        .timeout(Duration::from_millis(50));
    let output = limited.output().await.unwrap();
    assert!(output.timed_out);
    assert_eq!(output.status, ExitStatus::Signal(9));
}

async fn r5_ten_mib_of_output_are_the_same_to_the_byte(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let content = pattern(10 * MIB + 1);
    sandbox
        .files()
        .write("/big", content.clone())
        .await
        .unwrap();
    let output = sandbox.exec("cat /big; echo end >&2").await.unwrap();
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
    assert_eq!(output.stderr, "end\n");
    assert!(!output.truncated());
    // Beyond the bound on collected output it is counted.
    let output = sandbox.exec("spew 20000000; exit 7").await.unwrap();
    assert_eq!(output.stdout.len(), 16 * MIB);
    assert_eq!(output.dropped_bytes, 20_000_000 - 16 * MIB as u64);
    assert_eq!(output.status, ExitStatus::Code(7));
}

async fn r5_processes_are_followed_fed_resized_and_killed(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let cat = sandbox
        .command("cat")
        .piped_stdin()
        .wait_for_readers()
        .spawn()
        .await
        .unwrap();
    let content = pattern(3 * MIB);
    let feed = async {
        cat.write_stdin(content.clone()).await.unwrap();
        cat.close_stdin().await.unwrap();
    };
    let read = cat.events().try_collect::<Vec<_>>();
    let ((), events) = tokio::join!(feed, read);
    let events = events.unwrap();
    assert!(stdout(&events) == content);
    assert!(matches!(events.last(), Some(ProcessEvent::Exit(exit)) if exit.status.success()));

    let terminal = sandbox
        .shell("sleep 100")
        .pty(PtySize { rows: 24, cols: 80 });
    let terminal = terminal.spawn().await.unwrap();
    let size = PtySize {
        rows: 50,
        cols: 132,
    };
    terminal.resize(size).await.unwrap();
    let listed = sandbox.processes().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .any(|process| process.pty && process.exit.is_none())
    );
    terminal.signal(15).await.unwrap();
    assert_eq!(
        terminal.wait().await.unwrap().status,
        ExitStatus::Signal(15)
    );
}

async fn r6_files_go_both_ways(client: &Client) {
    let sandbox = client.create().await.unwrap();
    let files = sandbox.files();
    let folder = tempfile::tempdir().unwrap();
    let (here, back) = (folder.path().join("here"), folder.path().join("back"));
    let content = [pattern(MIB), vec![0; 3 * MIB], pattern(MIB / 2)].concat();
    std::fs::write(&here, &content).unwrap();
    let stat = files.upload(&here, "/deep/down/file").await.unwrap();
    assert_eq!(stat.size, content.len() as u64);
    files.download("/deep/down/file", &back).await.unwrap();
    assert!(std::fs::read(&back).unwrap() == content);

    files.write("/empty", "").await.unwrap();
    assert!(files.read("/empty").await.unwrap().is_empty());
    for number in 0..7 {
        let path = format!("/deep/{number}");
        files.write(&path, "x").await.unwrap();
    }
    files.rename("/deep/0", "/deep/zero").await.unwrap();
    files.remove("/deep/1").await.unwrap();
    let names: Vec<_> = files.list("/deep").await.unwrap();
    let names: Vec<_> = names.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["2", "3", "4", "5", "6", "down", "zero"]);
    files.make_dir("/deep/under/it").await.unwrap();
    files.remove_all("/deep").await.unwrap();
    assert!(!files.exists("/deep").await.unwrap());
}

async fn r10_a_key_makes_one_sandbox(client: &Client) {
    let first = client.create().idempotency_key("k").await.unwrap();
    let second = client.create().idempotency_key("k").await.unwrap();
    assert_eq!(first.id(), second.id());
    let other = client.create().idempotency_key("k").vcpus(2).await.err();
    assert_eq!(other, Some(Error::IdempotencyMismatch));
    let without = client.create().await.unwrap();
    assert_ne!(first.id(), without.id());
}

fn stdout(events: &[ProcessEvent]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        match event {
            ProcessEvent::Stdout(more) => bytes.extend_from_slice(more),
            ProcessEvent::Dropped(count) => panic!("{count} bytes were lost"),
            ProcessEvent::Stderr(_) | ProcessEvent::Exit(_) => {}
        }
    }
    bytes
}

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
