//! Requests that make, pause, resume and end sandboxes.

use super::{Answer, Client, certain};
use crate::{
    api::Api,
    error::Error,
    host::HostSandboxState,
    id::SandboxId,
    operation::OperationKind,
    sandbox::{CreateSandbox, OnTimeout, SandboxRecord, SandboxState},
    sim::world::book::{Begun, Place},
};

impl Client {
    /// Requests under one key are one request.
    fn new_sandbox(&self) -> CreateSandbox {
        let templates = self.own_templates();
        let rng = &mut self.world.lock().rng;
        if rng.coin() {
            let number = rng.below(4);
            return CreateSandbox {
                timeout_sec: (number > 1).then_some(30),
                on_timeout: (number == 2).then_some(OnTimeout::Pause),
                idempotency_key: Some(format!("key-{number}")),
                ..CreateSandbox::default()
            };
        }
        let template = match rng.coin() {
            true => rng.pick(&templates).map(|id| id.to_string()),
            false => None,
        };
        CreateSandbox {
            template,
            timeout_sec: rng.chance(2000).then(|| 5 + rng.below(60)),
            on_timeout: rng.coin().then_some(OnTimeout::Pause),
            ..CreateSandbox::default()
        }
    }

    pub(super) async fn create(&self) {
        let request = self.new_sandbox();
        let keyed = request.idempotency_key.is_some();
        // A client that has a key asks again, as clients do that got no answer.
        for _ in 0..if keyed { 3 } else { 1 } {
            let request = request.clone();
            let answer = self
                .ask(|api| async move { api.create(request).await })
                .await;
            match answer {
                Answer::Told(Ok(record)) => {
                    self.say("made", record.id.uuid().as_u128(), || record.id.to_string());
                    self.world.told_made(&record);
                    return;
                }
                Answer::Told(Err(error)) => {
                    self.say("not made", 0, || error.to_string());
                    if certain(&error) {
                        return;
                    }
                }
                Answer::Silence => {}
            }
        }
    }

    pub(super) async fn begin_create(&self) {
        let request = self.new_sandbox();
        let answer = self
            .ask(|api| async move { api.begin_create(request).await })
            .await;
        let Answer::Told(Ok(begun)) = answer else {
            return;
        };
        let record = begun.record;
        self.say("begun", record.id.uuid().as_u128(), || {
            record.id.to_string()
        });
        match begun.operation {
            Some(operation) => self.begun(operation, record.team_id),
            None => self.world.told_made(&record),
        }
    }

    pub(super) fn begun(&self, id: crate::id::OperationId, team: crate::id::TeamId) {
        self.world.book(|book| {
            let begun = Begun { team, ended: None };
            book.operations.entry(id).or_insert(begun);
        });
    }

    pub(super) async fn pause(&self) {
        self.turn(OperationKind::Pause).await;
    }

    pub(super) async fn resume(&self) {
        self.turn(OperationKind::Resume).await;
    }

    async fn turn(&self, kind: OperationKind) {
        if let Some(id) = self.some_sandbox() {
            self.turn_of(kind, id).await;
        }
    }

    /// What memory holds must survive to be saved, changed to nothing, and saved again.
    pub(super) async fn there_and_back(&self) {
        let Some(id) = self.some_sandbox() else {
            return;
        };
        for zero in [false, true] {
            self.write_at(id, Place::Memory, zero).await;
            self.turn_of(OperationKind::Pause, id).await;
            self.turn_of(OperationKind::Resume, id).await;
        }
        self.read_at(id, Place::Memory).await;
    }

