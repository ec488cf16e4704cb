//! The engine against a model of it that fits on a page: any calls in a row, one at a time and with
//! nothing going wrong, answer as the model says and leave what the model says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;
use crate::template::{TemplateKind, TemplateState};

/// What the platform holds, as its users think of it.
#[derive(Debug, Clone, Default)]
struct Model {
    /// In the order of their making; `None` once destroyed.
    sandboxes: Vec<Option<Sandbox>>,
    /// Those that can be started from, by name.
    templates: BTreeMap<u8, TemplateKind>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sandbox {
    state: SandboxState,
    asked: Asked,
}

/// What a create asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    key: Option<u8>,
    template: Option<u8>,
}

#[derive(Debug, Clone)]
enum Call {
    Create(Asked),
    Get(usize),
    Ping(usize),
    Pause(usize),
    Resume(usize),
    Destroy(usize),
    Snapshot {
        which: usize,
        name: u8,
        kind: TemplateKind,
        resume: bool,
    },
    DeleteTemplate(u8),
    /// The guest powers itself off, and the platform has had time to see it.
    PowerOff(usize),
    /// The platform's process dies and starts again.
    Crash,
    /// Nobody asks for anything.
    Idle,
}

/// How a call is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Done,
    /// With this sandbox.
    Made(usize),
    NotFound,
    InvalidState,
    Taken,
}

impl Model {
    fn sandbox(&self, which: usize) -> Option<&Sandbox> {
        self.sandboxes.get(which)?.as_ref()
    }

    fn state(&mut self, which: usize) -> Option<&mut SandboxState> {
        self.sandboxes
            .get_mut(which)?
            .as_mut()
            .map(|sandbox| &mut sandbox.state)
    }

    fn create(&mut self, asked: &Asked) -> Answer {
        if asked
            .template
            .is_some_and(|name| !self.templates.contains_key(&name))
        {
            return Answer::NotFound;
        }
        let earlier = self.sandboxes.iter().position(|sandbox| {
            let sandbox = sandbox.as_ref();
            asked.key.is_some() && sandbox.is_some_and(|sandbox| sandbox.asked.key == asked.key)
        });
        match earlier {
            None => {
                self.sandboxes.push(Some(Sandbox {
                    state: SandboxState::Running,
                    asked: asked.clone(),
                }));
                Answer::Made(self.sandboxes.len() - 1)
            }
            Some(earlier) if self.sandbox(earlier).map(|s| &s.asked) == Some(asked) => {
                Answer::Made(earlier)
            }
            Some(_) => Answer::Taken,
        }
    }

    /// From one of two states to the other; in the other already is as good.
    fn turn(&mut self, which: usize, from: SandboxState, to: SandboxState) -> Answer {
        match self.state(which) {
            None => Answer::NotFound,
            Some(state) if *state == from || *state == to => {
                *state = to;
                Answer::Done
            }
            Some(_) => Answer::InvalidState,
        }
    }

    /// What the call does, and its answer.
    fn take(&mut self, call: &Call) -> Answer {
        use SandboxState::{Paused, Running, Stopped};
        match *call {
            Call::Create(ref asked) => self.create(asked),
            Call::Get(which) => match self.sandbox(which) {
                Some(_) => Answer::Done,
                None => Answer::NotFound,
            },
            Call::Ping(which) => match self.state(which) {
                None => Answer::NotFound,
                Some(Running) => Answer::Done,
                Some(_) => Answer::InvalidState,
            },
            Call::Pause(which) => self.turn(which, Running, Paused),
            Call::Resume(which) => self.turn(which, Paused, Running),
            Call::Destroy(which) => {
                if let Some(sandbox) = self.sandboxes.get_mut(which) {
                    *sandbox = None;
                }
                Answer::Done
            }
            Call::Snapshot {
                which,
                name,
                kind,
                resume,
            } => {
                let taken = self.templates.contains_key(&name);
                match self.state(which) {
                    None => Answer::NotFound,
                    Some(Running | Paused) if taken => Answer::Taken,
                    Some(state @ (Running | Paused)) => {
                        // One that was paused stays so.
                        if !resume {
                            *state = Paused;
                        }
                        self.templates.insert(name, kind);
                        Answer::Done
                    }
                    Some(_) => Answer::InvalidState,
                }
            }
            Call::DeleteTemplate(name) => match self.templates.remove(&name) {
                Some(_) => Answer::Done,
                None => Answer::NotFound,
            },
            Call::PowerOff(which) => {
                if let Some(state @ Running) = self.state(which) {
                    *state = Stopped;
                }
                Answer::Done
            }
            Call::Crash | Call::Idle => Answer::Done,
        }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Call;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Call> {
        // One more than there are: also what was never made is asked for.
        let which = 0..=state.sandboxes.len();
        let asked = (
            prop::option::weighted(0.3, 0..3u8),
            prop::option::weighted(0.4, 0..3u8),
        );
        let kind = prop::sample::select(TemplateKind::ALL.to_vec());
        prop_oneof![
            4 => asked.prop_map(|(key, template)| Call::Create(Asked { key, template })),
            1 => which.clone().prop_map(Call::Get),
            1 => which.clone().prop_map(Call::Ping),
            3 => which.clone().prop_map(Call::Pause),
            3 => which.clone().prop_map(Call::Resume),
            2 => which.clone().prop_map(Call::Destroy),
            3 => (which.clone(), 0..3u8, kind, any::<bool>()).prop_map(
                |(which, name, kind, resume)| Call::Snapshot { which, name, kind, resume }
            ),
            1 => (0..3u8).prop_map(Call::DeleteTemplate),
            1 => which.prop_map(Call::PowerOff),
            1 => Just(Call::Crash),
            1 => Just(Call::Idle),
        ]
        .boxed()
    }

    fn apply(mut state: Self, call: &Call) -> Self {
        state.take(call);
        state
    }
}

/// The platform, and the ID of each of the model's sandboxes.
struct Platform {
    runtime: tokio::runtime::Runtime,
    world: World,
    ids: Vec<SandboxId>,
    /// The model as it was before the call.
    before: Model,
}

impl Platform {
    fn id(&self, which: usize) -> SandboxId {
        let nobodys = SandboxId::from_uuid(uuid::Uuid::from_u128(77));
        self.ids.get(which).copied().unwrap_or(nobodys)
    }

