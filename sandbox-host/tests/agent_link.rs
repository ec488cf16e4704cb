//! The link between client and agent: connections that break, begin anew, or never answer.

#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod agent_support;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use agent_support::{TestAgent, identity};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, future::BoxFuture};
use sandbox_core::{
    file::WriteSpec,
    guest::{CallError, Guest, GuestError},
    process::{OutputRequest, ProcessSpec, WhenFull},
};
use sandbox_host::{
    link::{
        client::{Connector, GuestClient},
        codec::{FRAME_MAX_BYTES, MessageCodec},
        preamble::{self, Preamble},
        protocol::{GuestAgentRequest, GuestAgentResponse, Identity, PROTOCOL_VERSION},
    },
    testkit::guest_contract::{Collected, exec, read_file, try_exec, write_file},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::codec::{Encoder, Framed};

const LONG: Duration = Duration::from_secs(20);

type ClientCodec =
    MessageCodec<tarpc::Response<GuestAgentResponse>, tarpc::ClientMessage<GuestAgentRequest>>;

fn ping(id: u64) -> tarpc::ClientMessage<GuestAgentRequest> {
    tarpc::ClientMessage::Request(tarpc::Request {
        context: tarpc::context::current(),
        id,
        message: GuestAgentRequest::Ping {},
    })
}

fn encoded(id: u64) -> BytesMut {
    let mut wire = BytesMut::new();
    ClientCodec::new(Preamble::new([0; 8]))
        .encode(ping(id), &mut wire)
        .unwrap();
    wire
}

/// Reads up to the answer to this preamble and returns what came behind it.
async fn answered(stream: &mut UnixStream, preamble: Preamble) -> BytesMut {
    let mut input = BytesMut::new();
    let found = async {
        while !preamble::find_own(&mut input, &preamble) {
            assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(LONG, found).await.unwrap();
    input
}

/// Sends a ping over a stream whose preamble was answered, and waits for the answer to it.
async fn ping_works(stream: UnixStream, preamble: Preamble, unread: BytesMut, id: u64) {
    let mut transport = Framed::new(stream, ClientCodec::new(preamble));
    *transport.read_buffer_mut() = unread;
    transport.send(ping(id)).await.unwrap();
    let answer = tokio::time::timeout(LONG, transport.next()).await.unwrap();
    assert_eq!(answer.unwrap().unwrap().request_id, id);
}

#[tokio::test]
async fn the_agent_introduces_itself() {
    let agent = TestAgent::start().await;
    let hello = agent.client.hello(LONG).await.unwrap();
    assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
    assert_eq!(hello.boot_id.len(), 36);
}

#[tokio::test]
async fn r16_nothing_runs_before_the_identity_is_there() {
    let agent = TestAgent::start_without_identity().await;
    let refused = try_exec(&agent.client, ProcessSpec::shell("true")).await;
    assert!(matches!(
        refused,
        Err(CallError::Guest(GuestError::Invalid(_)))
    ));
    let poor = Identity {
        entropy: Bytes::from_static(b"few"),
        ..identity()
    };
    assert!(agent.client.identify(poor).await.is_err());
    assert!(
        try_exec(&agent.client, ProcessSpec::shell("true"))
            .await
            .is_err()
    );
    agent.client.identify(identity()).await.unwrap();
    let output = exec(&agent.client, ProcessSpec::shell("echo $SANDBOX")).await;
    assert_eq!(output.stdout, "yes\n");
}

#[tokio::test]
async fn r5_a_reader_that_reconnects_misses_and_doubles_nothing() {
    let agent = TestAgent::start().await;
    let mut spec = ProcessSpec::shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done");
    spec.when_full = WhenFull::Wait;
    spec.retain_bytes = 8192;
    let started = agent
        .client
        .start_process(spec, Duration::ZERO)
        .await
        .unwrap();
    let mut collected = Collected::default();
    collected.add(started.output);
    let mut reads = 0;
    while collected.exit.is_none() {
        let request = OutputRequest {
            offset: collected.offset,
            max_bytes: 3000,
            wait_ms: 5000,
        };
        reads += 1;
        match reads % 5 {
            0 => agent.client.disconnect().await,
            // Asked for and never heard: the answer is lost with the connection.
            3 => {
                let reading = agent.client.read_output(started.pid, request);
                let _ = tokio::time::timeout(Duration::from_micros(300), reading).await;
                agent.client.disconnect().await;
            }
            _ => {}
        }
        collected.add(
            agent
                .client
                .read_output(started.pid, request)
                .await
                .unwrap(),
        );
    }
    assert!(reads > 10);
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert!(collected.stdout == expected.as_bytes() && collected.dropped_bytes == 0);
}

#[tokio::test]
async fn r6_a_lost_connection_aborts_its_writes() {
    let agent = TestAgent::start().await;
    let folder = agent.folder.join("files");
    std::fs::create_dir(&folder).unwrap();
    let spec = WriteSpec {
        path: folder.join("x").to_string_lossy().into_owned(),
        mode: None,
        create_parents: false,
    };
    let handle = agent.client.open_write(spec).await.unwrap();
    let data = Bytes::from_static(b"half");
    agent.client.write_chunk(handle, 0, data).await.unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    agent.client.disconnect().await;
    assert_eq!(
        agent.client.commit_write(handle, 4).await,
        Err(CallError::Guest(GuestError::NoSuchWrite))
    );
    let gone = async {
        while std::fs::read_dir(&folder).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
}

#[tokio::test]
async fn r6_a_reader_never_sees_a_mixture() {
    let agent = TestAgent::start().await;
    let path = agent.folder.join("file").to_string_lossy().into_owned();
    write_file(&agent.client, &path, &[b'0'; 100_000])
        .await
        .unwrap();
    let writer = async {
        for round in 1..30u8 {
            let data = vec![b'0' + round % 10; 100_000 + usize::from(round)];
            write_file(&agent.client, &path, &data).await.unwrap();
        }
    };
    let reader = async {
        for _ in 0..100 {
            let (content, _) = read_file(&agent.client, &path).await.unwrap();
            assert!(content.iter().all(|byte| *byte == content[0]));
            assert!(content.len() >= 100_000);
        }
    };
    tokio::join!(writer, reader);
}

#[tokio::test]
async fn trap_28_bytes_of_an_earlier_host_are_not_taken_for_calls() {
    let agent = TestAgent::start().await;
    let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
    let preamble = Preamble::new([1; 8]);
    let mut wire = encoded(7);
    wire.truncate(wire.len() - 3);
    wire.extend_from_slice(&preamble::MAGIC[..5]);
    wire.extend_from_slice(preamble.as_bytes());
    stream.write_all(&wire).await.unwrap();
    let unread = answered(&mut stream, preamble).await;
    assert!(unread.is_empty());
    ping_works(stream, preamble, unread, 1).await;
}

#[tokio::test]
async fn trap_28_a_new_host_on_the_same_stream_is_served_afresh() {
    let agent = TestAgent::start().await;
    // Cut nowhere, at the start, in the middle and just before the end of a frame.
    let whole = encoded(5);
    for cut in [0, 1, 4, 20, whole.len() - 1, whole.len()] {
        let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
        let old = Preamble::new([1; 8]);
        stream.write_all(old.as_bytes()).await.unwrap();
        answered(&mut stream, old).await;
        stream.write_all(&whole[..cut]).await.unwrap();
        let new = Preamble::new([2; 8]);
        // As a host does that has no answer yet.
        stream.write_all(new.as_bytes()).await.unwrap();
        stream.write_all(new.as_bytes()).await.unwrap();
        let unread = answered(&mut stream, new).await;
        ping_works(stream, new, unread, 2).await;
    }
}

#[tokio::test]
async fn unreadable_input_ends_no_one_elses_connection() {
    let agent = TestAgent::start().await;
    let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
    let preamble = Preamble::new([1; 8]);
    stream.write_all(preamble.as_bytes()).await.unwrap();
    answered(&mut stream, preamble).await;
    let length = u32::try_from(FRAME_MAX_BYTES + 1).unwrap();
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.write_all(&[0xff; 1000]).await.unwrap();
    agent.client.ping().await.unwrap();
    let again = Preamble::new([2; 8]);
    stream.write_all(again.as_bytes()).await.unwrap();
    let unread = answered(&mut stream, again).await;
    ping_works(stream, again, unread, 3).await;
}

#[tokio::test]
async fn a_machine_that_is_gone_fails_pending_and_new_calls_at_once() {
    let agent = TestAgent::start().await;
    let started = agent
        .client
        .start_process(ProcessSpec::shell("exec sleep 1000"), Duration::ZERO)
        .await
        .unwrap();
    let request = OutputRequest {
        offset: 0,
        max_bytes: 1,
        wait_ms: 60_000,
    };
    let asked = Instant::now();
    let tell = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        agent.gone.send(Some("its VM ended".into())).unwrap();
    };
    let (pending, ()) = tokio::join!(agent.client.read_output(started.pid, request), tell);
    let reason = CallError::NotRunning("its VM ended".into());
    assert_eq!(pending, Err(reason.clone()));
    assert_eq!(agent.client.ping().await, Err(reason));
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_agent_that_dies_loses_the_pending_calls() {
    let agent = TestAgent::start().await;
    let kill = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(agent.pid().cast_signed()),
            nix::sys::signal::SIGKILL,
        )
        .unwrap();
    };
    let spec = ProcessSpec::shell("sleep 3");
    let (pending, ()) = tokio::join!(agent.client.start_process(spec, LONG), kill);
    assert_eq!(pending, Err(CallError::ConnectionLost));
    let limit = Duration::from_millis(300);
    let asked = Instant::now();
    let new = agent.client.hello(limit).await;
    assert_eq!(new, Err(CallError::NoAnswer(limit)));
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_guest_that_never_answers_is_not_waited_for_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // As a VM's socket before the guest is up: it takes the connection and says nothing.
    let _mute = UnixListener::bind(&path).unwrap();
    let (_sender, not_running) = watch::channel(None);
    let client = GuestClient::unix(path, not_running);
    let limit = Duration::from_millis(200);
    assert_eq!(
        client.wait_ready(limit).await,
        Err(CallError::NoAnswer(limit))
    );
}

#[tokio::test]
async fn a_guest_that_comes_up_late_is_reached_by_the_call_that_waits() {
    let agent = TestAgent::start().await;
    let socket = agent.socket();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let connector: Connector = Arc::new(move || -> BoxFuture<'static, io::Result<UnixStream>> {
        let attempt = counted.fetch_add(1, Ordering::Relaxed);
        let socket = socket.clone();
        Box::pin(async move {
            if attempt < 5 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            UnixStream::connect(socket).await
        })
    });
    let (_sender, not_running) = watch::channel(None);
    let client = GuestClient::new(connector, not_running);
    client.wait_ready(LONG).await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(
        attempts.load(Ordering::Relaxed),
        6,
        "one connection for all calls"
    );
}

#[tokio::test]
async fn r5_the_number_of_running_processes_has_a_limit_and_ended_ones_are_forgotten() {
    let agent = TestAgent::start().await;
    let client = &agent.client;
    let mut pids = Vec::new();
    let refused = loop {
        let spec = ProcessSpec::shell("exec sleep 1000");
        match client.start_process(spec, Duration::ZERO).await {
            Ok(started) => pids.push(started.pid),
            Err(error) => break error,
        }
    };
    assert!(matches!(
        refused,
        CallError::Guest(GuestError::Limit { limit: 256, .. })
    ));
    assert_eq!(pids.len(), 256);
    for pid in &pids {
        client.signal(*pid, 9, true).await.unwrap();
    }
    let settled = async {
        loop {
            let listed = client.processes().await.unwrap();
            if listed.iter().all(|info| info.exit.is_some()) {
                return listed.len();
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, settled).await.unwrap(), 64);
    assert!(
        exec(client, ProcessSpec::shell("true"))
            .await
            .status
            .success()
    );
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    assert!(open.count() < 24, "ended processes hold no files");
}

#[tokio::test]
async fn orphans_are_reaped() {
    let agent = TestAgent::start().await;
    let line = "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done";
    assert!(
        exec(&agent.client, ProcessSpec::shell(line))
            .await
            .status
            .success()
    );
    let none_left = async {
        let children = format!("/proc/{0}/task/{0}/children", agent.pid());
        while !std::fs::read_to_string(&children)
            .unwrap()
            .trim()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, none_left).await.unwrap();
}
