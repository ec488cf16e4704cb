//! A simulated host: machines in memory, with faults and delays to order.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;

use super::{guest::SimGuest, link::SimLink};
use crate::{
    clock::Clock,
    guest::Guest,
    host::{Host, HostCreate, HostError, HostInfo, HostReport, HostSandbox, HostSandboxState},
    id::{HostId, SandboxId},
};

/// What a host can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`Host::hello`].
    Hello,
    /// [`Host::create_sandbox`].
    Create,
    /// [`Host::destroy_sandbox`].
    Destroy,
    /// [`Host::list_sandboxes`].
    List,
    /// Any call into a guest; its fault is a lost connection.
    Guest,
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Instead of doing anything.
    Before,
    /// After all was done: only the answer is wrong.
    After,
}

/// A host in memory. Clones are one host, so a new engine over the same one finds its machines.
#[derive(Clone)]
pub struct SimHost {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    state: Mutex<State>,
    sequence: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<SandboxId, Machine>,
    /// The newest generation that was ordered to end, by sandbox.
    ended: BTreeMap<SandboxId, u64>,
    faults: Vec<(Call, When, HostError, Times)>,
    delays: BTreeMap<Call, Duration>,
    transits: BTreeMap<Call, Duration>,
    counts: BTreeMap<Call, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Always,
}

struct Machine {
    generation: u64,
    state: HostSandboxState,
    guest: Arc<SimGuest>,
}

const SIM_HOST_ID: HostId = HostId::from_uuid(Uuid::from_u128(0x51));

/// Templates that a simulated host has.
const TEMPLATES: [&str; 2] = ["minimal", "other"];

impl SimHost {
    /// A host without machines. It has the templates `minimal` and `other`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                state: Mutex::default(),
                sequence: watch::Sender::new(0),
            }),
        }
    }

    /// The next such call fails so.
    pub fn fail(&self, call: Call, when: When, error: HostError) {
        let mut state = self.shared.lock();
        state.faults.push((call, when, error, Times::Once));
    }

    /// All such calls fail so, until [`heal`](Self::heal).
    pub fn fail_always(&self, call: Call, when: When, error: HostError) {
        let mut state = self.shared.lock();
        state.faults.push((call, when, error, Times::Always));
    }

    /// Such calls take this long, until [`heal`](Self::heal).
    pub fn delay(&self, call: Call, duration: Duration) {
        self.shared.lock().delays.insert(call, duration);
    }

    /// Such orders are on their way for this long before the host knows of them, until
    /// [`heal`](Self::heal). Works for creating and destroying.
    pub fn delay_delivery(&self, call: Call, duration: Duration) {
        self.shared.lock().transits.insert(call, duration);
    }

    /// The host forgets which machines it was told to end.
    pub fn forget_ended(&self) {
        self.shared.lock().ended.clear();
    }

    /// Ends all faults and delays.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        state.transits.clear();
        state.faults.clear();
        state.delays.clear();
    }

    /// How many such calls were made.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        self.shared.lock().counts.get(&call).copied().unwrap_or(0)
    }

    /// What the host holds.
    #[must_use]
    pub fn machines(&self) -> Vec<HostSandbox> {
        self.shared.lock().report()
    }

    /// A machine ends by itself; its disk stays.
    pub fn end_machine(&self, id: SandboxId, reason: &str) {
        if let Some(machine) = self.shared.lock().machines.get_mut(&id) {
            machine.state = HostSandboxState::Stopped {
                reason: reason.to_owned(),
            };
        }
        self.shared.bump();
    }

    /// A machine and all it held are gone without a word.
    pub fn lose_machine(&self, id: SandboxId) {
        self.shared.lock().machines.remove(&id);
        self.shared.bump();
    }

    /// Puts a running machine there that nobody ordered.
    pub fn put_machine(&self, id: SandboxId, generation: u64) {
        let machine = Machine {
            generation,
            state: HostSandboxState::Running,
            guest: self.shared.new_guest(BTreeMap::new()),
        };
        self.shared.lock().machines.insert(id, machine);
        self.shared.bump();
    }

    /// The host's process dies and starts again: machines go on, half-made ones stay half-made.
    pub fn restart(&self) {
        self.forget_ended();
        self.shared.sequence.send_replace(0);
    }
}

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimHost").field(&self.machines()).finish()
    }
}

