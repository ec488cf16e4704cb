use super::*;
use crate::{
    api::Api,
    guest::GuestError,
    process::{Command, DEFAULT_RETAIN_BYTES, ExitStatus, ProcessSpec, Stdin},
    sim::{Call, When},
};

#[tokio::test(start_paused = true)]
async fn r5_exec_gives_both_streams_apart_the_code_and_the_time() {
    let world = World::new().await;
    let mut request = CreateSandbox::default();
    request.env.insert("WHO".to_owned(), "world".to_owned());
    let id = world.create_with(request).await.unwrap().id;
    let spec = ProcessSpec::shell("echo out; sleep 2; echo err >&2; printenv WHO; exit 3");
    let output = world.api().exec(id, spec).await.unwrap();
    assert_eq!(output.status, ExitStatus::Code(3));
    assert_eq!(output.stdout, "out\nworld\n");
    assert_eq!(output.stderr, "err\n");
    assert_eq!(output.duration, SECOND * 2);
    assert!(!output.truncated() && !output.timed_out);
}

#[tokio::test(start_paused = true)]
async fn r5_exec_takes_stdin_and_has_a_time_limit() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let mut spec = ProcessSpec::new(Command::Program {
        program: "cat".to_owned(),
        args: vec![],
    });
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    spec.stdin = Stdin::Bytes(bytes.clone().into());
    let output = world.api().exec(id, spec).await.unwrap();
    assert_eq!(output.stdout, bytes);
    let mut spec = ProcessSpec::shell("echo begun; sleep 1000");
    spec.timeout_ms = Some(1500);
    let output = world.api().exec(id, spec).await.unwrap();
    assert_eq!(output.status, ExitStatus::Signal(9));
    assert!(output.timed_out);
    assert_eq!(output.stdout, "begun\n");
    assert_eq!(output.duration, Duration::from_millis(1500));
}

