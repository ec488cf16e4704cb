use super::*;
use crate::{
    operation::{Operation, OperationKind},
    sim::{Call, When},
    store::{SandboxWrite, Store},
};

#[tokio::test(start_paused = true)]
async fn r9_a_destroyed_sandbox_is_gone_and_destroying_it_again_is_fine() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.destroy(id).await.unwrap();
    world.assert_nothing_left();
    assert_eq!(world.api().get(id).await, Err(Error::SandboxNotFound(id)));
    world.destroy(id).await.unwrap();
    world.destroy(id).await.unwrap();
    let unknown = SandboxId::from_uuid(uuid::Uuid::nil());
    let refused = world.destroy(unknown).await;
    assert_eq!(refused, Err(Error::SandboxNotFound(unknown)));
}

#[tokio::test(start_paused = true)]
async fn trap_9_destroying_works_from_every_state_and_during_every_operation() {
    for state in SandboxState::ALL {
        let kinds = OperationKind::ALL.into_iter().map(Some);
        for kind in kinds.chain([None]) {
            for lease_sec in [-100, 100] {
                let world = World::still().await;
                let mut record = world.create().await.unwrap();
                record.version += 1;
                record.state = state;
                record.operation = kind.map(|kind| Operation {
                    id: OperationId::from_uuid(uuid::Uuid::from_u128(1)),
                    kind,
                    started_at: world.clock.now(),
                    lease_until: world.clock.now() + chrono::TimeDelta::seconds(lease_sec),
                });
                let operations = record
                    .operation
                    .iter()
                    .map(|operation| OperationRecord {
                        id: operation.id,
                        sandbox_id: Some(record.id),
                        template_id: None,
                        kind: operation.kind,
                        status: OperationStatus::Running,
                        started_at: operation.started_at,
                        finished_at: None,
                    })
                    .collect();
                let id = record.id;
                let write = SandboxWrite {
                    template: None,
                    record,
                    operations,
                    audit: None,
                };
                world.store.update_sandbox(write).await.unwrap();
                let before = world.clock.now();
                world.destroy(id).await.unwrap();
                assert!((world.clock.now() - before).num_seconds() < 10);
                world.assert_nothing_left();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r9_destroying_cuts_a_create_short_and_neither_waits_for_ever() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND * 8);
    let begin = async {
        world.sleep(SECOND).await;
        let id = world.store.all_sandboxes()[0].id;
        let before = world.clock.now();
        world.destroy(id).await.unwrap();
        assert!((world.clock.now() - before).num_seconds() < 10);
        assert_eq!(world.api().get(id).await, Err(Error::SandboxNotFound(id)));
    };
    let (created, ()) = tokio::join!(world.create(), begin);
    match created {
        Err(Error::InvalidState { reason, .. }) => assert!(reason.contains("destroyed")),
        other => panic!("{other:?}"),
    }
    world.sleep(SECOND * 200).await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_create_that_hangs_does_not_hold_up_its_destroy_and_comes_too_late() {
    let world = World::new().await;
    world.host.delay(Call::Create, SECOND * 100);
    let begun = world
        .api()
        .begin_create(CreateSandbox::default())
        .await
        .unwrap();
    let before = world.clock.now();
    world.destroy(begun.record.id).await.unwrap();
    assert!((world.clock.now() - before).num_seconds() <= 10);
    world.assert_nothing_left();
    world.sleep(SECOND * 300).await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn destroying_at_every_moment_of_a_create_leaves_nothing() {
    for moment_ms in 0..30 {
        let world = World::new().await;
        world.host.delay(Call::Create, Duration::from_millis(20));
        world.host.delay(Call::Destroy, Duration::from_millis(3));
        let begun = world
            .api()
            .begin_create(CreateSandbox::default())
            .await
            .unwrap();
        world.sleep(Duration::from_millis(moment_ms)).await;
        world.destroy(begun.record.id).await.unwrap();
        world.sleep(SECOND).await;
        world.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_destroy_at_once_share_one_operation() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Destroy, SECOND);
    let (first, second) = tokio::join!(world.destroy(id), world.destroy(id));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(world.host.count(Call::Destroy), 1);
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn two_engines_that_destroy_at_once_both_succeed() {
    let config = EngineConfig {
        sole_owner: false,
        ..EngineConfig::default()
    };
    let world = World::with(config).await;
    let other = world.another(config).await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Destroy, SECOND);
    let actor = Actor::app();
    let (first, second) = tokio::join!(world.destroy(id), other.destroy(id, &actor));
    assert_eq!((first, second), (Ok(()), Ok(())));
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn r15_a_destroy_goes_on_when_its_caller_has_gone() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Destroy, SECOND * 3);
    abandon(SECOND, world.destroy(id)).await;
    assert!(world.stored(id).is_some());
    world
        .within(SECOND * 3, "it is gone", |world| world.stored(id).is_none())
        .await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn an_order_to_destroy_is_given_again_when_it_fails() {
    for when in [When::Before, When::After] {
        for error in [unavailable(), HostError::Internal("odd".to_owned())] {
            let world = World::new().await;
            let id = world.create().await.unwrap().id;
            world.host.fail(Call::Destroy, when, error.clone());
            world.host.fail(Call::Destroy, when, error);
            world.destroy(id).await.unwrap();
            world.assert_nothing_left();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_its_host_cannot_do_is_told_and_done_later_by_itself() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    let odd = HostError::Internal("odd".to_owned());
    world.host.fail_always(Call::Destroy, When::Before, odd);
    let failed = world.destroy(id).await;
    assert!(matches!(failed, Err(Error::Host(_))), "{failed:?}");
    let operation = world.stored(id).unwrap().operation.unwrap();
    assert_eq!(operation.kind, OperationKind::Destroy);
    let again = world.destroy(id).await;
    assert!(matches!(again, Err(Error::Host(_))), "{again:?}");
    let unusable = world.api().ping(id).await;
    assert!(
        matches!(unusable, Err(Error::InvalidState { .. })),
        "{unusable:?}"
    );
    world.host.heal();
    world
        .within(SECOND * 10, "it is gone", |world| {
            world.stored(id).is_none()
        })
        .await;
    world.assert_nothing_left();
    let done = world.api().operation(operation.id).await.unwrap();
    assert_eq!(done.status, OperationStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_does_not_hang_the_destroy() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Destroy, SECOND * 100_000);
    let before = world.clock.now();
    let failed = world.destroy(id).await;
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert!((world.clock.now() - before).num_seconds() <= 31);
    world.host.heal();
    world
        .within(SECOND * 60, "it is gone", |world| {
            world.stored(id).is_none()
        })
        .await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_host_with_a_newer_machine_than_the_store_knows_is_cleared_too() {
    let world = World::still().await;
    let id = world.create().await.unwrap().id;
    world.host.put_machine(id, 9);
    world.destroy(id).await.unwrap();
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_any_write_of_a_destroy_only_delays_it() {
    for lost in [false, true] {
        for moment_ms in [0, 5] {
            let world = World::new().await;
            let id = world.create().await.unwrap().id;
            world.host.delay(Call::Destroy, Duration::from_millis(10));
            let fault = async {
                world.sleep(Duration::from_millis(moment_ms)).await;
                if lost {
                    world.store.lose_next_reply();
                } else {
                    world.store.fail_next_write();
                }
            };
            let (destroyed, ()) = tokio::join!(
                async {
                    tokio::task::yield_now().await;
                    world.destroy(id).await
                },
                fault
            );
            assert_eq!(destroyed, Ok(()), "lost {lost}, {moment_ms} ms");
            world.assert_nothing_left();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_to_create_that_arrives_after_the_destroy_is_refused_by_its_generation() {
    let world = World::new().await;
    world.host.delay(Call::Create, Duration::from_millis(100));
    world.host.delay_delivery(Call::Create, SECOND * 5);
    let begun = world
        .api()
        .begin_create(CreateSandbox::default())
        .await
        .unwrap();
    world.sleep(SECOND).await;
    let never = async {
        for _ in 0..10_000 {
            assert_eq!(world.host.machines(), vec![]);
            world.sleep(Duration::from_millis(1)).await;
        }
    };
    let (destroyed, ()) = tokio::join!(world.destroy(begun.record.id), never);
    assert_eq!(destroyed, Ok(()));
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_comes_up_after_its_destroy_is_ended_at_once() {
    for transit_sec in [5, 100] {
        let world = World::new().await;
        world
            .host
            .delay_delivery(Call::Create, SECOND * transit_sec);
        let begun = world
            .api()
            .begin_create(CreateSandbox::default())
            .await
            .unwrap();
        let forget = async {
            world
                .sleep(SECOND * transit_sec - Duration::from_millis(500))
                .await;
            world.host.forget_ended();
        };
        let (destroyed, ()) = tokio::join!(world.destroy(begun.record.id), forget);
        assert_eq!(destroyed, Ok(()));
        world.sleep(SECOND).await;
        assert_eq!(world.host.count(Call::Create), 1);
        world.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroy_that_succeeds_has_seen_the_end_of_the_create_that_it_cut_short() {
    let world = World::new().await;
    world.host.delay_delivery(Call::Create, SECOND * 5);
    let begun = world
        .api()
        .begin_create(CreateSandbox::default())
        .await
        .unwrap();
    let trouble = async {
        world.sleep(SECOND * 4).await;
        world.host.forget_ended();
        // The create's own clean-up fails as often as it tries.
        for _ in 0..world.config.order_attempts {
            world.host.fail(Call::Destroy, When::Before, unavailable());
        }
    };
    let (destroyed, ()) = tokio::join!(world.destroy(begun.record.id), trouble);
    assert_eq!(destroyed, Ok(()));
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_cut_short_gives_no_more_orders() {
    let config = EngineConfig {
        backoff: SECOND * 2,
        ..EngineConfig::DEFAULT
    };
    let world = World::with(config).await;
    world
        .host
        .fail_always(Call::Create, When::Before, unavailable());
    let begun = world
        .api()
        .begin_create(CreateSandbox::default())
        .await
        .unwrap();
    world.sleep(SECOND).await;
    world.destroy(begun.record.id).await.unwrap();
    world.sleep(SECOND * 20).await;
    assert_eq!(world.host.count(Call::Create), 1);
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn two_that_take_up_an_abandoned_destroy_share_it() {
    let world = World::still().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Destroy, SECOND * 5);
    abandon(SECOND, world.destroy(id)).await;
    world.engine.crash();
    let engine = world.assembled().await;
    let before = world.host.count(Call::Destroy);
    let actor = Actor::app();
    let (first, second, third) = tokio::join!(
        engine.destroy(id, &actor),
        engine.destroy(id, &actor),
        engine.destroy(id, &actor)
    );
    assert_eq!((first, second, third), (Ok(()), Ok(()), Ok(())));
    assert_eq!(world.host.count(Call::Destroy) - before, 1);
    world.assert_nothing_left();
}