    async fn turn_of(&self, kind: OperationKind, id: SandboxId) {
        let least = self.version(id);
        let turn = self.world.book(|book| book.begin_turn(id));
        let answer = self
            .ask(|api| async move {
                match kind {
                    OperationKind::Pause => api.pause(id).await,
                    _ => api.resume(id).await,
                }
            })
            .await;
        let sure = match &answer {
            Answer::Told(Ok(_)) => true,
            Answer::Told(Err(error)) => certain(error),
            Answer::Silence => false,
        };
        let alone = self.world.book(|book| book.end_turn(id, turn, sure));
        let Answer::Told(told) = answer else {
            return;
        };
        self.say(kind.as_str(), id.uuid().as_u128(), || match &told {
            Ok(record) => format!("{id} done at version {}", record.version),
            Err(error) => format!("{id} not done: {error}"),
        });
        let Ok(record) = told else {
            return;
        };
        self.world.told(&record, least);
        if alone {
            self.check_turn(kind, &record);
        }
    }

    /// Nobody else has asked for anything: so it must stand as it was asked for.
    fn check_turn(&self, kind: OperationKind, record: &SandboxRecord) {
        let id = record.id;
        // Where its host has paused it by itself, an order that came double may find it so.
        let (mortal, whimsical) = self.world.book(|book| {
            let known = book.sandboxes.get(&id);
            let mortal = known.is_none_or(|known| known.mortal || known.drowsy);
            let harmed = book.harmed.contains(&id);
            (mortal || harmed, book.host_paused.contains(&id))
        });
        let goal = match kind {
            OperationKind::Pause => SandboxState::Paused,
            _ => SandboxState::Running,
        };
        if record.state != goal {
            let state = record.state;
            self.world
                .violated(|| format!("{id}: {} was done, and it is {state:?}", kind.as_str()));
        }
        if goal == SandboxState::Paused && !whimsical {
            self.world.book(|book| {
                if let Some(known) = book.sandboxes.get_mut(&id) {
                    known.surely_paused = true;
                }
            });
        }
        if mortal || whimsical {
            return;
        }
        let machines = self.world.host.machines();
        let machine = machines.iter().find(|machine| machine.id == id);
        let stands = matches!(
            (goal, machine.map(|machine| &machine.state)),
            (SandboxState::Paused, Some(HostSandboxState::Paused))
                | (SandboxState::Running, Some(HostSandboxState::Running))
        );
        if !stands {
            self.world.violated(|| {
                format!(
                    "{id}: {} was done, and its machine is {machine:?}",
                    kind.as_str()
                )
            });
        }
    }

    pub(super) async fn destroy(&self) {
        let own = self.world.chance(8000).then(|| self.some_sandbox());
        let Some(id) = own.unwrap_or_else(|| self.any_own()) else {
            return;
        };
        let gone = self.world.book(|book| {
            book.doomed.insert(id);
            book.begin_turn(id);
            book.sandboxes.get(&id).is_some_and(|known| known.gone)
        });
        let answer = self.ask(|api| async move { api.destroy(id).await }).await;
        let Answer::Told(told) = answer else {
            return;
        };
        self.say("destroy", id.uuid().as_u128(), || format!("{id}: {told:?}"));
        match told {
            Ok(()) => {
                self.world.book(|book| {
                    if let Some(known) = book.sandboxes.get_mut(&id) {
                        known.gone = true;
                    }
                });
                if self.world.recorded(id).is_some() {
                    self.world
                        .violated(|| format!("{id}: its destroy was told done, and it is there"));
                }
            }
            Err(Error::SandboxNotFound(_)) if gone => {
                self.world
                    .violated(|| format!("{id} was destroyed, and the second time not known"));
            }
            Err(_) => {}
        }
    }

    /// Any sandbox of this client's that was ever told of, also one that is gone.
    fn any_own(&self) -> Option<SandboxId> {
        let inner = &mut *self.world.lock();
        let own: Vec<SandboxId> = inner
            .book
            .sandboxes
            .iter()
            .filter(|(_, known)| self.caller.admin || known.team == self.caller.team_id)
            .map(|(id, _)| *id)
            .collect();
        inner.rng.pick(&own)
    }

    pub(super) fn version(&self, id: SandboxId) -> u64 {
        self.world
            .book(|book| book.sandboxes.get(&id).map_or(0, |known| known.version))
    }
}
