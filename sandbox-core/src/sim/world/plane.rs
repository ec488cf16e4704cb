//! The control planes: engines that are started, die, and are started again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    World,
    host_link::{HostLink, PlaneClock},
    network::{Life, Line, Peer},
    store_link::StoreLink,
};
use crate::engine::{Engine, Parts};

/// The pause of whatever starts an engine that could not be started.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// All control planes of a world.
pub(super) struct Planes {
    planes: Vec<Arc<Plane>>,
}

/// One, through all its lives.
pub(super) struct Plane {
    world: Arc<World>,
    number: usize,
    ahead_ms: Arc<AtomicI64>,
    now: Mutex<Option<Alive>>,
    /// Told when there is an engine again, and when one is asked to end.
    changed: Notify,
    /// It is to end in good order the next time that it ends.
    gently: AtomicBool,
    /// It stays down for no longer than it takes.
    at_once: AtomicBool,
}

/// An engine, and the life of its process.
#[derive(Clone)]
pub(super) struct Alive {
    pub(super) engine: Engine,
    pub(super) life: Arc<Life>,
}

impl Planes {
    pub(super) fn start(world: &Arc<World>) -> Self {
        let count = world.lock().cut.len();
        let planes = (0..count).map(|number| {
            let plane = Arc::new(Plane {
                world: Arc::clone(world),
                number,
                ahead_ms: Arc::default(),
                now: Mutex::default(),
                changed: Notify::new(),
                gently: AtomicBool::new(false),
                at_once: AtomicBool::new(false),
            });
            tokio::spawn(Arc::clone(&plane).keep_alive());
            plane
        });
        Self {
            planes: planes.collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.planes.len()
    }

    /// An engine to ask: this one, or where it is down, whichever is up.
    pub(super) fn any(&self, number: usize) -> Option<Alive> {
        let count = self.planes.len();
        (0..count).find_map(|next| self.planes[(number + next) % count].alive())
    }

    pub(super) fn plane(&self, number: usize) -> &Plane {
        &self.planes[number % self.planes.len()]
    }

    /// From now on whatever dies is started again at once, and no clock is wrong.
    pub(super) fn heal(&self) {
        for plane in &self.planes {
            plane.at_once.store(true, Ordering::Relaxed);
        }
    }

    /// Returns when all are up.
    pub(super) async fn all_up(&self) {
        for plane in &self.planes {
            loop {
                let started = plane.changed.notified();
                if plane.alive().is_some() {
                    break;
                }
                started.await;
            }
        }
    }

    pub(super) fn stop(&self) {
        for plane in &self.planes {
            if let Some(alive) = plane.take() {
                alive.life.end();
                alive.engine.crash();
            }
        }
    }
}

impl Plane {
    fn alive(&self) -> Option<Alive> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.clone().filter(|alive| !alive.life.is_over())
    }

    fn take(&self) -> Option<Alive> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.take()
    }

    /// Kills the process, or asks it to end in good order.
    pub(super) fn end(&self, gently: bool) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = &*now {
            self.gently.store(gently, Ordering::Relaxed);
            if gently {
                // The supervisor sees to it.
                self.changed.notify_waiters();
            } else {
                alive.life.end();
            }
        }
    }

    pub(super) fn jump(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    async fn keep_alive(self: Arc<Self>) {
        loop {
            let life = Arc::new(Life::default());
            let started = tokio::select! {
                biased;
                () = life.over() => None,
                engine = Engine::start(self.parts(&life), self.world.config) => engine.ok(),
            };
            let Some(engine) = started else {
                life.end();
                tokio::time::sleep(RESTART_PAUSE).await;
                continue;
            };
            self.world.note("starts", self.number as u128, String::new);
            {
                let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
                *now = Some(Alive {
                    engine: engine.clone(),
                    life: Arc::clone(&life),
                });
            }
            self.changed.notify_waiters();
            self.until_end(&life, &engine).await;
            self.take();
            life.end();
            engine.crash();
            drop(engine);
            if !self.at_once.load(Ordering::Relaxed) {
                let down = {
                    let rng = &mut self.world.lock().rng;
                    let most = if rng.chance(2000) { 60_000 } else { 3000 };
                    rng.millis(1, most)
                };
                tokio::time::sleep(down).await;
            }
        }
    }

    async fn until_end(&self, life: &Life, engine: &Engine) {
        loop {
            let asked = self.changed.notified();
            if self.gently.swap(false, Ordering::Relaxed) {
                tokio::select! {
                    biased;
                    () = life.over() => {}
                    _ = engine.shutdown() => {}
                }
                return;
            }
            tokio::select! {
                biased;
                () = life.over() => return,
                () = asked => {}
            }
        }
    }

    fn parts(&self, life: &Arc<Life>) -> Parts {
        let line = |peer| Line {
            world: Arc::clone(&self.world),
            life: Arc::clone(life),
            plane: self.number,
            peer,
        };
        Parts {
            queue: Arc::new(self.world.queue.clone()),
            store: Arc::new(StoreLink(line(Peer::Store))),
            host: Arc::new(HostLink(line(Peer::Host))),
            clock: Arc::new(PlaneClock {
                base: Arc::clone(&self.world.clock),
                ahead_ms: Arc::clone(&self.ahead_ms),
            }),
        }
    }
}
