//! Clients: what they ask for, one thing after another, and what they make of the answers.

mod builds;
mod guest;
mod life;
mod look;
mod templates;

use std::{future::Future, sync::Arc, time::Duration};

pub(super) use builds::{BUILT, Nature, nature};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{Options, World, book::Place, plane::Planes};
use crate::{
    audit::Actor,
    caller::Caller,
    engine::EngineApi,
    error::Error,
    id::{SandboxId, TeamId},
};

/// The two teams.
const TEAMS: [TeamId; 2] = [
    TeamId::from_uuid(Uuid::from_u128(0xa)),
    TeamId::from_uuid(Uuid::from_u128(0xb)),
];

/// How long a client that does not go away waits for an answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// One client.
#[derive(Clone)]
struct Client {
    world: Arc<World>,
    planes: Arc<Planes>,
    caller: Caller,
    /// It never goes away before it has an answer.
    patient: bool,
}

/// What became of a request.
enum Answer<T> {
    /// An answer.
    Told(Result<T, Error>),
    /// None: the engine died, or the client went away.
    Silence,
}

pub(super) fn start(
    world: &Arc<World>,
    planes: &Arc<Planes>,
    options: &Options,
) -> Vec<JoinHandle<()>> {
    let clients = (0..options.clients).map(|number| {
        let caller = match number % 4 {
            0 | 3 => Caller::team(Actor::api_key("alpha"), TEAMS[0]),
            1 => Caller::team(Actor::api_key("beta"), TEAMS[1]),
            _ => Caller::admin(Actor::app()),
        };
        let client = Client {
            world: Arc::clone(world),
            planes: Arc::clone(planes),
            caller,
            patient: false,
        };
        tokio::spawn(client.live(options.requests))
    });
    clients.collect()
}

/// An administrator who looks into what is there.
pub(super) fn reader(world: &Arc<World>, planes: &Arc<Planes>) -> Reader {
    Reader(Client {
        world: Arc::clone(world),
        planes: Arc::clone(planes),
        caller: Caller::admin(Actor::app()),
        patient: true,
    })
}

/// See [`reader`].
pub(super) struct Reader(Client);

impl Reader {
    /// Reads a number and compares it with what it may be. `None` where there was no answer.
    pub(super) async fn read_at(&self, id: SandboxId, place: Place) -> Option<()> {
        self.0.read_at(id, place).await
    }
}

impl Client {
    async fn live(self, requests: u64) {
        let count = 1 + self.world.below(requests);
        for _ in 0..count {
            self.request().await;
            let pause = self.world.lock().rng.millis(0, 4000);
            tokio::time::sleep(pause).await;
        }
    }

    async fn request(&self) {
        if self.caller.admin && self.world.lock().builds && self.world.chance(7500) {
            return self.build_request().await;
        }
        match self.world.below(100) {
            0..18 => self.create().await,
            18..23 => self.begin_create().await,
            23..29 => self.get().await,
            29..33 => self.list().await,
            33..37 => self.ping().await,
            37..47 => self.read().await,
            47..54 => self.write_file().await,
            54..61 => self.write_memory().await,
            61..64 => self.there_and_back().await,
            64..71 => self.pause().await,
            71..80 => self.resume().await,
            80..87 => self.snapshot().await,
            87..89 => self.begin_snapshot().await,
            89..92 => self.delete_template().await,
            92..93 => self.list_templates().await,
            93..96 => self.import().await,
            96..97 => self.foreign().await,
            _ => self.destroy().await,
        }
        if self.world.chance(2000) {
            self.look_up().await;
        }
    }

    /// Asks an engine for something, and may go away before it answers.
    async fn ask<T, F>(&self, ask: impl FnOnce(EngineApi) -> F) -> Answer<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (number, patience) = {
            let rng = &mut self.world.lock().rng;
            let patience = match !self.patient && rng.chance(800) {
                true => rng.millis(0, 3000),
                false => PATIENCE,
            };
            (rng.index(self.planes.len()), patience)
        };
        let Some(alive) = self.planes.any(number) else {
            return Answer::Silence;
        };
        let asked = ask(alive.engine.api(self.caller.clone()));
        drop(alive.engine);
        tokio::select! {
            biased;
            () = alive.life.over() => Answer::Silence,
            told = asked => Answer::Told(told),
            () = tokio::time::sleep(patience) => Answer::Silence,
        }
    }

    /// A sandbox that this client may use.
    fn some_sandbox(&self) -> Option<SandboxId> {
        let inner = &mut *self.world.lock();
        let own: Vec<SandboxId> = inner
            .book
            .sandboxes
            .iter()
            .filter(|(_, known)| self.caller.admin || known.team == self.caller.team_id)
            .filter(|(_, known)| !known.gone)
            .map(|(id, _)| *id)
            .collect();
        // Much that happens to one says more than a little that happens to many.
        match inner.rng.coin() {
            true => own.last().copied(),
            false => inner.rng.pick(&own),
        }
    }

    fn say(&self, what: &str, whom: u128, more: impl FnOnce() -> String) {
        let actor = &self.caller.actor;
        self.world
            .note(what, whom, || format!("[client {actor}] {}", more()));
    }
}

/// Whether an error leaves no doubt that nothing was done.
const fn certain(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidState { .. }
            | Error::SandboxNotFound(_)
            | Error::InvalidRequest(_)
            | Error::Forbidden(_)
            | Error::TemplateExists(_)
            | Error::TemplateNotFound(_)
    )
}