impl State {
    fn report(&self) -> Vec<HostSandbox> {
        let machines = self.machines.iter();
        machines
            .map(|(id, machine)| HostSandbox {
                id: *id,
                generation: machine.generation,
                state: machine.state.clone(),
            })
            .collect()
    }

    /// The newest generation that it knows of.
    fn present(&self, id: SandboxId) -> u64 {
        let machine = self
            .machines
            .get(&id)
            .map_or(0, |machine| machine.generation);
        machine.max(self.ended.get(&id).copied().unwrap_or(0))
    }
}

/// What an order for a machine meets.
enum Admitted {
    Begun,
    Ready,
    InTheMaking,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.sequence.send_modify(|sequence| *sequence += 1);
    }

    fn new_guest(&self, env: BTreeMap<String, String>) -> Arc<SimGuest> {
        Arc::new(SimGuest::new(Arc::clone(&self.clock), env))
    }

    pub(super) fn fault(&self, call: Call, when: When) -> Result<(), HostError> {
        let mut state = self.lock();
        let faults = &mut state.faults;
        let found = faults
            .iter()
            .position(|fault| (fault.0, fault.1) == (call, when));
        let Some(found) = found else {
            return Ok(());
        };
        let (_, _, error, times) = faults[found].clone();
        if times == Times::Once {
            faults.remove(found);
        }
        Err(error)
    }

    /// What comes before each call.
    pub(super) fn enter(&self, call: Call) -> Result<(), HostError> {
        *self.lock().counts.entry(call).or_default() += 1;
        self.fault(call, When::Before)
    }

    async fn travel(&self, call: Call) {
        let transit = self.lock().transits.get(&call).copied();
        if let Some(transit) = transit {
            self.clock.sleep(transit).await;
        }
    }

    pub(super) async fn linger(&self, call: Call) {
        let delay = self.lock().delays.get(&call).copied();
        if let Some(delay) = delay {
            self.clock.sleep(delay).await;
        }
    }

    /// The guest of a machine that runs, or why it doesn't.
    pub(super) fn running(&self, id: SandboxId) -> Result<(u64, Arc<SimGuest>), String> {
        match self.lock().machines.get(&id) {
            None => Err("its host has no machine of it".to_owned()),
            Some(machine) => match &machine.state {
                HostSandboxState::Creating => Err("it is being made".to_owned()),
                HostSandboxState::Running => Ok((machine.generation, Arc::clone(&machine.guest))),
                HostSandboxState::Stopped { reason } => Err(reason.clone()),
            },
        }
    }

    /// Returns when this machine no longer runs.
    pub(super) async fn until_ended(&self, id: SandboxId, generation: u64) {
        let mut sequence = self.sequence.subscribe();
        while self.running(id).is_ok_and(|(now, _)| now == generation) {
            if sequence.changed().await.is_err() {
                return;
            }
        }
    }

    fn admit(&self, order: &HostCreate) -> Result<Admitted, HostError> {
        let mut state = self.lock();
        let present = state.present(order.id);
        if order.generation < present {
            return Err(HostError::StaleGeneration {
                ordered: order.generation,
                present,
            });
        }
        if !TEMPLATES.contains(&order.template.as_str()) {
            return Err(HostError::UnknownTemplate {
                name: order.template.as_str().to_owned(),
            });
        }
        let there = state
            .machines
            .get(&order.id)
            .filter(|machine| machine.generation == order.generation);
        match there.map(|machine| &machine.state) {
            Some(HostSandboxState::Running) => return Ok(Admitted::Ready),
            Some(HostSandboxState::Creating) => return Ok(Admitted::InTheMaking),
            Some(HostSandboxState::Stopped { reason }) => {
                return Err(HostError::Boot(reason.clone()));
            }
            None => {}
        }
        let machine = Machine {
            generation: order.generation,
            state: HostSandboxState::Creating,
            guest: self.new_guest(order.env.clone()),
        };
        state.machines.insert(order.id, machine);
        drop(state);
        self.bump();
        Ok(Admitted::Begun)
    }

    /// The half-made machine runs, unless it was ended meanwhile.
    fn complete(&self, order: &HostCreate) -> Result<(), HostError> {
        let mut state = self.lock();
        let present = state.present(order.id);
        let machine = state
            .machines
            .get_mut(&order.id)
            .filter(|machine| machine.generation == order.generation);
        match machine {
            Some(machine) => machine.state = HostSandboxState::Running,
            None => {
                return Err(HostError::StaleGeneration {
                    ordered: order.generation,
                    present,
                });
            }
        }
        drop(state);
        self.bump();
        Ok(())
    }
}

