use bytes::Bytes;

use super::*;
use crate::{
    api::Api,
    file::{FileData, WriteSpec},
    guest::GuestError,
    process::{Command, OutputRequest, ProcessSpec, PtySize, Stdin},
    sim::{Call, When},
};

#[tokio::test(start_paused = true)]
async fn r8_an_unused_sandbox_is_destroyed_at_its_deadline() {
    let world = World::new().await;
    let record = world.create_with(lasting(60)).await.unwrap();
    world.sleep(SECOND * 59).await;
    assert_eq!(world.state(record.id), Some(SandboxState::Running));
    world
        .within(SECOND * 2, "it expires", |world| {
            world.stored(record.id).is_none()
        })
        .await;
    world.assert_nothing_left();
    let last = world.store.all_operations().pop().unwrap();
    assert_eq!(last.status, OperationStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn r8_the_shortest_lifetime_ends_on_time() {
    let world = World::new().await;
    let id = world.create_with(lasting(1)).await.unwrap().id;
    world
        .within(SECOND * 2, "it expires", |world| world.stored(id).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn r8_pings_and_use_push_the_deadline() {
    let world = World::new().await;
    let id = world.create_with(lasting(10)).await.unwrap().id;
    let api = world.api();
    for _ in 0..5 {
        world.sleep(SECOND * 8).await;
        let record = api.ping(id).await.unwrap();
        let left = record.expires_at.unwrap() - world.clock.now();
        assert_eq!(left.num_seconds(), 10);
        world.sleep(SECOND * 8).await;
        api.processes(id).await.unwrap();
    }
    world.sleep(SECOND * 11).await;
    assert_eq!(api.ping(id).await, Err(Error::SandboxNotFound(id)));
}

#[tokio::test(start_paused = true)]
async fn r8_a_ping_that_succeeds_is_never_followed_by_its_expiry() {
    // Pings at every millisecond around the deadline, over a store slow enough for all orders of
    // reads and writes: each either keeps the sandbox, or is told.
    let (mut kept, mut refused) = (0, 0);
    for offset_ms in 0..60 {
        let world = World::new().await;
        let id = world.create_with(lasting(2)).await.unwrap().id;
        world.sleep(Duration::from_millis(1960 + offset_ms)).await;
        world.store.slow_down(Duration::from_millis(7));
        match world.api().ping(id).await {
            Ok(record) => {
                kept += 1;
                let until = record.expires_at.unwrap();
                while world.clock.now() + chrono::TimeDelta::milliseconds(10) < until {
                    let stored = world.stored(id).unwrap();
                    assert_eq!(stored.operation, None, "{offset_ms} ms");
                    assert_eq!(stored.state, SandboxState::Running, "{offset_ms} ms");
                    world.sleep(Duration::from_millis(10)).await;
                }
            }
            Err(Error::InvalidState { .. } | Error::SandboxNotFound(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        world.sleep(SECOND * 5).await;
        world.assert_nothing_left();
    }
    assert!(kept > 10 && refused > 10, "{kept} kept, {refused} refused");
}

#[tokio::test(start_paused = true)]
async fn r8_pings_at_the_same_moment_all_push() {
    let world = World::new().await;
    let id = world.create_with(lasting(600)).await.unwrap().id;
    world.store.slow_down(Duration::from_millis(3));
    world.sleep(SECOND * 5).await;
    let api = world.api();
    let pings = (0..8).map(|_| api.ping(id));
    let started = world.clock.now();
    for pinged in futures::future::join_all(pings).await {
        let expires_at = pinged.unwrap().expires_at.unwrap();
        assert!((expires_at - started).num_seconds() >= 600);
    }
    let stored = world.stored(id).unwrap().expires_at.unwrap();
    assert!((stored - started).num_seconds() >= 600);
}

#[tokio::test(start_paused = true)]
async fn r8_a_sandbox_that_was_slow_to_start_expires_on_time_too() {
    let world = World::new().await;
    // Its machine shows a while before its record says that it runs.
    for _ in 0..2 {
        world.host.fail(Call::Create, When::After, unavailable());
    }
    let id = world.create_with(lasting(1)).await.unwrap().id;
    world
        .within(SECOND * 2, "it expires", |world| world.stored(id).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn trap_10_the_deadline_is_data_and_passes_while_the_platform_is_down() {
    let mut world = World::new().await;
    let id = world.create_with(lasting(60)).await.unwrap().id;
    world.engine.crash();
    world.sleep(SECOND * 100).await;
    assert!(world.stored(id).is_some());
    world.crash().await;
    world
        .within(SECOND, "it expires", |world| world.stored(id).is_none())
        .await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn use_of_one_second_costs_one_write_of_the_store() {
    let world = World::still().await;
    let id = world.create_with(lasting(600)).await.unwrap().id;
    world.sleep(SECOND * 2).await;
    let before = world.store.transactions();
    let api = world.api();
    for _ in 0..100 {
        api.stat(id, "/tmp").await.unwrap();
    }
    // One read, one write; then the word is trusted.
    assert_eq!(world.store.transactions() - before, 2);
    world.sleep(SECOND * 2).await;
    api.stat(id, "/tmp").await.unwrap();
    assert_eq!(world.store.transactions() - before, 4);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_ends_shows_as_stopped_with_its_reason_at_once() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.end_machine(id, "the guest powered off");
    world
        .within(SECOND, "it shows as stopped", |world| {
            world.state(id) == Some(SandboxState::Stopped)
        })
        .await;
    assert_eq!(world.stored(id).unwrap().reason, "the guest powered off");
    let api = world.api();
    let refused = api.stat(id, "/").await;
    assert!(
        matches!(
            refused,
            Err(Error::InvalidState {
                state: SandboxState::Stopped,
                ..
            })
        ),
        "{refused:?}"
    );
    world.destroy(id).await.unwrap();
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_call_into_a_machine_that_just_ended_says_why_before_the_store_knows() {
    let world = World::still().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    api.stat(id, "/").await.unwrap();
    world.host.end_machine(id, "kernel panic");
    match api.stat(id, "/").await {
        Err(Error::InvalidState { state, reason, .. }) => {
            assert_eq!(state, SandboxState::Stopped);
            assert_eq!(reason, "kernel panic");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn trap_4_a_machine_lost_without_a_word_is_not_called_running() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.lose_machine(id);
    world
        .within(SECOND, "it shows as stopped", |world| {
            world.state(id) == Some(SandboxState::Stopped)
        })
        .await;
    assert!(world.stored(id).unwrap().reason.contains("no longer"));
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_guest_and_of_the_way_to_it_are_told_apart() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let missing = api.stat(id, "/nothing").await;
    let path = "/nothing".to_owned();
    assert_eq!(missing, Err(Error::Guest(GuestError::NotFound { path })));
    for when in [When::Before, When::After] {
        world.host.fail(Call::Guest, when, unavailable());
        let lost = api.stat(id, "/").await;
        assert!(matches!(lost, Err(Error::GuestUnavailable(_))), "{lost:?}");
    }
    let unknown = SandboxId::from_uuid(uuid::Uuid::nil());
    let nobody = api.stat(unknown, "/").await;
    assert_eq!(nobody, Err(Error::SandboxNotFound(unknown)));
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_in_the_making_is_not_entered() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND);
    let api = world.api();
    let begun = api.begin_create(CreateSandbox::default()).await.unwrap();
    match api.stat(begun.record.id, "/").await {
        Err(Error::InvalidState { state, reason, .. }) => {
            assert_eq!(state, SandboxState::Pending);
            assert!(reason.contains("created"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn trap_39_a_full_store_keeps_nobody_out_of_what_runs() {
    let world = World::still().await;
    let id = world.create_with(lasting(600)).await.unwrap().id;
    world.sleep(SECOND * 2).await;
    world.store.fail_next_write();
    let api = world.api();
    api.stat(id, "/").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn r6_files_go_in_and_out_byte_for_byte() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let content: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    let handle = api
        .open_write(
            id,
            WriteSpec {
                path: "/data/a/b.bin".to_owned(),
                mode: Some(0o600),
                create_parents: true,
            },
        )
        .await
        .unwrap();
    for (number, piece) in content.chunks(65_536).enumerate() {
        let piece = Bytes::copy_from_slice(piece);
        api.write_chunk(id, handle, number as u64 * 65_536, piece)
            .await
            .unwrap();
    }
    let absent = api.stat(id, "/data/a/b.bin").await;
    assert!(absent.is_err(), "nothing shows before the commit");
    let stat = api.commit_write(id, handle, 200_000).await.unwrap();
    assert_eq!((stat.size, stat.mode), (200_000, 0o600));
    let mut read = Vec::new();
    loop {
        let chunk = api
            .read_file(id, "/data/a/b.bin", read.len() as u64, 10_000)
            .await
            .unwrap();
        match chunk.data {
            FileData::Bytes(bytes) if bytes.is_empty() => break,
            FileData::Bytes(bytes) => read.extend_from_slice(&bytes),
            FileData::Hole(length) => read.resize(read.len() + length as usize, 0),
        }
    }
    assert_eq!(read, content);
    api.rename(id, "/data/a", "/data/c").await.unwrap();
    let page = api.list_dir(id, "/data", None, 10).await.unwrap();
    assert_eq!(page.entries[0].name, "c");
    let full = api.remove(id, "/data", false).await;
    assert!(matches!(
        full,
        Err(Error::Guest(GuestError::WrongKind { .. }))
    ));
    api.remove(id, "/data", true).await.unwrap();
    api.make_dir(id, "/data", 0o700, false).await.unwrap();
    let handle = api
        .open_write(
            id,
            WriteSpec {
                path: "/data/x".to_owned(),
                mode: None,
                create_parents: false,
            },
        )
        .await
        .unwrap();
    api.abort_write(id, handle).await.unwrap();
    let gone = api.commit_write(id, handle, 0).await;
    assert_eq!(gone, Err(Error::Guest(GuestError::NoSuchWrite)));
}

#[tokio::test(start_paused = true)]
async fn r5_a_background_process_is_read_written_resized_and_killed() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let mut spec = ProcessSpec::shell("cat");
    spec.stdin = Stdin::Piped;
    spec.pty = Some(PtySize { rows: 24, cols: 80 });
    let started = api.start_process(id, spec, Duration::ZERO).await.unwrap();
    let pid = started.pid;
    let taken = api.write_stdin(id, pid, "hello".into(), false).await;
    assert_eq!(taken, Ok(5));
    let request = OutputRequest {
        offset: 0,
        max_bytes: 100,
        wait_ms: 1000,
    };
    let output = api.read_output(id, pid, request).await.unwrap();
    assert_eq!(output.chunks[0].data, "hello");
    assert_eq!((output.next_offset, output.exit), (5, None));
    let again = api.read_output(id, pid, request).await.unwrap();
    assert_eq!(again, output, "an offset can be asked for twice");
    let size = PtySize { rows: 50, cols: 99 };
    api.resize_pty(id, pid, size).await.unwrap();
    api.signal(id, pid, 15, true).await.unwrap();
    let listed = api.processes(id).await.unwrap();
    assert_eq!((listed[0].pid, listed[0].output_end), (pid, 5));
    assert_eq!(
        listed[0].exit.unwrap().status,
        crate::process::ExitStatus::Signal(15)
    );
}

#[tokio::test(start_paused = true)]
async fn r42_bad_guest_requests_name_their_field_and_reach_no_guest() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let shell = ProcessSpec::shell;
    let program = |args: Vec<String>| {
        ProcessSpec::new(Command::Program {
            program: "true".to_owned(),
            args,
        })
    };
    let with = |change: fn(&mut ProcessSpec)| {
        let mut spec = shell("true");
        change(&mut spec);
        spec
    };
    let cases = vec![
        (shell(""), "cmd"),
        (shell("a\0b"), "cmd"),
        (shell(&"x".repeat(200_000)), "cmd"),
        (program(vec!["x".repeat(200_000)]), "args"),
        (program(vec!["x".repeat(1000); 200]), "args"),
        (with(|spec| spec.cwd = Some("tmp".to_owned())), "cwd"),
        (with(|spec| spec.user = Some(String::new())), "user"),
        (with(|spec| spec.timeout_ms = Some(0)), "timeout_sec"),
        (with(|spec| spec.retain_bytes = 1), "retain_bytes"),
        (
            with(|spec| spec.pty = Some(PtySize { rows: 0, cols: 1 })),
            "pty",
        ),
        (
            with(|spec| spec.stdin = Stdin::Bytes(vec![0; 5 << 20].into())),
            "stdin",
        ),
        (
            with(|spec| spec.env = [("A=".to_owned(), String::new())].into()),
            "env",
        ),
    ];
    let before = world.host.count(Call::Guest);
    for (spec, field) in cases {
        let refused = [
            api.exec(id, spec.clone()).await.unwrap_err(),
            api.start_process(id, spec, SECOND).await.unwrap_err(),
        ];
        for error in refused {
            match error {
                Error::InvalidRequest(text) => {
                    assert!(text.contains(&format!("`{field}`")), "{field}: {text}");
                }
                other => panic!("{field}: {other:?}"),
            }
        }
    }
    let big = Bytes::from(vec![0; 1 << 20]);
    let refused = [
        api.signal(id, 1, 0, false).await.unwrap_err(),
        api.signal(id, 1, 65, false).await.unwrap_err(),
        api.write_stdin(id, 1, big.clone(), false)
            .await
            .unwrap_err(),
        api.write_chunk(id, crate::file::WriteHandle(1), 0, big)
            .await
            .unwrap_err(),
        api.resize_pty(id, 1, PtySize { rows: 1, cols: 0 })
            .await
            .unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::InvalidRequest(_)), "{error:?}");
    }
    assert_eq!(world.host.count(Call::Guest), before);
}
