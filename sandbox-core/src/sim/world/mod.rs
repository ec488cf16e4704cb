//! A whole platform in one thread under one seed: real engines, their reconcilers and workers,
//! against a simulated store, host, guests, clocks and network.
//!
//! ```text
//!  clients ──► engines ──► network ──► store
//!     │           ▲           │  └───► host ──► guests
//!     │           │ kill      │ sees every step
//!     ▼           │           ▼
//!   book       weather      truth  ──► invariants, during and after
//! ```
//!
//! [`simulate`] lives one life: clients of two teams and an administrator ask for everything that
//! there is to ask for, while messages are lost, late, doubled and cut off, engines die before and
//! after any step, the host's process restarts, disks fill up and clocks jump. Then the faults end,
//! time passes, and everything that must hold is checked: what clients were told (`book`) against
//! what came about (`truth`), records against machines, templates against images; at last all is
//! deleted, and nothing may be left.
//!
//! The same seed gives the same life: time is tokio's paused clock, chance comes from one generator,
//! and the hash of all that happened is part of the [`Outcome`].
//!
//! *Never here:* a rule of the platform. What an engine should have done is not known here; only
//! what nobody may ever see.

mod book;
mod build_link;
mod chaos;
mod check;
mod client;
mod host_link;
mod network;
mod plane;
mod rng;
mod settle;
mod steps;
mod store_link;
#[cfg(test)]
mod tests;
mod trace;
mod truth;
mod weather;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use self::{
    book::Book,
    network::Peer,
    plane::Planes,
    rng::Rng,
    trace::Trace,
    truth::Truth,
    weather::{Fate, Weather},
};
pub use self::{
    steps::{Fault, Step},
    weather::Directed,
};
use super::{Call, MemoryStore, SimClock, SimHost, SimQueue, Window};
use crate::{clock::Clock, engine::EngineConfig};

/// The most violations that are kept of one life.
const VIOLATIONS_MAX: usize = 20;

/// What a life is like, beside its seed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many clients there are at once.
    pub clients: u32,
    /// How much each of them asks for, at most.
    pub requests: u64,
    /// Whether the outcome has a line for each thing that happened.
    pub trace: bool,
    /// Nothing goes wrong but what is [directed](Self::directed).
    pub calm: bool,
    /// A fault for a certain step.
    pub directed: Option<Directed>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients: 4,
            requests: 10,
            trace: false,
            calm: false,
            directed: None,
        }
    }
}

/// What became of a life.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The number to live it again.
    pub seed: u64,
    /// What was broken, in words; empty where all held.
    pub violations: Vec<String>,
    /// A hash of everything that happened, in order.
    pub hash: u64,
    /// How much happened.
    pub events: u64,
    /// How long it took within.
    pub simulated: Duration,
    /// How often each step was taken while there were faults, and how often one befell it.
    pub steps: BTreeMap<Step, BTreeMap<Option<Fault>, u64>>,
    /// What happened, where it was asked for.
    pub trace: Vec<String>,
}

/// Everything that is there once, however many engines there are.
struct World {
    clock: Arc<SimClock>,
    store: Arc<MemoryStore>,
    host: SimHost,
    queue: SimQueue,
    /// Ends all requests that are at work on the host.
    host_died: Notify,
    config: EngineConfig,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: Rng,
    trace: Trace,
    weather: Weather,
    directed: Option<Directed>,
    /// Lines that are cut: by engine and peer.
    cut: Vec<[bool; 2]>,
    store_full: bool,
    host_full: bool,
    /// Whether there are such faults in this world at all, at whatever time.
    clocks_jump: bool,
    host_restarts: bool,
    /// The end of this life has begun.
    faults_over: bool,
    truth: Truth,
    book: Book,
    steps: BTreeMap<Step, BTreeMap<Option<Fault>, u64>>,
    violations: Vec<String>,
}

impl World {
    fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        let weather = match options.calm {
            true => Weather::calm(),
            false => Weather::draw(&mut rng),
        };
        let clock = Arc::new(SimClock::new());
        let host = SimHost::new(clock.clone());
        if weather.absent_at_work {
            host.show_at_work(Window::Absent);
        }
        // What takes long has more steps.
        if weather.slow_host {
            for call in [
                Call::Create,
                Call::Pause,
                Call::Snapshot,
                Call::Import,
                Call::Destroy,
            ] {
                host.delay(call, rng.millis(1, 12_000));
            }
        }
        let planes = match rng.below(10) {
            0..4 => 1,
            4..8 => 2,
            _ => 3,
        };
        let config = config(&mut rng, planes);
        Self {
            store: Arc::new(MemoryStore::new()),
            host,
            queue: SimQueue::new(),
            host_died: Notify::new(),
            config,
            inner: Mutex::new(Inner {
                rng,
                trace: Trace::new(options.trace),
                clocks_jump: weather.clock_jumps,
                host_restarts: weather.host_restarts,
                weather,
                faults_over: false,
                directed: options.directed,
                cut: vec![[false; 2]; planes],
                store_full: false,
                host_full: false,
                truth: Truth::default(),
                book: Book::default(),
                steps: BTreeMap::new(),
                violations: Vec::new(),
            }),
            clock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: &str, whom: u128, line: impl FnOnce() -> String) {
        let at = self.clock.now();
        self.lock().trace.note(at, what, whom, line);
    }

