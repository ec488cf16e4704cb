//! Random lives: any calls, faults and crashes in any order; in the end all is settled.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{snapshot::request, *};
use crate::{
    host::HostSandboxState,
    id::TemplateId,
    operation::OperationKind,
    process::ProcessSpec,
    sim::{Call, When, Window},
    template::{TemplateKind, TemplateState},
};

#[derive(Debug, Clone)]
enum Step {
    Create {
        key: Option<u8>,
        timeout_sec: Option<u64>,
        template: Option<u8>,
    },
    /// A create whose caller goes after so many milliseconds.
    AbandonedCreate(u64),
    Destroy(usize),
    AbandonedDestroy(usize, u64),
    Ping(usize),
    Exec(usize),
    Pause(usize),
    Resume(usize),
    /// A pause whose caller goes after so many milliseconds.
    AbandonedPause(usize, u64),
    Snapshot {
        which: usize,
        name: u8,
        kind: TemplateKind,
        resume: bool,
    },
    AbandonedSnapshot(usize, u64),
    DeleteTemplate(u8),
    /// The host pauses a machine by itself.
    PauseMachine(usize),
    ShowAtWork(Window),
    UnknownImage(u128),
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
    prop::sample::select(vec![
        Call::Create,
        Call::Destroy,
        Call::List,
        Call::Guest,
        Call::Pause,
        Call::Resume,
        Call::Snapshot,
        Call::DeleteImage,
    ])
}

fn when() -> impl Strategy<Value = When> {
    prop::sample::select(vec![When::Before, When::During, When::After])
}