#[async_trait]
impl Host for SimHost {
    async fn hello(&self) -> Result<HostInfo, HostError> {
        self.shared.enter(Call::Hello)?;
        Ok(HostInfo {
            host_id: SIM_HOST_ID,
            version: "simulated".to_owned(),
            accelerator: "none".to_owned(),
            cpus: 4,
            memory_mb: 8192,
        })
    }

    async fn create_sandbox(&self, order: HostCreate) -> Result<(), HostError> {
        let shared = &self.shared;
        shared.travel(Call::Create).await;
        shared.enter(Call::Create)?;
        match shared.admit(&order)? {
            Admitted::Ready => {}
            Admitted::Begun | Admitted::InTheMaking => {
                shared.linger(Call::Create).await;
                shared.complete(&order)?;
            }
        }
        shared.fault(Call::Create, When::After)
    }

    async fn destroy_sandbox(&self, id: SandboxId, generation: u64) -> Result<(), HostError> {
        let shared = &self.shared;
        shared.travel(Call::Destroy).await;
        shared.enter(Call::Destroy)?;
        shared.linger(Call::Destroy).await;
        {
            let mut state = shared.lock();
            let machine = state.machines.get(&id).map(|machine| machine.generation);
            if let Some(present) = machine.filter(|present| *present > generation) {
                return Err(HostError::StaleGeneration {
                    ordered: generation,
                    present,
                });
            }
            state.machines.remove(&id);
            let ended = state.ended.entry(id).or_default();
            *ended = (*ended).max(generation);
        }
        shared.bump();
        shared.fault(Call::Destroy, When::After)
    }

    async fn list_sandboxes(&self) -> Result<HostReport, HostError> {
        self.shared.enter(Call::List)?;
        let report = HostReport {
            host_id: SIM_HOST_ID,
            sequence: *self.shared.sequence.borrow(),
            sandboxes: self.shared.lock().report(),
        };
        // A slow answer is an old one.
        self.shared.linger(Call::List).await;
        self.shared.fault(Call::List, When::After)?;
        Ok(report)
    }

    async fn changed(&self, seen: u64, wait: Duration) -> Result<u64, HostError> {
        let mut sequence = self.shared.sequence.subscribe();
        let newer = async {
            // The sender lives in `self`: this ends only with the value.
            let _ = sequence.wait_for(|sequence| *sequence > seen).await;
        };
        tokio::select! {
            () = newer => {}
            () = self.shared.clock.sleep(wait) => {}
        }
        Ok(*self.shared.sequence.borrow())
    }

    fn guest(&self, id: SandboxId) -> Arc<dyn Guest> {
        Arc::new(SimLink::new(Arc::clone(&self.shared), id))
    }
}
