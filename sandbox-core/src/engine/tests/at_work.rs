//! Orders that a host is still at, or has not been given yet, when someone wants to know how a
//! machine stands: nobody is told a success that the next moment belies.

use super::*;
use crate::{
    host::HostSandboxState,
    operation::OperationKind,
    sim::{Call, When},
    template::TemplateKind,
};

/// Several engines share the store.
const SHARED: EngineConfig = EngineConfig {
    sole_owner: false,
    ..EngineConfig::DEFAULT
};

/// Engines that give an order up soon.
const HASTY: EngineConfig = EngineConfig {
    pause_timeout: Duration::from_secs(5),
    ..EngineConfig::DEFAULT
};

/// What a host can be at for long with a machine that is there.
const ORDERS: [OperationKind; 3] = [
    OperationKind::Pause,
    OperationKind::Resume,
    OperationKind::Snapshot,
];

async fn prepared(world: &World, kind: OperationKind) -> SandboxId {
    let id = world.create().await.unwrap().id;
    if kind == OperationKind::Resume {
        world.pause(id).await.unwrap();
    }
    id
}

async fn done(world: &World, id: SandboxId, kind: OperationKind) -> Result<(), Error> {
    match kind {
        OperationKind::Pause => world.pause(id).await.map(drop),
        OperationKind::Resume => world.resume(id).await.map(drop),
        _ => {
            let made = world.snapshot(id, "made", TemplateKind::Image, true);
            made.await.map(drop)
        }
    }
}

impl World {
    fn slow_host(&self) {
        for call in [Call::Pause, Call::Resume, Call::Snapshot] {
            self.host.delay(call, SECOND * 100);
        }
    }

    fn host_reports_no_more(&self) {
        self.host
            .fail_always(Call::List, When::Before, unavailable());
    }

    /// Whoever is told that it is paused, or runs, is told the truth.
    async fn assert_told_truly(&self, id: SandboxId, context: &str) {
        if let Ok(told) = self.pause(id).await {
            assert_eq!(told.state, SandboxState::Paused, "{context}");
            let stands = self.machine(id);
            assert_eq!(stands, Some(HostSandboxState::Paused), "{context}");
        }
        if let Ok(told) = self.resume(id).await {
            assert_eq!(told.state, SandboxState::Running, "{context}");
            let stands = self.machine(id);
            assert_eq!(stands, Some(HostSandboxState::Running), "{context}");
        }
    }

    async fn assert_settled_soon(&self, id: SandboxId, context: &str) {
        self.host.heal();
        self.within(SECOND * 60, context, |world| {
            let record = world.stored(id).unwrap();
            record.operation.is_none() && record.state != SandboxState::Missing
        })
        .await;
        self.assert_true(id, context);
        for expected in [SandboxState::Paused, SandboxState::Running] {
            let told = match expected {
                SandboxState::Paused => self.pause(id).await,
                _ => self.resume(id).await,
            };
            assert_eq!(told.unwrap().state, expected, "{context}");
            self.assert_true(id, context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trap_3_an_operation_does_not_end_as_its_machine_stands_in_the_middle_of_it() {
    for kind in ORDERS {
        let dead = World::with(SHARED).await;
        let world = World {
            clock: dead.clock.clone(),
            store: dead.store.clone(),
            host: dead.host.clone(),
            engine: dead.another(SHARED).await,
            config: SHARED,
        };
        let context = format!("{kind:?}");
        let id = prepared(&dead, kind).await;
        dead.slow_host();
        abandon(SECOND, done(&dead, id, kind)).await;
        // The host lives, and is at it for longer than the lease lasts.
        dead.engine.crash();
        world.sleep(SECOND * 89).await;
        let operation = world.stored(id).unwrap().operation;
        assert!(operation.is_some_and(|it| it.kind == kind), "{context}");
        // It is done with it when nobody hears of that.
        world.host_reports_no_more();
        world.sleep(SECOND * 15).await;
        world.host.heal();
        world.host_reports_no_more();
        world.assert_told_truly(id, &context).await;
        world.assert_settled_soon(id, &context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r13_an_order_that_was_given_up_does_not_end_as_its_machine_stands_in_the_middle_of_it() {
    for kind in [OperationKind::Pause, OperationKind::Resume] {
        let world = World::with(HASTY).await;
        let context = format!("{kind:?}");
        let id = prepared(&world, kind).await;
        world.slow_host();
        let given_up = done(&world, id, kind).await;
        assert!(matches!(given_up, Err(Error::Unavailable(_))), "{context}");
        let operation = world.stored(id).unwrap().operation;
        assert!(operation.is_some_and(|it| it.kind == kind), "{context}");
        world.sleep(SECOND * 40).await;
        world.host_reports_no_more();
        world.sleep(SECOND * 29).await;
        world.host.heal();
        world.host_reports_no_more();
        world.assert_told_truly(id, &context).await;
        world.assert_settled_soon(id, &context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r13_what_an_order_changed_that_came_late_belies_nobody() {
    for kind in ORDERS {
        let mut world = World::with(HASTY).await;
        let context = format!("{kind:?}");
        let id = prepared(&world, kind).await;
        for call in [Call::Pause, Call::Resume, Call::Snapshot] {
            world.host.delay_delivery(call, SECOND * 300);
        }
        let begun = done(&world, id, kind);
        let _ = tokio::time::timeout(SECOND * 10, begun).await;
        // Nobody looks any more, and the operation has ended as the machine stands.
        world.engine.crash();
        world.engine = world.assembled().await;
        world.engine.inner.round(true).await.unwrap();
        world.assert_true(id, &context);
        world.host.heal();
        world.sleep(SECOND * 300).await;
        world.assert_told_truly(id, &context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r13_what_is_told_paused_is_not_resumed_by_an_order_from_before() {
    let mut world = World::with(HASTY).await;
    let id = prepared(&world, OperationKind::Resume).await;
    world.host.delay_delivery(Call::Resume, SECOND * 300);
    let resumed = world.resume(id).await;
    assert!(matches!(resumed, Err(Error::Unavailable(_))), "{resumed:?}");
    world.engine.crash();
    world.engine = world.assembled().await;
    world.engine.inner.round(true).await.unwrap();
    assert_eq!(world.pause(id).await.unwrap().state, SandboxState::Paused);
    world.sleep(SECOND * 300).await;
    assert_eq!(world.machine(id), Some(HostSandboxState::Paused));
    let reread = world.stored(id).unwrap();
    assert_eq!(reread.state, SandboxState::Paused);
}
