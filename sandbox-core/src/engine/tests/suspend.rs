//! Pausing and resuming.

use super::*;
use crate::{
    host::HostSandboxState,
    operation::OperationKind,
    process::{OutputRequest, ProcessSpec},
    sim::{Call, When},
    store::Store,
};

impl World {
    pub(super) async fn pause(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.api().pause(id).await
    }

    pub(super) async fn resume(&self, id: SandboxId) -> Result<SandboxRecord, Error> {
        self.api().resume(id).await
    }

    /// How the machine stands on its host.
    pub(super) fn machine(&self, id: SandboxId) -> Option<HostSandboxState> {
        let machines = self.host.machines();
        let machine = machines.into_iter().find(|machine| machine.id == id);
        machine.map(|machine| machine.state)
    }

    /// No operation is in flight, and the record says what the host shows.
    pub(super) fn assert_true(&self, id: SandboxId, context: &str) {
        let record = self.stored(id).unwrap();
        assert_eq!(record.operation, None, "{context}");
        let expected = match self.machine(id) {
            Some(HostSandboxState::Running) => SandboxState::Running,
            Some(HostSandboxState::Paused) => SandboxState::Paused,
            _ => SandboxState::Stopped,
        };
        assert_eq!(record.state, expected, "{context}");
        for operation in self.store.all_operations() {
            assert_ne!(operation.status, OperationStatus::Running, "{context}");
        }
    }

    fn last_status(&self) -> OperationStatus {
        self.store.all_operations().last().unwrap().status.clone()
    }
}

fn odd() -> HostError {
    HostError::Internal("odd".to_owned())
}

/// A pause of a running sandbox, or a resume of a paused one.
async fn prepared(world: &World, call: Call) -> SandboxId {
    let id = world.create().await.unwrap().id;
    if call == Call::Resume {
        world.pause(id).await.unwrap();
    }
    id
}

async fn turn(world: &World, call: Call, id: SandboxId) -> Result<SandboxRecord, Error> {
    match call {
        Call::Resume => world.resume(id).await,
        _ => world.pause(id).await,
    }
}

const TURNS: [(Call, SandboxState, SandboxState); 2] = [
    (Call::Pause, SandboxState::Running, SandboxState::Paused),
    (Call::Resume, SandboxState::Paused, SandboxState::Running),
];

#[tokio::test(start_paused = true)]
async fn r12_a_resumed_sandbox_has_its_processes_and_they_noticed_nothing() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let spec = ProcessSpec::shell("echo before; sleep 10; echo after");
    let started = api.start_process(id, spec, Duration::ZERO).await.unwrap();
    world.sleep(SECOND * 4).await;
    let paused = world.pause(id).await.unwrap();
    assert_eq!(
        (paused.state, paused.operation),
        (SandboxState::Paused, None)
    );
    assert_eq!(world.machine(id), Some(HostSandboxState::Paused));
    world.sleep(SECOND * 1000).await;
    let resumed = world.resume(id).await.unwrap();
    assert_eq!(
        (resumed.state, resumed.operation),
        (SandboxState::Running, None)
    );
    let at = world.clock.now();
    let request = OutputRequest {
        offset: "before\n".len() as u64,
        max_bytes: 100,
        wait_ms: 20_000,
    };
    let output = api.read_output(id, started.pid, request).await.unwrap();
    assert_eq!(output.chunks[0].data, "after\n");
    assert_eq!(
        (world.clock.now() - at).num_seconds(),
        6,
        "time stood still in it"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_done_already_is_not_done_again() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    assert_eq!(world.resume(id).await.unwrap().state, SandboxState::Running);
    let paused = world.pause(id).await.unwrap();
    let before = (world.audit(id).await, world.store.all_operations());
    assert_eq!(world.pause(id).await.unwrap(), paused);
    assert_eq!(world.stored(id), Some(paused));
    let after = (world.audit(id).await, world.store.all_operations());
    assert_eq!(after, before);
}

