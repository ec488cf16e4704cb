//! A host that says nothing, and one that is heard again.

use super::*;
use crate::sim::{Call, When};

const SECOND: Duration = Duration::from_secs(1);

fn nothing_is_heard(world: &World) {
    let error = HostError::Unavailable("no route to the host".to_owned());
    world.host.fail_always(Call::List, When::Before, error);
}

#[tokio::test(start_paused = true)]
async fn r37_a_silent_hosts_sandboxes_are_missing_and_are_true_again_when_it_returns() {
    let world = World::new().await;
    let running = world.create().await.unwrap().id;
    let paused = world.create().await.unwrap().id;
    world.api().pause(paused).await.unwrap();
    let ended = world.create().await.unwrap().id;
    nothing_is_heard(&world);
    world.sleep(SECOND * 20).await;
    assert_eq!(
        world.state(running),
        Some(SandboxState::Running),
        "too early"
    );
    world.sleep(SECOND * 20).await;
    for id in [running, paused, ended] {
        let record = world.stored(id).unwrap();
        assert_eq!(record.state, SandboxState::Missing);
        assert!(
            record.reason.contains("not been heard"),
            "{}",
            record.reason
        );
    }
    let refused = world.api().pause(running).await.unwrap_err();
    assert!(refused.to_string().contains("does not answer"), "{refused}");

    world.host.lose_machine(ended);
    world.host.heal();
    world
        .within(SECOND * 5, "the truth is back", |world| {
            world.state(running) == Some(SandboxState::Running)
                && world.state(paused) == Some(SandboxState::Paused)
                && world.state(ended) == Some(SandboxState::Stopped)
        })
        .await;
    world.api().resume(paused).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn r37_a_host_that_another_engine_hears_is_not_silent() {
    let world = World::with(EngineConfig {
        sole_owner: false,
        ..EngineConfig::default()
    })
    .await;
    let id = world.create().await.unwrap().id;
    // The same host, from the wrong side of a cut.
    let unheard = SimHost::new(world.clock.clone());
    let error = HostError::Unavailable("no route to the host".to_owned());
    unheard.fail_always(Call::List, When::Before, error);
    let parts = World::parts(&world.clock, &world.store, &unheard);
    let deaf = Engine::assemble(parts, world.config).await.unwrap();
    for _ in 0..100 {
        world.sleep(SECOND).await;
        let round = deaf.inner.round(false).await;
        assert!(matches!(round, Err(Error::Unavailable(_))), "{round:?}");
        assert_eq!(world.state(id), Some(SandboxState::Running));
    }
}

#[tokio::test(start_paused = true)]
async fn r9_a_missing_sandbox_can_be_destroyed_and_goes_when_its_host_returns() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    nothing_is_heard(&world);
    let error = HostError::Unavailable("no route to the host".to_owned());
    world.host.fail_always(Call::Destroy, When::Before, error);
    world.sleep(SECOND * 70).await;
    assert_eq!(world.state(id), Some(SandboxState::Missing));
    world.destroy(id).await.unwrap_err();
    world.host.heal();
    world
        .within(SECOND * 20, "it is gone", |world| {
            world.stored(id).is_none()
        })
        .await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn r8_an_unused_sandbox_is_paused_where_its_creator_chose_that() {
    let world = World::new().await;
    let request = CreateSandbox {
        on_timeout: Some(OnTimeout::Pause),
        ..lasting(10)
    };
    let id = world.create_with(request).await.unwrap().id;
    world.sleep(SECOND * 9).await;
    assert_eq!(world.state(id), Some(SandboxState::Running));
    world.sleep(SECOND * 2).await;
    let record = world.stored(id).unwrap();
    assert_eq!(
        (record.state, record.operation),
        (SandboxState::Paused, None)
    );
    assert_eq!(record.expires_at, None);
    let audit = world.store.all_audit();
    let entry = audit.iter().rfind(|entry| entry.outcome == "pausing");
    assert!(entry.unwrap().reason.contains("not used for 10 s"));
    // Nothing more comes of it, and it goes on where it was.
    world.sleep(SECOND * 3600).await;
    assert_eq!(world.state(id), Some(SandboxState::Paused));
    world.api().resume(id).await.unwrap();
    world.sleep(SECOND * 9).await;
    assert_eq!(world.state(id), Some(SandboxState::Running));
    world.sleep(SECOND * 2).await;
    assert_eq!(world.state(id), Some(SandboxState::Paused));
}

#[tokio::test(start_paused = true)]
async fn r8_an_unused_sandbox_that_can_not_be_paused_runs_on_and_is_tried_again() {
    let world = World::new().await;
    let request = CreateSandbox {
        on_timeout: Some(OnTimeout::Pause),
        ..lasting(10)
    };
    let id = world.create_with(request).await.unwrap().id;
    let full = HostError::DiskFull {
        place: "/".to_owned(),
        free_mb: 1,
        needed_mb: 100,
    };
    world.host.fail_always(Call::Pause, When::Before, full);
    world.sleep(SECOND * 15).await;
    assert_eq!(world.state(id), Some(SandboxState::Running));
    assert!(world.stored(id).unwrap().reason.contains("full"));
    world.host.heal();
    world
        .within(SECOND * 30, "it is paused", |world| {
            world.state(id) == Some(SandboxState::Paused)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn r34_an_administrator_sees_the_plan_and_nothing_is_done_by_looking() {
    let world = World::still().await;
    let id = world.create().await.unwrap().id;
    world.host.end_machine(id, "the guest powered off");
    let plan = world.api().reconciler_plan().await.unwrap();
    assert_eq!((plan.sandboxes, plan.silent_since), (1, None));
    assert!(plan.report.is_some());
    let [action] = &plan.actions[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(action.about, id.to_string());
    assert_eq!(action.does, "mark stopped (the guest powered off)");
    assert!(action.breaks.is_empty());
    assert_eq!(world.state(id), Some(SandboxState::Running));

    let team = crate::id::TeamId::from_uuid(uuid::Uuid::from_u128(5));
    let other = world.api_of(Caller::team(Actor::api_key("a team's"), team));
    let refused = other.reconciler_plan().await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
}
