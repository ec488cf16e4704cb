use super::{repair::Planned, *};
use crate::{
    operation::OperationKind,
    reconcile::Action,
    sim::{Call, When},
    store::Store,
};

const SHARED: EngineConfig = EngineConfig {
    sole_owner: false,
    ..EngineConfig::DEFAULT
};

#[tokio::test(start_paused = true)]
async fn r36_a_restart_of_the_platform_keeps_what_runs() {
    let mut world = World::new().await;
    let record = world.create().await.unwrap();
    world.crash().await;
    assert_eq!(world.api().get(record.id).await.unwrap(), record);
    world.api().ping(record.id).await.unwrap();
    assert_eq!(world.host.count(Call::Destroy), 0);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_died_with_the_platform_is_undone_at_the_next_start() {
    let mut world = World::new().await;
    world.host.delay(Call::Create, SECOND * 5);
    abandon(SECOND, world.create_with(keyed("k"))).await;
    let operation = world.store.all_operations().remove(0);
    world.crash().await;
    world
        .within(SECOND, "it is undone", |world| {
            world.store.all_sandboxes().is_empty()
        })
        .await;
    world.assert_nothing_left();
    let operation = world.api().operation(operation.id).await.unwrap();
    assert!(matches!(operation.status, OperationStatus::Failed { .. }));
    world.host.heal();
    let record = world.create_with(keyed("k")).await.unwrap();
    assert_eq!(record.state, SandboxState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_machine_came_up_is_completed_at_the_next_start() {
    let mut world = World::new().await;
    world.host.delay(Call::Create, SECOND * 5);
    abandon(SECOND, world.create()).await;
    let record = world.store.all_sandboxes().remove(0);
    world.engine.crash();
    // Its host went on with it.
    world.host.put_machine(record.id, record.generation);
    world.crash().await;
    let found = world.api().get(record.id).await.unwrap();
    assert_eq!(
        (found.state, found.operation),
        (SandboxState::Running, None)
    );
    let operation = world.store.all_operations().remove(0);
    assert_eq!(operation.status, OperationStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_died_with_the_platform_is_done_at_the_next_start() {
    let mut world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Destroy, SECOND * 5);
    abandon(SECOND, world.destroy(id)).await;
    world.crash().await;
    world
        .within(SECOND * 6, "it is gone", |world| world.stored(id).is_none())
        .await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn crashes_at_every_moment_of_create_and_destroy_leave_nothing_unsettled() {
    for moment_ms in 0..24 {
        let mut world = World::new().await;
        world.host.delay(Call::Create, Duration::from_millis(10));
        world.host.delay(Call::Destroy, Duration::from_millis(10));
        let life = async {
            let id = world.create().await?.id;
            world.destroy(id).await
        };
        let cut = tokio::time::timeout(Duration::from_millis(moment_ms), life).await;
        assert_eq!(cut.is_ok(), moment_ms > 20, "{moment_ms} ms");
        world.crash().await;
        world.sleep(SECOND).await;
        for record in world.store.all_sandboxes() {
            assert_eq!(record.operation, None, "{moment_ms} ms");
            assert_eq!(record.state, SandboxState::Running);
            world.destroy(record.id).await.unwrap();
        }
        world.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn among_several_engines_a_dead_ones_work_is_settled_when_its_lease_is_over() {
    let world = World::with(SHARED).await;
    let other = world.another(SHARED).await;
    world.host.delay(Call::Create, SECOND * 5);
    abandon(SECOND, world.create()).await;
    let lease_until = world.store.all_sandboxes()[0]
        .operation
        .as_ref()
        .unwrap()
        .lease_until;
    world.engine.crash();
    while world.clock.now() < lease_until {
        assert_eq!(world.store.all_sandboxes().len(), 1);
        world.sleep(Duration::from_millis(500)).await;
    }
    world
        .within(SECOND * 2, "it is settled", |world| {
            world.store.all_sandboxes().is_empty()
        })
        .await;
    world.assert_nothing_left();
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn two_reconcilers_on_one_store_do_each_thing_once() {
    let world = World::with(SHARED).await;
    let other = world.another(SHARED).await;
    let id = world.create_with(lasting(30)).await.unwrap().id;
    world.host.delay(Call::Destroy, SECOND);
    world
        .within(SECOND * 40, "it expires", |world| {
            world.stored(id).is_none()
        })
        .await;
    assert_eq!(world.host.count(Call::Destroy), 1);
    world.assert_nothing_left();
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn trap_11_a_machine_that_nobody_knows_is_destroyed_after_its_grace() {
    let world = World::new().await;
    let known = world.create().await.unwrap().id;
    let unknown = SandboxId::from_uuid(uuid::Uuid::from_u128(1));
    world.host.put_machine(unknown, 1);
    let there = |world: &World| world.host.machines().iter().any(|m| m.id == unknown);
    world.sleep(SECOND * 59).await;
    assert!(there(&world));
    world
        .within(SECOND * 3, "it is destroyed", |world| !there(world))
        .await;
    assert_eq!(world.state(known), Some(SandboxState::Running));
    assert_eq!(world.host.machines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn r37_a_machine_that_is_there_again_runs_again() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.lose_machine(id);
    world
        .within(SECOND, "it is stopped", |world| {
            world.state(id) == Some(SandboxState::Stopped)
        })
        .await;
    world.host.put_machine(id, 1);
    world
        .within(SECOND, "it runs", |world| {
            world.state(id) == Some(SandboxState::Running)
        })
        .await;
    world.api().ping(id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rounds_go_on_after_the_host_or_the_store_failed_them() {
    let world = World::new().await;
    let id = world.create_with(lasting(20)).await.unwrap().id;
    world
        .host
        .fail_always(Call::List, When::Before, unavailable());
    // Not for so long that the host counts as silent.
    world.sleep(SECOND * 25).await;
    assert!(world.stored(id).is_some());
    world.host.heal();
    world
        .within(SECOND * 5, "it expires", |world| world.stored(id).is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_report_hangs_does_not_end_the_reconciling() {
    let world = World::new().await;
    let id = world.create_with(lasting(20)).await.unwrap().id;
    world.host.delay(Call::List, SECOND * 100_000);
    world.sleep(SECOND * 10).await;
    world.host.heal();
    world
        .within(SECOND * 60, "it expires", |world| {
            world.stored(id).is_none()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_does_not_start_over_a_host_or_store_that_does_not_answer() {
    let world = World::still().await;
    for call in [Call::Hello, Call::List] {
        world.host.fail(call, When::Before, unavailable());
        let parts = World::parts(&world.clock, &world.store, &world.host);
        let failed = Engine::start(parts, EngineConfig::default()).await;
        assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_kept_for_their_time_and_then_forgotten() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.destroy(id).await.unwrap();
    let day = SECOND * 24 * 3600;
    world.sleep(day * 6).await;
    assert_eq!(world.store.all_operations().len(), 2);
    world.destroy(id).await.unwrap();
    world.sleep(day * 2).await;
    assert_eq!(world.store.all_operations(), vec![]);
    assert_eq!(world.destroy(id).await, Err(Error::SandboxNotFound(id)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_platform_is_quiet() {
    let world = World::new().await;
    world.create().await.unwrap();
    world.sleep(SECOND * 10).await;
    let before = world.host.count(Call::List);
    world.sleep(SECOND * 3000).await;
    let rounds = world.host.count(Call::List) - before;
    assert!((95..=105).contains(&rounds), "{rounds} rounds in 3000 s");
}

#[tokio::test(start_paused = true)]
async fn trap_1_sandboxes_that_start_during_a_slow_report_are_never_called_stopped() {
    let world = World::new().await;
    world.host.delay(Call::List, SECOND);
    for round in 0..30 {
        world.sleep(Duration::from_millis(137)).await;
        let id = world.create().await.unwrap().id;
        world.sleep(Duration::from_millis(211)).await;
        for record in world.store.all_sandboxes() {
            assert_eq!(record.state, SandboxState::Running, "round {round}");
            assert_eq!(record.version, 2, "round {round}");
        }
        assert!(world.stored(id).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn r35_an_action_that_was_planned_on_an_older_version_is_void() {
    let world = World::still().await;
    let planned = world.create_with(lasting(600)).await.unwrap();
    let id = planned.id;
    world.sleep(SECOND * 2).await;
    world.api().ping(id).await.unwrap();
    let current = world.stored(id).unwrap();
    assert!(current.version > planned.version);
    let version = planned.version;
    let in_flight = |kind| {
        let mut record = planned.clone();
        record.operation = Some(crate::operation::Operation {
            id: OperationId::from_uuid(uuid::Uuid::from_u128(5)),
            kind,
            started_at: record.created_at,
            lease_until: record.created_at,
        });
        record.state = SandboxState::Pending;
        record
    };
    let actions = [
        (
            Action::MarkStopped {
                id,
                version,
                reason: "it ended".to_owned(),
            },
            planned.clone(),
        ),
        (Action::Expire { id, version }, planned.clone()),
        (
            Action::CleanUp {
                id,
                version,
                generation: 1,
            },
            planned.clone(),
        ),
        (
            Action::CompleteCreate { id, version },
            in_flight(OperationKind::Create),
        ),
        (
            Action::UndoCreate { id, version },
            in_flight(OperationKind::Create),
        ),
        (
            Action::RedoDestroy { id, version },
            in_flight(OperationKind::Destroy),
        ),
    ];
    for (action, record) in actions {
        let inner = &world.engine.inner;
        inner
            .repair(&action, Planned::Sandbox(&record))
            .await
            .unwrap();
        inner.tasks.idle().await;
        assert_eq!(world.stored(id).unwrap(), current, "{action}");
        assert_eq!(world.host.machines().len(), 1, "{action}");
    }
    // Nor is a machine destroyed as unknown that has become known.
    let action = Action::DestroyUnknown { id, generation: 1 };
    let inner = &world.engine.inner;
    inner.repair(&action, Planned::Nothing).await.unwrap();
    world.engine.inner.tasks.idle().await;
    assert_eq!(world.host.machines().len(), 1);
    assert_eq!(
        world
            .store
            .audit_of(&id.to_string(), 10)
            .await
            .unwrap()
            .len(),
        2
    );
}