#[tokio::test(start_paused = true)]
async fn r13_that_it_is_done_already_nobody_is_told_without_the_host() {
    for (call, _, goal) in TURNS {
        let world = World::new().await;
        let id = prepared(&world, call).await;
        turn(&world, call, id).await.unwrap();
        world.host.fail_always(call, When::Before, unavailable());
        let told = turn(&world, call, id).await;
        assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
        world.host.heal();
        assert_eq!(turn(&world, call, id).await.unwrap().state, goal);
        world.assert_true(id, "told by the host");
        // What is not there any more is not told done either.
        world.host.lose_machine(id);
        let told = turn(&world, call, id).await;
        assert!(matches!(told, Err(Error::InvalidState { .. })), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_ask_for_the_same_share_one_operation() {
    for (call, _, goal) in TURNS {
        let world = World::new().await;
        let id = prepared(&world, call).await;
        world.host.delay(call, SECOND);
        let (first, second) = tokio::join!(turn(&world, call, id), turn(&world, call, id));
        assert_eq!(first.as_ref().unwrap().state, goal);
        assert_eq!(first, second);
        assert_eq!(world.host.count(call), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_another_engine_is_waited_for() {
    let shared = EngineConfig {
        sole_owner: false,
        ..EngineConfig::DEFAULT
    };
    let world = World::with(shared).await;
    let other = world.another(shared).await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Pause, SECOND * 3);
    let later = async {
        world.sleep(SECOND).await;
        other.pause(id, &Actor::app()).await
    };
    let (first, second) = tokio::join!(world.pause(id), later);
    assert_eq!(first.unwrap().state, SandboxState::Paused);
    assert_eq!(second.unwrap().state, SandboxState::Paused);
    assert_eq!(world.host.count(Call::Pause), 1);
}

#[tokio::test(start_paused = true)]
async fn what_neither_runs_nor_is_paused_is_refused_with_its_reason() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.end_machine(id, "it powered off");
    world
        .within(SECOND, "it is stopped", |world| {
            world.state(id) == Some(SandboxState::Stopped)
        })
        .await;
    for refused in [world.pause(id).await, world.resume(id).await] {
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
    }
    let unknown = SandboxId::from_uuid(uuid::Uuid::nil());
    let missing = world.pause(unknown).await;
    assert_eq!(missing, Err(Error::SandboxNotFound(unknown)));
}

#[tokio::test(start_paused = true)]
async fn one_operation_at_a_time_has_a_sandbox() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Pause, SECOND * 2);
    let resume = async {
        world.sleep(SECOND).await;
        world.resume(id).await
    };
    let (paused, refused) = tokio::join!(world.pause(id), resume);
    assert_eq!(paused.unwrap().state, SandboxState::Paused);
    match refused {
        Err(Error::InvalidState { reason, .. }) => assert_eq!(reason, "it is being paused"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn r13_the_record_says_paused_before_the_order_leaves() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay_delivery(Call::Pause, SECOND * 3);
    abandon(SECOND, world.pause(id)).await;
    let record = world.stored(id).unwrap();
    assert_eq!(record.state, SandboxState::Paused);
    assert_eq!(record.operation.unwrap().kind, OperationKind::Pause);
    assert_eq!(world.host.count(Call::Pause), 0);
    assert_eq!(world.machine(id), Some(HostSandboxState::Running));
    world.sleep(SECOND * 3).await;
    world.assert_true(id, "afterwards");
}

#[tokio::test(start_paused = true)]
async fn from_the_mark_on_nothing_is_asked_of_the_guest() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    api.processes(id).await.unwrap();
    world.host.delay_delivery(Call::Pause, SECOND * 3);
    // Long before the word that it runs has had its time.
    abandon(Duration::from_millis(1), world.pause(id)).await;
    assert_eq!(world.state(id), Some(SandboxState::Paused));
    let before = world.host.count(Call::Guest);
    match api.processes(id).await {
        Err(Error::InvalidState { state, reason, .. }) => {
            assert_eq!(state, SandboxState::Paused);
            assert_eq!(reason, "it is being paused");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.host.count(Call::Guest), before);
}

#[tokio::test(start_paused = true)]
async fn trap_4_after_a_failure_the_record_says_what_the_host_says() {
    for (call, before, goal) in TURNS {
        for when in [When::Before, When::During, When::After] {
            for error in [unavailable(), odd()] {
                for always in [false, true] {
                    let world = World::new().await;
                    let id = prepared(&world, call).await;
                    let context = format!("{call:?} {when:?} {error} {always}");
                    if always {
                        world.host.fail_always(call, when, error.clone());
                    } else {
                        world.host.fail(call, when, error.clone());
                    }
                    let result = turn(&world, call, id).await;
                    world.assert_true(id, &context);
                    let repeated = error == unavailable() && !always;
                    if repeated || when == When::After {
                        assert_eq!(result.unwrap().state, goal, "{context}");
                        assert_eq!(world.last_status(), OperationStatus::Succeeded);
                    } else {
                        let error = result.unwrap_err();
                        assert_eq!(world.state(id), Some(before), "{context}");
                        assert_eq!(world.last_status(), OperationStatus::Failed { error });
                    }
                    // And it can be done again.
                    world.host.heal();
                    assert_eq!(turn(&world, call, id).await.unwrap().state, goal);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trap_4_a_machine_that_dies_in_its_pause_is_stopped_and_not_running() {
    for lost in [false, true] {
        for (call, ..) in TURNS {
            let world = World::new().await;
            let id = prepared(&world, call).await;
            world.host.delay(call, SECOND * 2);
            let death = async {
                world.sleep(SECOND).await;
                if lost {
                    world.host.lose_machine(id);
                } else {
                    world.host.end_machine(id, "the guest panicked");
                }
            };
            let (result, ()) = tokio::join!(turn(&world, call, id), death);
            assert!(result.is_err(), "{result:?}");
            let record = world.stored(id).unwrap();
            assert_eq!(
                (record.state, record.operation),
                (SandboxState::Stopped, None)
            );
            let told = if lost { "no longer holds" } else { "panicked" };
            assert!(record.reason.contains(told), "{}", record.reason);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_say_leaves_the_operation_to_the_reconciler() {
    for (call, before, _) in TURNS {
        let world = World::new().await;
        let id = prepared(&world, call).await;
        world.host.fail_always(call, When::Before, unavailable());
        world
            .host
            .fail_always(Call::List, When::Before, unavailable());
        let failed = turn(&world, call, id).await;
        assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
        let record = world.stored(id).unwrap();
        assert_eq!(record.state, SandboxState::Paused, "never by guess");
        assert!(record.operation.is_some());
        // Past its lease and the patience with a silent host: ended, and nobody knows how it stands.
        world.sleep(SECOND * 100).await;
        let record = world.stored(id).unwrap();
        assert_eq!(record.state, SandboxState::Missing);
        assert_eq!(record.operation, None);
        world.host.heal();
        world
            .within(SECOND * 5, "it is found", |world| {
                world.state(id) == Some(before)
            })
            .await;
        world.assert_true(id, "settled");
        assert!(matches!(
            world.last_status(),
            OperationStatus::Failed { .. }
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_any_write_only_delays_it() {
    for (call, _, goal) in TURNS {
        for lost in [false, true] {
            for moment_ms in [0, 5] {
                let world = World::new().await;
                let id = prepared(&world, call).await;
                world.host.delay(call, Duration::from_millis(10));
                let fault = async {
                    world.sleep(Duration::from_millis(moment_ms)).await;
                    if lost {
                        world.store.lose_next_reply();
                    } else {
                        world.store.fail_next_write();
                    }
                };
                let (result, ()) = tokio::join!(
                    async {
                        tokio::task::yield_now().await;
                        turn(&world, call, id).await
                    },
                    fault
                );
                let context = format!("{call:?}, lost {lost}, {moment_ms} ms");
                assert_eq!(result.unwrap().state, goal, "{context}");
                world.assert_true(id, &context);
                assert_eq!(world.host.count(call), 1, "{context}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r15_a_pause_goes_on_when_its_caller_has_gone() {
    for (call, _, goal) in TURNS {
        let world = World::new().await;
        let id = prepared(&world, call).await;
        world.host.delay(call, SECOND * 3);
        abandon(SECOND, turn(&world, call, id)).await;
        let operation = world.stored(id).unwrap().operation.unwrap();
        world.sleep(SECOND * 3).await;
        assert_eq!(world.state(id), Some(goal));
        world.assert_true(id, "afterwards");
        let outcome = world.api().operation(operation.id).await.unwrap();
        assert_eq!(outcome.status, OperationStatus::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_was_held_up_on_its_way_changes_nothing_any_more() {
    let config = EngineConfig {
        pause_timeout: SECOND * 5,
        ..EngineConfig::DEFAULT
    };
    let world = World::with(config).await;
    let id = world.create().await.unwrap().id;
    world.host.delay_delivery(Call::Pause, SECOND * 20);
    let failed = world.pause(id).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    world.assert_true(id, "given up");
    assert_eq!(world.state(id), Some(SandboxState::Running));
    world.host.heal();
    world.pause(id).await.unwrap();
    world.resume(id).await.unwrap();
    world.sleep(SECOND * 60).await;
    assert_eq!(world.host.count(Call::Pause), 2, "it has arrived");
    assert_eq!(world.machine(id), Some(HostSandboxState::Running));
    assert_eq!(world.state(id), Some(SandboxState::Running));
}

#[tokio::test(start_paused = true)]
async fn destroying_at_every_moment_of_a_pause_or_resume_leaves_nothing() {
    for (call, ..) in TURNS {
        for moment_ms in 0..30 {
            let world = World::new().await;
            let id = prepared(&world, call).await;
            world.host.delay(call, Duration::from_millis(20));
            world.host.delay(Call::Destroy, Duration::from_millis(3));
            let destroy = async {
                world.sleep(Duration::from_millis(moment_ms)).await;
                world.destroy(id).await
            };
            let (result, destroyed) = tokio::join!(turn(&world, call, id), destroy);
            assert_eq!(destroyed, Ok(()));
            if moment_ms < 20
                && let Ok(record) = result
            {
                panic!("{call:?} {moment_ms} ms: {record:?}");
            }
            world.sleep(SECOND).await;
            world.assert_nothing_left();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroy_does_not_wait_for_a_pause_that_hangs() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Pause, SECOND * 1000);
    abandon(SECOND, world.pause(id)).await;
    let before = world.clock.now();
    world.destroy(id).await.unwrap();
    assert!((world.clock.now() - before).num_seconds() <= 10);
    world.assert_nothing_left();
    world.sleep(SECOND * 2000).await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn r8_a_paused_sandbox_does_not_expire_and_a_resumed_one_has_its_whole_time() {
    let world = World::new().await;
    let id = world.create_with(lasting(60)).await.unwrap().id;
    world.sleep(SECOND * 50).await;
    assert_eq!(world.pause(id).await.unwrap().expires_at, None);
    world.sleep(SECOND * 5000).await;
    let resumed = world.resume(id).await.unwrap();
    let left = resumed.expires_at.unwrap() - world.clock.now();
    assert_eq!(left.num_seconds(), 60);
    world.sleep(SECOND * 59).await;
    assert_eq!(world.state(id), Some(SandboxState::Running));
    world
        .within(SECOND * 2, "it expires", |world| world.stored(id).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn r8_the_deadline_does_not_strike_in_the_middle_of_a_pause() {
    let world = World::new().await;
    let id = world.create_with(lasting(10)).await.unwrap().id;
    world.host.delay(Call::Pause, SECOND * 20);
    world.sleep(SECOND * 5).await;
    assert_eq!(world.pause(id).await.unwrap().state, SandboxState::Paused);
    world.sleep(SECOND * 100).await;
    assert_eq!(world.state(id), Some(SandboxState::Paused));
}

#[tokio::test(start_paused = true)]
async fn a_command_is_told_that_its_sandbox_is_paused_and_goes_on_with_it() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let api = world.api();
    let pause = async {
        world.sleep(SECOND * 2).await;
        world.pause(id).await
    };
    let command = api.exec(id, ProcessSpec::shell("sleep 5; echo done"));
    let (told, paused) = tokio::join!(command, pause);
    paused.unwrap();
    assert!(
        matches!(
            told,
            Err(Error::InvalidState {
                state: SandboxState::Paused,
                ..
            })
        ),
        "{told:?}"
    );
    world.sleep(SECOND * 100).await;
    world.resume(id).await.unwrap();
    let processes = api.processes(id).await.unwrap();
    assert_eq!(processes[0].exit, None);
    world.sleep(SECOND * 4).await;
    assert!(api.processes(id).await.unwrap()[0].exit.is_some());
}

#[tokio::test(start_paused = true)]
async fn r40_pausing_and_resuming_is_in_the_audit_log() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.pause(id).await.unwrap();
    world.host.fail(Call::Resume, When::Before, odd());
    world.resume(id).await.unwrap_err();
    world.resume(id).await.unwrap();
    let entries = world.store.audit_of(&id.to_string(), 20).await.unwrap();
    let told: Vec<String> = entries
        .iter()
        .skip(2)
        .map(|entry| format!("{} {}: {}", entry.action, entry.outcome, entry.reason))
        .collect();
    assert_eq!(
        told,
        [
            "sandbox.pause pausing: it is being paused",
            "sandbox.pause paused: its memory and disk are kept",
            "sandbox.resume resuming: it is being resumed",
            "sandbox.resume paused: its memory and disk are kept; it failed: the host failed: odd",
            "sandbox.resume resuming: it is being resumed",
            "sandbox.resume running: it runs",
        ]
    );
}
