//! The engine against a simulated host and a store in memory, in paused time.

mod at_work;
mod builds;
mod create;
mod destroy;
mod exec;
mod guest;
mod import;
mod model;
mod observe;
mod platform_templates;
mod random;
mod recovery;
mod rights;
mod settle;
mod silence;
mod snapshot;
mod suspend;
mod takeover;
mod templates;

use std::{future::Future, sync::Arc, time::Duration};

use super::*;
use crate::{
    api::Api,
    host::HostError,
    id::OperationId,
    operation::{OperationRecord, OperationStatus},
    sandbox::{CreateSandbox, OnTimeout, PageRequest, SandboxFilter, SandboxState},
    sim::{MemoryStore, SimClock, SimHost, SimQueue},
};

/// A platform in memory.
pub(super) struct World {
    clock: Arc<SimClock>,
    store: Arc<MemoryStore>,
    host: SimHost,
    engine: Engine,
    config: EngineConfig,
}

impl World {
    async fn new() -> Self {
        Self::with(EngineConfig::default()).await
    }

    async fn with(config: EngineConfig) -> Self {
        let clock = Arc::new(SimClock::new());
        let host = SimHost::new(clock.clone());
        let store = Arc::new(MemoryStore::new());
        let parts = Self::parts(&clock, &store, &host);
        let engine = Engine::start(parts, config).await.unwrap();
        Self {
            clock,
            store,
            host,
            engine,
            config,
        }
    }

    fn parts(clock: &Arc<SimClock>, store: &Arc<MemoryStore>, host: &SimHost) -> Parts {
        Parts {
            queue: Arc::new(SimQueue::new()),
            store: store.clone(),
            host: Arc::new(host.clone()),
            clock: clock.clone(),
        }
    }

    /// The same platform without background work.
    async fn still() -> Self {
        let mut world = Self::new().await;
        world.engine.crash();
        world.engine = world.assembled().await;
        world
    }

    async fn assembled(&self) -> Engine {
        let parts = Self::parts(&self.clock, &self.store, &self.host);
        Engine::assemble(parts, self.config).await.unwrap()
    }

    /// Another engine over the same store and host.
    async fn another(&self, config: EngineConfig) -> Engine {
        let parts = Self::parts(&self.clock, &self.store, &self.host);
        Engine::start(parts, config).await.unwrap()
    }

    /// The process dies and starts again.
    async fn crash(&mut self) {
        self.engine.crash();
        self.host.restart();
        self.engine = self.another(self.config).await;
    }

    /// The engine as its administrator sees it.
    fn api(&self) -> EngineApi {
        self.api_of(Caller::admin(Actor::app()))
    }

    fn api_of(&self, caller: Caller) -> EngineApi {
        self.engine.api(caller)
    }

    async fn create(&self) -> Result<SandboxRecord, Error> {
        self.create_with(CreateSandbox::default()).await
    }

    async fn create_with(&self, request: CreateSandbox) -> Result<SandboxRecord, Error> {
        self.api().create(request).await
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), Error> {
        self.api().destroy(id).await
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// Lets simulated time pass until something holds; fails when it does not within the bound.
    async fn within(&self, bound: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        const STEP: Duration = Duration::from_millis(20);
        let mut left = bound;
        while !holds(self) {
            assert!(!left.is_zero(), "not within {bound:?}: {what}");
            self.sleep(STEP).await;
            left = left.saturating_sub(STEP);
        }
    }

    fn stored(&self, id: SandboxId) -> Option<SandboxRecord> {
        let records = self.store.all_sandboxes();
        records.into_iter().find(|record| record.id == id)
    }

    fn state(&self, id: SandboxId) -> Option<SandboxState> {
        self.stored(id).map(|record| record.state)
    }

    /// No record, no machine, no operation without an end.
    fn assert_nothing_left(&self) {
        assert_eq!(self.store.all_sandboxes(), vec![]);
        assert_eq!(self.host.machines(), vec![]);
        for operation in self.store.all_operations() {
            assert_ne!(operation.status, OperationStatus::Running, "{operation:?}");
            assert!(operation.finished_at.is_some(), "{operation:?}");
        }
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn keyed(key: &str) -> CreateSandbox {
    CreateSandbox {
        idempotency_key: Some(key.to_owned()),
        ..CreateSandbox::default()
    }
}

pub(super) fn lasting(timeout_sec: u64) -> CreateSandbox {
    CreateSandbox {
        timeout_sec: Some(timeout_sec),
        ..CreateSandbox::default()
    }
}

pub(super) fn unavailable() -> HostError {
    HostError::Unavailable("injected".to_owned())
}

/// Polls a future for so long and drops it then, as a caller does that goes away.
pub(super) async fn abandon<T>(after: Duration, future: impl Future<Output = T>) {
    let finished = tokio::time::timeout(after, future).await.is_ok();
    assert!(!finished, "it was to be dropped in the middle");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_engine_ends_the_background_work() {
    let world = World::new().await;
    let World {
        engine,
        store,
        clock,
        ..
    } = world;
    clock.sleep(SECOND * 100).await;
    drop(engine);
    tokio::task::yield_now().await;
    let before = store.transactions();
    clock.sleep(SECOND * 1000).await;
    assert_eq!(store.transactions(), before);
    assert_eq!(Arc::strong_count(&store), 1);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_waits_for_operations_and_leaves_sandboxes_running() {
    let world = World::new().await;
    let id = world.create().await.unwrap().id;
    world.host.delay(crate::sim::Call::Create, SECOND * 2);
    let begun = world
        .api()
        .begin_create(CreateSandbox::default())
        .await
        .unwrap();
    assert!(world.engine.shutdown().await);
    assert_eq!(world.state(begun.record.id), Some(SandboxState::Running));
    assert_eq!(world.state(id), Some(SandboxState::Running));
    assert_eq!(world.host.machines().len(), 2);
    let refused = world.create().await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn shutting_down_has_a_bound() {
    let mut world = World::new().await;
    world.host.delay(crate::sim::Call::Create, SECOND * 100);
    let begun = world
        .api()
        .begin_create(CreateSandbox::default())
        .await
        .unwrap();
    let before = world.clock.now();
    assert!(!world.engine.shutdown().await);
    assert_eq!((world.clock.now() - before).num_seconds(), 10);
    assert_eq!(world.state(begun.record.id), Some(SandboxState::Pending));
    world.host.heal();
    world.crash().await;
    world
        .within(SECOND * 5, "the half-made sandbox is gone", |world| {
            world.store.all_sandboxes().is_empty()
        })
        .await;
    world.assert_nothing_left();
}