#[tokio::test(start_paused = true)]
async fn a_short_command_is_one_call_and_at_most_one_read_of_the_store() {
    let world = World::still().await;
    let id = world.create().await.unwrap().id;
    let before = world.store.transactions();
    for round in 1..=3 {
        world
            .api()
            .exec(id, ProcessSpec::shell("echo hi"))
            .await
            .unwrap();
        assert_eq!(world.host.count(Call::Guest), round);
    }
    assert_eq!(world.store.transactions() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_start_says_so() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let spec = ProcessSpec::new(Command::Program {
        program: "nothing".to_owned(),
        args: vec![],
    });
    let failed = world.api().exec(id, spec).await;
    assert!(
        matches!(failed, Err(Error::Guest(GuestError::Spawn { .. }))),
        "{failed:?}"
    );
    let mut piped = ProcessSpec::shell("cat");
    piped.stdin = Stdin::Piped;
    let refused = world.api().exec(id, piped).await;
    assert!(matches!(refused, Err(Error::InvalidRequest(text)) if text.contains("`stdin`")));
}

#[tokio::test(start_paused = true)]
async fn r5_output_beyond_the_bound_is_counted_and_the_command_still_ends() {
    let config = EngineConfig {
        exec_output_max_bytes: 100_000,
        ..EngineConfig::default()
    };
    let world = World::with(config).await;
    let id = world.create().await.unwrap().id;
    for (written, kept) in [
        (99_999_u64, 99_999_usize),
        (100_000, 100_000),
        (100_001, 100_000),
        (50_000_000, 100_000),
    ] {
        let line = format!("spew {written}; exit 7");
        let output = world
            .api()
            .exec(id, ProcessSpec::shell(line))
            .await
            .unwrap();
        assert_eq!(output.status, ExitStatus::Code(7));
        assert_eq!(output.stdout.len(), kept);
        assert_eq!(output.dropped_bytes, written - kept as u64);
        assert_eq!(output.truncated(), written > 100_000);
    }
}

#[tokio::test(start_paused = true)]
async fn output_within_the_bound_is_never_dropped_however_small_the_guests_log() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let mut spec = ProcessSpec::shell("spew 5000000; echo end");
    spec.retain_bytes = 4096;
    let output = world.api().exec(id, spec).await.unwrap();
    assert_eq!(output.stdout.len(), 5_000_004);
    assert_eq!(output.dropped_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn r5_a_lost_connection_costs_a_running_command_nothing() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let line = "echo one; sleep 15; echo two; sleep 15; echo three";
    let api = world.api();
    let exec = api.exec(id, ProcessSpec::shell(line));
    let faults = async {
        for when in [When::Before, When::After] {
            world.sleep(SECOND * 12).await;
            world.host.fail(Call::Guest, when, unavailable());
        }
    };
    let (output, ()) = tokio::join!(exec, faults);
    assert_eq!(output.unwrap().stdout, "one\ntwo\nthree\n");
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_at_the_start_is_told_and_nothing_runs_twice() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.fail(Call::Guest, When::After, unavailable());
    let lost = world.api().exec(id, ProcessSpec::shell("echo once")).await;
    assert!(matches!(lost, Err(Error::GuestUnavailable(_))), "{lost:?}");
    let api = world.api();
    assert_eq!(api.processes(id).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_caller_has_gone_never_waits_for_a_reader() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let spec = ProcessSpec::shell("sleep 5; spew 100000000; exit 4");
    abandon(SECOND, world.api().exec(id, spec)).await;
    world.sleep(SECOND * 20).await;
    let api = world.api();
    let process = api.processes(id).await.unwrap().remove(0);
    assert_eq!(process.exit.unwrap().status, ExitStatus::Code(4));
    assert_eq!(process.output_end, 100_000_000);
}

#[tokio::test(start_paused = true)]
async fn nobody_reads_for_a_caller_who_has_gone() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let spec = ProcessSpec::shell("sleep 1000");
    abandon(SECOND * 15, world.api().exec(id, spec)).await;
    world.sleep(SECOND).await;
    let before = world.host.count(Call::Guest);
    world.sleep(SECOND * 100).await;
    assert_eq!(world.host.count(Call::Guest), before);
}

#[tokio::test(start_paused = true)]
async fn a_command_beyond_the_bound_runs_at_its_own_pace() {
    let config = EngineConfig {
        exec_output_max_bytes: 100_000,
        ..EngineConfig::default()
    };
    let world = World::with(config).await;
    let id = world.create().await.unwrap().id;
    let output = world
        .api()
        .exec(id, ProcessSpec::shell("spew 100000000"))
        .await
        .unwrap();
    assert_eq!(output.dropped_bytes, 99_900_000);
    // At the pace of its reader it would take 200.
    assert!(world.host.count(Call::Guest) < 20);
}

#[tokio::test(start_paused = true)]
async fn r8_a_long_command_is_use_and_a_background_process_is_not() {
    let world = World::new().await;
    let id = world.create_with(lasting(2)).await.unwrap().id;
    let api = world.api();
    let output = api.exec(id, ProcessSpec::shell("sleep 60; echo done"));
    assert_eq!(output.await.unwrap().stdout, "done\n");
    assert_eq!(world.state(id), Some(SandboxState::Running));
    let api = world.api();
    let spec = ProcessSpec::shell("sleep 1000");
    api.start_process(id, spec, Duration::ZERO).await.unwrap();
    world
        .within(SECOND * 4, "it expires", |world| world.stored(id).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_ends_under_a_command_ends_the_wait() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let exec = api.exec(id, ProcessSpec::shell("sleep 100000"));
    let end = async {
        world.sleep(SECOND * 15).await;
        world.host.end_machine(id, "kernel panic");
    };
    let before = world.clock.now();
    let (output, ()) = tokio::join!(exec, end);
    match output {
        Err(Error::InvalidState { state, reason, .. }) => {
            assert_eq!(state, SandboxState::Stopped);
            assert!(!reason.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert!((world.clock.now() - before).num_seconds() < 20);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_does_not_wait_for_commands() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let exec = api.exec(id, ProcessSpec::shell("sleep 100000"));
    let stop = async {
        world.sleep(SECOND * 25).await;
        assert!(world.engine.shutdown().await);
    };
    let (output, ()) = tokio::join!(exec, stop);
    assert!(matches!(output, Err(Error::Unavailable(_))), "{output:?}");
    assert_eq!(world.host.machines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn r36_a_command_whose_engine_was_killed_waits_for_no_reader() {
    let mut world = World::new().await;
    let id = world.create().await.unwrap().id;
    let line = "spew 1000; sleep 5; spew 30000000; exit 7";
    let api = world.api();
    let exec = api.exec(id, ProcessSpec::shell(line));
    abandon(SECOND * 3, async {
        tokio::select! {
            output = exec => panic!("{output:?}"),
            () = world.clock.sleep(SECOND * 2) => world.engine.crash(),
        }
        std::future::pending::<()>().await;
    })
    .await;
    world.crash().await;
    let api = world.api();
    world.sleep(SECOND * 4).await;
    let waiting = api.processes(id).await.unwrap()[0].clone();
    let full = 1000 + u64::from(DEFAULT_RETAIN_BYTES);
    assert_eq!((waiting.exit, waiting.output_end), (None, full));
    world.sleep(SECOND * 20).await;
    let ended = api.processes(id).await.unwrap()[0].clone();
    assert_eq!(ended.exit.unwrap().status, ExitStatus::Code(7));
    assert_eq!(ended.output_end, 30_001_000);
}
