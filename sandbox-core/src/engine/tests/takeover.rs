//! Two engines at one operation, because of clocks that differ or replies that are lost. What the
//! simulation found, each with the least that shows it.

use async_trait::async_trait;
use chrono::TimeDelta;
use uuid::Uuid;

use super::{snapshot::request, *};
use crate::{
    host::HostSandboxState,
    sim::{Call, When},
    template::TemplateKind,
};

const SHARED: EngineConfig = EngineConfig {
    sole_owner: false,
    ..EngineConfig::DEFAULT
};

/// A clock that is an hour ahead.
struct Ahead(Arc<SimClock>);

#[async_trait]
impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now() + TimeDelta::hours(1)
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }

    fn new_uuid(&self) -> Uuid {
        self.0.new_uuid()
    }
}

impl World {
    /// An engine for which all leases of the others have run out.
    async fn hasty(&self) -> Engine {
        let parts = Parts {
            queue: Arc::new(SimQueue::new()),
            clock: Arc::new(Ahead(self.clock.clone())),
            ..Self::parts(&self.clock, &self.store, &self.host)
        };
        Engine::start(parts, SHARED).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_is_being_undone_is_not_called_done_by_the_engine_that_began_it() {
    let world = World::with(SHARED).await;
    world.host.delay(Call::Create, SECOND * 5);
    let api = world.api();
    let create = tokio::spawn(async move { api.create(CreateSandbox::default()).await });
    world.sleep(SECOND).await;
    // It takes the create over at once; its order reaches the host when the machine runs.
    world.host.delay_delivery(Call::Destroy, SECOND * 8);
    let _hasty = world.hasty().await;
    let told = create.await.unwrap();
    assert!(told.is_err(), "{told:?}");
    world.host.heal();
    world
        .within(SECOND * 200, "nothing is left of it", |world| {
            world.store.all_sandboxes().is_empty() && world.host.machines().is_empty()
        })
        .await;
    world.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_order_failed_leaves_a_create_alone_that_another_has_called_done() {
    let world = World::with(SHARED).await;
    world
        .host
        .fail_always(Call::Create, When::After, unavailable());
    let api = world.api();
    let create = tokio::spawn(async move { api.create(CreateSandbox::default()).await });
    world.sleep(Duration::from_millis(60)).await;
    let _hasty = world.hasty().await;
    let record = create.await.unwrap().unwrap();
    world.sleep(SECOND * 100).await;
    assert_eq!(world.state(record.id), Some(SandboxState::Running));
    assert_eq!(world.host.machines()[0].state, HostSandboxState::Running);
}

#[tokio::test(start_paused = true)]
async fn r5_a_second_destroy_succeeds_though_the_sandbox_was_made_by_a_clock_ahead() {
    let world = World::with(SHARED).await;
    let hasty = world.hasty().await;
    let api = hasty.api(Caller::admin(Actor::app()));
    let id = api.create(CreateSandbox::default()).await.unwrap().id;
    world.destroy(id).await.unwrap();
    world.destroy(id).await.unwrap();
    let log = world.store.audit_of(&id.to_string(), 10).await.unwrap();
    assert_eq!(log.last().unwrap().outcome, "removed", "{log:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_a_destroy_cut_short_has_one_end() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(Call::Snapshot, SECOND * 5);
    let asked = request(id, "cut", TemplateKind::Snapshot, true);
    let operation = world.api().begin_snapshot(asked).await.unwrap();
    world.sleep(SECOND).await;
    world.destroy(id).await.unwrap();
    let ended = world.api().operation(operation).await.unwrap();
    assert!(matches!(ended.status, OperationStatus::Failed { .. }));
    world.sleep(SECOND * 100).await;
    assert_eq!(world.api().operation(operation).await.unwrap(), ended);
    world.assert_no_template_left("it was cut short");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_that_a_sandbox_is_paused_of_which_the_host_does_not_say_how_it_stands() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world
        .host
        .fail_always(Call::List, When::Before, unavailable());
    let api = world.api();
    let asked = request(id, "running", TemplateKind::Snapshot, true);
    let made = tokio::spawn(async move { api.snapshot(asked).await });
    world.sleep(SECOND * 100).await;
    let refused = world.api().pause(id).await;
    assert!(
        matches!(refused, Err(Error::InvalidState { .. })),
        "{refused:?}"
    );
    world.host.heal();
    made.await.unwrap().unwrap();
    assert_eq!(world.state(id), Some(SandboxState::Running));
}