    async fn answer(
        world: &mut World,
        ids: &mut Vec<SandboxId>,
        call: &Call,
        id: SandboxId,
    ) -> Answer {
        let api = world.api();
        let done = match call {
            Call::Create(asked) => {
                let request = CreateSandbox {
                    idempotency_key: asked.key.map(|key| format!("key {key}")),
                    template: asked.template.map(|name| format!("made-{name}")),
                    ..CreateSandbox::default()
                };
                match api.create(request).await {
                    Ok(record) => {
                        let place = ids.iter().position(|id| *id == record.id);
                        return Answer::Made(place.unwrap_or_else(|| {
                            ids.push(record.id);
                            ids.len() - 1
                        }));
                    }
                    Err(error) => Err(error),
                }
            }
            Call::Get(_) => api.get(id).await.map(drop),
            Call::Ping(_) => api.ping(id).await.map(drop),
            Call::Pause(_) => api.pause(id).await.map(drop),
            Call::Resume(_) => api.resume(id).await.map(drop),
            Call::Destroy(_) => match api.destroy(id).await {
                // There never was one.
                Err(Error::SandboxNotFound(_)) if !ids.contains(&id) => Ok(()),
                done => done,
            },
            Call::Snapshot {
                name, kind, resume, ..
            } => {
                let name = format!("made-{name}");
                world.snapshot(id, &name, *kind, *resume).await.map(drop)
            }
            Call::DeleteTemplate(name) => api.delete_template(&format!("made-{name}")).await,
            Call::PowerOff(_) => {
                if world.state(id) == Some(SandboxState::Running) {
                    world.host.end_machine(id, "it powered off");
                }
                world.sleep(SECOND).await;
                Ok(())
            }
            Call::Crash => {
                world.crash().await;
                Ok(())
            }
            Call::Idle => {
                world.sleep(SECOND * 100).await;
                Ok(())
            }
        };
        match done {
            Ok(()) => Answer::Done,
            Err(Error::SandboxNotFound(_) | Error::TemplateNotFound(_)) => Answer::NotFound,
            Err(Error::InvalidState { .. }) => Answer::InvalidState,
            Err(Error::TemplateExists(_) | Error::IdempotencyMismatch) => Answer::Taken,
            Err(other) => panic!("{call:?}: {other:?}"),
        }
    }
}

struct Against;

impl StateMachineTest for Against {
    type SystemUnderTest = Platform;
    type Reference = Model;

    fn init_test(_: &Model) -> Platform {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let world = runtime.block_on(World::new());
        Platform {
            runtime,
            world,
            ids: Vec::new(),
            before: Model::default(),
        }
    }

    fn apply(mut platform: Platform, after: &Model, call: Call) -> Platform {
        let expected = platform.before.take(&call);
        let id = match call {
            Call::Get(which)
            | Call::Ping(which)
            | Call::Pause(which)
            | Call::Resume(which)
            | Call::Destroy(which)
            | Call::Snapshot { which, .. }
            | Call::PowerOff(which) => platform.id(which),
            _ => platform.id(usize::MAX),
        };
        let Platform {
            runtime,
            world,
            ids,
            ..
        } = &mut platform;
        let answer = runtime.block_on(Platform::answer(world, ids, &call, id));
        assert_eq!(answer, expected, "{call:?}");
        platform.before = after.clone();
        platform
    }

    fn check_invariants(platform: &Platform, model: &Model) {
        let mut expected: Vec<(SandboxId, SandboxState)> = platform
            .ids
            .iter()
            .zip(&model.sandboxes)
            .filter_map(|(id, sandbox)| Some((*id, sandbox.as_ref()?.state)))
            .collect();
        expected.sort_by_key(|(id, _)| *id);
        let world = &platform.world;
        let held = world.store.all_sandboxes();
        let held: Vec<_> = held
            .iter()
            .map(|record| (record.id, record.state))
            .collect();
        assert_eq!(held, expected);
        let ready = world.templates().into_iter();
        let mut ready: Vec<(String, TemplateKind)> = ready
            .filter(|template| template.state == TemplateState::Ready)
            .map(|template| (template.name.to_string(), template.kind))
            .collect();
        ready.sort_by(|one, other| one.0.cmp(&other.0));
        let named = model.templates.iter();
        let named: Vec<_> = named
            .map(|(name, kind)| (format!("made-{name}"), *kind))
            .collect();
        assert_eq!(ready, named);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_its_model_does(sequential 1..40 => Against);
}