    /// Something that may never be has been.
    fn violated(&self, what: impl FnOnce() -> String) {
        let what = what();
        self.note("VIOLATION", 0, || what.clone());
        let mut inner = self.lock();
        if inner.violations.len() < VIOLATIONS_MAX {
            inner.violations.push(what);
        }
    }

    fn transit(&self) -> Duration {
        let inner = &mut *self.lock();
        inner.weather.transit(&mut inner.rng)
    }

    /// Two questions to chance: yes or no, and how long.
    fn lot(&self) -> (bool, Duration) {
        let rng = &mut self.lock().rng;
        (rng.coin(), rng.millis(1, 20_000))
    }

    fn chance(&self, in_10_000: u64) -> bool {
        self.lock().rng.chance(in_10_000)
    }

    fn below(&self, end: u64) -> u64 {
        self.lock().rng.below(end)
    }

    fn fate(&self, step: Option<Step>) -> Fate {
        let inner = &mut *self.lock();
        let mut fate = inner.weather.fate(&mut inner.rng);
        // What is done when the faults are over shows nothing of them.
        let Some(step) = step.filter(|_| !inner.faults_over) else {
            return fate;
        };
        if let Some(directed) = inner.directed.filter(|directed| directed.step == step) {
            inner.directed = match directed.spared {
                0 => None,
                spared => Some(Directed {
                    spared: spared - 1,
                    ..directed
                }),
            };
            if inner.directed.is_none() {
                fate = Fate::Fault(directed.fault);
            }
        }
        let fault = match fate {
            Fate::Fault(fault) => Some(fault),
            Fate::Deliver | Fate::Late(_) => None,
        };
        *inner
            .steps
            .entry(step)
            .or_default()
            .entry(fault)
            .or_default() += 1;
        fate
    }

    /// Where a line is cut, how long it takes to notice.
    fn cut_off(&self, plane: usize, peer: Peer) -> Option<Duration> {
        let inner = &mut *self.lock();
        let cut = inner.cut.get(plane)?[peer as usize];
        cut.then(|| inner.rng.millis(1, 5000))
    }

    fn has_stale_reports(&self) -> bool {
        self.lock().weather.stale_reports
    }

    fn store_is_full(&self) -> bool {
        self.lock().store_full
    }

    fn host_is_full(&self) -> bool {
        self.lock().host_full
    }
}

/// Numbers small enough that every bound is reached within a life.
fn config(rng: &mut Rng, planes: usize) -> EngineConfig {
    EngineConfig {
        sole_owner: planes == 1 && rng.coin(),
        lease: rng.millis(5000, 15_000),
        create_timeout: rng.millis(10_000, 40_000),
        pause_timeout: rng.millis(10_000, 40_000),
        snapshot_timeout: rng.millis(10_000, 40_000),
        import_timeout: rng.millis(10_000, 40_000),
        destroy_timeout: rng.millis(2000, 8000),
        unknown_grace: Duration::from_secs(20),
        host_silence: rng.millis(8000, 20_000),
        round_max: rng.millis(5000, 15_000),
        ..EngineConfig::DEFAULT
    }
}

/// Lives one life.
///
/// # Panics
/// Where the runtime can't be built, which takes neither memory nor files worth mentioning.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "a current-thread runtime with time alone has no way to fail"
)]
pub fn simulate(seed: u64, options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(live(seed, options))
}

async fn live(seed: u64, options: Options) -> Outcome {
    let world = Arc::new(World::new(seed, &options));
    let planes = Arc::new(Planes::start(&world));
    let clients = client::start(&world, &planes, &options);
    let chaos = tokio::spawn(chaos::reign(Arc::clone(&world), Arc::clone(&planes)));
    for client in clients {
        if let Err(error) = client.await {
            world.violated(|| format!("a client broke: {error}"));
        }
    }
    chaos.abort();
    settle::settle(&world, &planes).await;
    let started = crate::sim::clock::epoch();
    let simulated = (world.clock.now() - started).to_std().unwrap_or_default();
    planes.stop();
    let inner = &mut *world.lock();
    Outcome {
        seed,
        violations: std::mem::take(&mut inner.violations),
        hash: inner.trace.hash(),
        events: inner.trace.events(),
        simulated,
        steps: std::mem::take(&mut inner.steps),
        trace: inner.trace.take_lines(),
    }
}
