//! Random lives: any calls, faults and crashes in any order; in the end all is settled.

use proptest::prelude::*;

use super::*;
use crate::{
    process::ProcessSpec,
    sim::{Call, When},
};

#[derive(Debug, Clone)]
enum Step {
    Create {
        key: Option<u8>,
        timeout_sec: Option<u64>,
    },
    /// A create whose caller goes after so many milliseconds.
    AbandonedCreate(u64),
    Destroy(usize),
    AbandonedDestroy(usize, u64),
    Ping(usize),
    Exec(usize),
    EndMachine(usize),
    LoseMachine(usize),
    UnknownMachine(u128),
    HostFault(Call, When, bool),
    HostDelay(Call, u64),
    StoreFault(bool),
    StoreLatency(u64),
    Heal,
    Sleep(u64),
    Crash,
}

fn call() -> impl Strategy<Value = Call> {
    prop::sample::select(vec![Call::Create, Call::Destroy, Call::List, Call::Guest])
}

fn when() -> impl Strategy<Value = When> {
    prop::sample::select(vec![When::Before, When::After])
}

fn step() -> impl Strategy<Value = Step> {
    let timeout = prop::option::weighted(0.3, 1..40u64);
    prop_oneof![
        4 => (prop::option::of(0..3u8), timeout)
            .prop_map(|(key, timeout_sec)| Step::Create { key, timeout_sec }),
        2 => (0..200u64).prop_map(Step::AbandonedCreate),
        3 => (0..6usize).prop_map(Step::Destroy),
        1 => (0..6usize, 0..200u64).prop_map(|(which, ms)| Step::AbandonedDestroy(which, ms)),
        1 => (0..6usize).prop_map(Step::Ping),
        1 => (0..6usize).prop_map(Step::Exec),
        1 => (0..6usize).prop_map(Step::EndMachine),
        1 => (0..6usize).prop_map(Step::LoseMachine),
        1 => (1..4u128).prop_map(Step::UnknownMachine),
        4 => (call(), when(), any::<bool>()).prop_map(|(c, w, again)| Step::HostFault(c, w, again)),
        2 => (call(), 0..20_000u64).prop_map(|(call, ms)| Step::HostDelay(call, ms)),
        3 => any::<bool>().prop_map(Step::StoreFault),
        1 => (0..300u64).prop_map(Step::StoreLatency),
        1 => Just(Step::Heal),
        5 => (0..15_000u64).prop_map(Step::Sleep),
        2 => Just(Step::Crash),
    ]
}

impl World {
    fn pick(&self, which: usize) -> Option<SandboxId> {
        let records = self.store.all_sandboxes();
        records.get(which).map(|record| record.id)
    }