fn kind() -> impl Strategy<Value = TemplateKind> {
    prop::sample::select(TemplateKind::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    let timeout = prop::option::weighted(0.3, 1..40u64);
    prop_oneof![
        4 => (prop::option::of(0..3u8), timeout, prop::option::weighted(0.3, 0..2u8)).prop_map(
            |(key, timeout_sec, template)| Step::Create { key, timeout_sec, template }
        ),
        4 => (0..6usize).prop_map(Step::Pause),
        3 => (0..6usize).prop_map(Step::Resume),
        1 => (0..6usize, 0..200u64).prop_map(|(which, ms)| Step::AbandonedPause(which, ms)),
        4 => (0..6usize, 0..2u8, kind(), any::<bool>())
            .prop_map(|(which, name, kind, resume)| Step::Snapshot { which, name, kind, resume }),
        1 => (0..6usize, 0..200u64).prop_map(|(which, ms)| Step::AbandonedSnapshot(which, ms)),
        2 => (0..2u8).prop_map(Step::DeleteTemplate),
        1 => (0..6usize).prop_map(Step::PauseMachine),
        1 => prop::sample::select(vec![Window::Absent, Window::Paused]).prop_map(Step::ShowAtWork),
        1 => (1..4u128).prop_map(|number| Step::UnknownImage(1000 + number)),
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
    /// `harmed` collects the sandboxes whose machines end without anyone's order.
    async fn take(&mut self, step: &Step, engine: Engine, harmed: &mut BTreeSet<SandboxId>) {
        let api = engine.api(Caller::admin(Actor::app()));
        match step.clone() {
            Step::Create {
                key,
                timeout_sec,
                template,
            } => {
                let request = CreateSandbox {
                    timeout_sec,
                    idempotency_key: key.map(|key| format!("key {key}")),
                    template: template.map(|number| format!("made-{number}")),
                    ..CreateSandbox::default()
                };
                tokio::spawn(async move { api.create(request).await });
            }
            Step::AbandonedCreate(ms) => {
                let create = api.create(CreateSandbox::default());
                let _ = tokio::time::timeout(Duration::from_millis(ms), create).await;
            }
            Step::Destroy(which) => {
                if let Some(id) = self.pick(which) {
                    tokio::spawn(async move { api.destroy(id).await });
                }
            }
            Step::AbandonedDestroy(which, ms) => {
                if let Some(id) = self.pick(which) {
                    let destroy = api.destroy(id);
                    let _ = tokio::time::timeout(Duration::from_millis(ms), destroy).await;
                }
            }
            Step::Ping(which) => {
                if let Some(id) = self.pick(which) {
                    tokio::spawn(async move { api.ping(id).await });
                }
            }
            Step::Exec(which) => {
                if let Some(id) = self.pick(which) {
                    let spec = ProcessSpec::shell("sleep 3; spew 1000000");
                    tokio::spawn(async move { api.exec(id, spec).await });
                }
            }
            Step::EndMachine(which) => {
                if let Some(id) = self.pick(which) {
                    harmed.insert(id);
                    self.host.end_machine(id, "it powered off");
                }
            }
            Step::LoseMachine(which) => {
                if let Some(id) = self.pick(which) {
                    harmed.insert(id);
                    self.host.lose_machine(id);
                }
            }
            Step::Pause(which) => {
                if let Some(id) = self.pick(which) {
                    tokio::spawn(async move { api.pause(id).await });
                }
            }
            Step::AbandonedPause(which, ms) => {
                if let Some(id) = self.pick(which) {
                    let _ = tokio::time::timeout(Duration::from_millis(ms), api.pause(id)).await;
                }
            }
            Step::Resume(which) => {
                if let Some(id) = self.pick(which) {
                    tokio::spawn(async move { api.resume(id).await });
                }
            }
            Step::Snapshot {
                which,
                name,
                kind,
                resume,
            } => {
                if let Some(id) = self.pick(which) {
                    let asked = request(id, &format!("made-{name}"), kind, resume);
                    tokio::spawn(async move { api.snapshot(asked).await });
                }
            }
            Step::AbandonedSnapshot(which, ms) => {
                if let Some(id) = self.pick(which) {
                    let asked = request(id, "made-0", TemplateKind::Snapshot, true);
                    let made = api.snapshot(asked);
                    let _ = tokio::time::timeout(Duration::from_millis(ms), made).await;
                }
            }
            Step::DeleteTemplate(name) => {
                tokio::spawn(async move { api.delete_template(&format!("made-{name}")).await });
            }
            Step::PauseMachine(which) => {
                if let Some(id) = self.pick(which) {
                    self.host.pause_machine(id);
                }
            }
            Step::ShowAtWork(window) => self.host.show_at_work(window),
            Step::UnknownImage(number) => {
                let id = TemplateId::from_uuid(uuid::Uuid::from_u128(number));
                self.host.put_image(id);
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

    /// No life is lost but by an order, or by what befell the machine itself.
    fn assert_nobody_lost(&self, seen: &BTreeSet<SandboxId>, harmed: &BTreeSet<SandboxId>) {
        let operations = self.store.all_operations();
        for id in seen {
            let Some(record) = self.stored(*id) else {
                let ended = operations.iter().any(|operation| {
                    operation.sandbox_id == Some(*id)
                        && match operation.kind {
                            OperationKind::Destroy => true,
                            OperationKind::Create => operation.status != OperationStatus::Succeeded,
                            _ => false,
                        }
                });
                assert!(ended, "lost: {id}");
                continue;
            };
            if !harmed.contains(id) {
                assert_ne!(record.state, SandboxState::Stopped, "{record:?}");
            }
        }
    }

    /// Each template has its image, each image its template.
    fn assert_templates_settled(&self, records: &[SandboxRecord]) {
        let templates = self.templates();
        for template in &templates {
            assert_eq!(template.operation, None, "unsettled: {template:?}");
            let in_use = records.iter().any(|r| r.template_id == template.id);
            match template.state {
                TemplateState::Making => panic!("unsettled: {template:?}"),
                TemplateState::Ready | TemplateState::Layer => {}
                TemplateState::Deleting => assert!(in_use, "not freed: {template:?}"),
            }
        }
        let named: Vec<TemplateId> = templates.iter().map(|template| template.id).collect();
        let held: Vec<TemplateId> = self.host.images().iter().map(|image| image.id).collect();
        assert_eq!(named, held, "templates and images differ");
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
        for record in &records {
            let machine = machines.iter().find(|machine| machine.id == record.id);
            let stands = match machine.map(|machine| &machine.state) {
                Some(HostSandboxState::Running) => SandboxState::Running,
                Some(HostSandboxState::Paused) => SandboxState::Paused,
                _ if record.state == SandboxState::Error => SandboxState::Error,
                _ => SandboxState::Stopped,
            };
            assert_eq!(record.state, stands, "{machine:?}");
        }
        self.assert_templates_settled(&records);
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
        let (mut seen, mut harmed) = (BTreeSet::new(), BTreeSet::new());
        for (number, step) in steps.iter().enumerate() {
            let engine = second.as_ref().filter(|_| number % 2 == 0);
            let engine = engine.unwrap_or(&world.engine).clone();
            world.take(step, engine, &mut harmed).await;
            seen.extend(world.store.all_sandboxes().iter().map(|record| record.id));
        }
        world.quiesce().await;
        world.assert_settled();
        world.assert_nobody_lost(&seen, &harmed);
        // What is paused can go on.
        for record in world.store.all_sandboxes() {
            if record.state == SandboxState::Paused {
                world.resume(record.id).await.unwrap();
            }
        }
        for record in world.store.all_sandboxes() {
            world.destroy(record.id).await.unwrap();
        }
        for template in world.templates() {
            if template.state == TemplateState::Ready {
                let id = template.id.to_string();
                world.api().delete_template(&id).await.unwrap();
            }
        }
        world.sleep(SECOND * 60).await;
        world.assert_nothing_left();
        world.assert_no_template_left("at last");
    });
}