    /// Takes a step; calls go to the engine that is given, crashes strike the world's own.
    async fn take(&mut self, step: &Step, engine: Engine) {
        let actor = Actor::app();
        match step.clone() {
            Step::Create { key, timeout_sec } => {
                let request = CreateSandbox {
                    timeout_sec,
                    idempotency_key: key.map(|key| format!("key {key}")),
                    ..CreateSandbox::default()
                };
                tokio::spawn(async move { engine.create(request, &actor).await });
            }
            Step::AbandonedCreate(ms) => {
                let create = engine.create(CreateSandbox::default(), &actor);
                let _ = tokio::time::timeout(Duration::from_millis(ms), create).await;
            }
            Step::Destroy(which) => {
                if let Some(id) = self.pick(which) {
                    tokio::spawn(async move { engine.destroy(id, &actor).await });
                }
            }
            Step::AbandonedDestroy(which, ms) => {
                if let Some(id) = self.pick(which) {
                    let destroy = engine.destroy(id, &actor);
                    let _ = tokio::time::timeout(Duration::from_millis(ms), destroy).await;
                }
            }
            Step::Ping(which) => {
                if let Some(id) = self.pick(which) {
                    tokio::spawn(async move { engine.ping(id).await });
                }
            }
            Step::Exec(which) => {
                if let Some(id) = self.pick(which) {
                    let spec = ProcessSpec::shell("sleep 3; spew 1000000");
                    tokio::spawn(async move { engine.exec(id, spec).await });
                }
            }
            Step::EndMachine(which) => {
                if let Some(id) = self.pick(which) {
                    self.host.end_machine(id, "it powered off");
                }
            }
            Step::LoseMachine(which) => {
                if let Some(id) = self.pick(which) {
                    self.host.lose_machine(id);
                }
            }
            Step::UnknownMachine(number) => {
                let id = SandboxId::from_uuid(uuid::Uuid::from_u128(number));
                self.host.put_machine(id, 1);
            }
            Step::HostFault(call, when, again) => {
                let error = if again {
                    unavailable()
                } else {
                    HostError::Internal("injected".to_owned())
                };
                self.host.fail(call, when, error);
            }
            Step::HostDelay(call, ms) => self.host.delay(call, Duration::from_millis(ms)),
            Step::StoreFault(lost) if lost => self.store.lose_next_reply(),
            Step::StoreFault(_) => self.store.fail_next_write(),
            Step::StoreLatency(ms) => self.store.slow_down(Duration::from_millis(ms)),
            Step::Heal => {
                self.host.heal();
                self.store.heal();
            }
            Step::Sleep(ms) => self.sleep(Duration::from_millis(ms)).await,
            Step::Crash => {
                self.engine.crash();
                self.host.restart();
                loop {
                    let parts = Self::parts(&self.clock, &self.store, &self.host);
                    match Engine::start(parts, self.config).await {
                        Ok(engine) => break self.engine = engine,
                        Err(_) => self.sleep(SECOND).await,
                    }
                }
            }
        }
    }

    /// Everything healthy again, and time for the reconciler.
    async fn quiesce(&self) {
        self.host.heal();
        self.store.heal();
        self.store.slow_down(Duration::ZERO);
        self.sleep(SECOND * 300).await;
    }

    /// What holds at rest.
    fn assert_settled(&self) {
        let records = self.store.all_sandboxes();
        for record in &records {
            assert_eq!(record.operation, None, "unsettled: {record:?}");
            assert_ne!(record.state, SandboxState::Pending, "{record:?}");
        }
        for operation in self.store.all_operations() {
            let ended = operation.status != OperationStatus::Running;
            assert!(ended, "without an end: {operation:?}");
        }
        let machines = self.host.machines();
        for machine in &machines {
            let record = records.iter().find(|record| record.id == machine.id);
            let record = record.unwrap_or_else(|| panic!("leaked: {machine:?}"));
            assert_ne!(record.state, SandboxState::Error, "leaked: {machine:?}");
        }
        for record in records.iter().filter(|r| r.state == SandboxState::Running) {
            let runs = machines.iter().any(|machine| {
                machine.id == record.id && machine.state == crate::host::HostSandboxState::Running
            });
            assert!(runs, "said to run: {record:?}");
        }
        let mut keys: Vec<_> = records
            .iter()
            .filter_map(|r| r.idempotency_key.as_ref())
            .collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "two sandboxes under one key");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_life_ends_settled_and_everything_can_be_destroyed(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        live(EngineConfig::DEFAULT, &steps);
    }

    #[test]
    fn any_life_under_two_engines_ends_settled_too(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let shared = EngineConfig {
            sole_owner: false,
            ..EngineConfig::DEFAULT
        };
        live(shared, &steps);
    }
}

fn live(config: EngineConfig, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::with(config).await;
        let second = match config.sole_owner {
            true => None,
            false => Some(world.another(config).await),
        };
        for (number, step) in steps.iter().enumerate() {
            let engine = second.as_ref().filter(|_| number % 2 == 0);
            let engine = engine.unwrap_or(&world.engine).clone();
            world.take(step, engine).await;
        }
        world.quiesce().await;
        world.assert_settled();
        for record in world.store.all_sandboxes() {
            world.destroy(record.id).await.unwrap();
        }
        world.assert_nothing_left();
    });
}
