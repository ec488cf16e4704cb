//! The sandboxes of this host, in memory: a cache of the inventory with the running machines beside
//! it. Holds its lock for moments and does no I/O.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sandbox_core::{
    host::{HostError, HostReport, HostSandbox, HostSandboxState},
    id::{HostId, SandboxId},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    inventory::{Manifest, Origin, Use},
    machine::Machine,
};

/// Destroyed sandboxes that are remembered, so that a late create is refused.
const TOMBSTONES_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Table {
    state: Mutex<State>,
    /// Counts changes.
    sequence: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<SandboxId, Slot>,
    /// One order at a time for each sandbox.
    orders: HashMap<SandboxId, Arc<tokio::sync::Mutex<()>>>,
    /// The newest generation of each destroyed sandbox, oldest first.
    tombstones: VecDeque<(SandboxId, u64)>,
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    generation: u64,
    machine_id: Uuid,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Creating { cancel: CancellationToken },
    Running(Arc<Machine>),
    Stopped { reason: String },
}

/// What a destroy finds.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    Machine(Arc<Machine>),
    /// A folder without a running machine.
    Folder(Uuid),
}

/// A sandbox that has just stopped.
#[derive(Debug)]
pub(super) struct JustStopped(Use);

impl JustStopped {
    pub(super) fn sandbox(&self) -> SandboxId {
        match self.0 {
            Use::Stopped { sandbox, .. }
            | Use::Running { sandbox, .. }
            | Use::Creating { sandbox, .. } => sandbox,
            Use::Waiting => SandboxId::from_uuid(Uuid::nil()),
        }
    }

    pub(super) fn manifest(self, origin: Origin) -> Manifest {
        Manifest {
            origin,
            use_: self.0,
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            sequence: watch::channel(1).0,
        }
    }
}

impl Table {
    /// The lock under which a sandbox's orders are carried out.
    pub(super) fn order_lock(&self, id: SandboxId) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state.lock();
        // Locks that nobody holds are of no use any more.
        if state.orders.len() > 1024 {
            state.orders.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        Arc::clone(state.orders.entry(id).or_default())
    }

    /// Whether a create shall be carried out: `false` when its machine is there already.
    pub(super) fn admit(&self, id: SandboxId, ordered: u64) -> Result<bool, HostError> {
        let state = self.state.lock();
        if state.closed {
            return Err(HostError::Unavailable("the host is stopping".to_owned()));
        }
        let buried = state
            .tombstones
            .iter()
            .find(|(dead, _)| *dead == id)
            .map(|(_, g)| *g);
        let newest = state.slots.get(&id).map(|slot| slot.generation).max(buried);
        match newest {
            Some(present) if ordered < present || buried == Some(ordered) => {
                Err(HostError::StaleGeneration { ordered, present })
            }
            Some(present) => Ok(ordered > present),
            None => Ok(true),
        }
    }

    pub(super) fn insert_creating(
        &self,
        id: SandboxId,
        generation: u64,
        machine_id: Uuid,
    ) -> CancellationToken {
        let cancel = CancellationToken::new();
        let standing = Standing::Creating {
            cancel: cancel.clone(),
        };
        self.state.lock().slots.insert(
            id,
            Slot {
                generation,
                machine_id,
                standing,
            },
        );
        self.bump();
        cancel
    }

    pub(super) fn set_running(&self, id: SandboxId, generation: u64, machine: Arc<Machine>) {
        let slot = Slot {
            generation,
            machine_id: machine.id,
            standing: Standing::Running(machine),
        };
        self.state.lock().slots.insert(id, slot);
        self.bump();
    }

    pub(super) fn insert_stopped(
        &self,
        id: SandboxId,
        generation: u64,
        machine_id: Uuid,
        reason: String,
    ) {
        let slot = Slot {
            generation,
            machine_id,
            standing: Standing::Stopped { reason },
        };
        self.state.lock().slots.insert(id, slot);
        self.bump();
    }

    /// Marks the sandbox of a machine that has ended.
    pub(super) fn stop(&self, machine: &Machine, reason: &str) -> Option<JustStopped> {
        let stopped = {
            let mut state = self.state.lock();
            let (id, slot) = state.slots.iter_mut().find(|(_, slot)| {
                matches!(&slot.standing, Standing::Running(running) if running.id == machine.id)
            })?;
            slot.standing = Standing::Stopped {
                reason: reason.to_owned(),
            };
            JustStopped(Use::Stopped {
                sandbox: *id,
                generation: slot.generation,
                reason: reason.to_owned(),
            })
        };
        self.bump();
        Some(stopped)
    }

    /// Refuses every create up to `generation` from now on, and cancels one under way.
    pub(super) fn bury(&self, id: SandboxId, generation: u64) -> Result<(), HostError> {
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.get(&id) {
            if slot.generation > generation {
                let present = slot.generation;
                return Err(HostError::StaleGeneration {
                    ordered: generation,
                    present,
                });
            }
            if let Standing::Creating { cancel } = &slot.standing {
                cancel.cancel();
            }
        }
        state.tombstones.retain(|(dead, _)| *dead != id);
        if state.tombstones.len() >= TOMBSTONES_MAX {
            state.tombstones.pop_front();
        }
        state.tombstones.push_back((id, generation));
        Ok(())
    }

    /// Takes a sandbox's machine out of service, so that its end is no news. The sandbox stays in
    /// the report until it is removed.
    pub(super) fn retire(&self, id: SandboxId) -> Found {
        let mut state = self.state.lock();
        let Some(slot) = state.slots.get_mut(&id) else {
            return Found::Nothing;
        };
        let reason = "it is being destroyed".to_owned();
        match std::mem::replace(&mut slot.standing, Standing::Stopped { reason }) {
            Standing::Running(machine) => Found::Machine(machine),
            Standing::Creating { .. } | Standing::Stopped { .. } => Found::Folder(slot.machine_id),
        }
    }

    pub(super) fn remove(&self, id: SandboxId) {
        if self.state.lock().slots.remove(&id).is_some() {
            self.bump();
        }
    }

    /// A sandbox's machine, or why there is none.
    pub(super) fn machine(&self, id: SandboxId) -> Result<Arc<Machine>, String> {
        let state = self.state.lock();
        match state.slots.get(&id).map(|slot| &slot.standing) {
            None if state.closed => Err("the host was shut down".to_owned()),
            Some(Standing::Running(machine)) => Ok(Arc::clone(machine)),
            Some(Standing::Creating { .. }) => Err("it is being created".to_owned()),
            Some(Standing::Stopped { reason }) => Err(reason.clone()),
            None => Err("its host has no machine for it".to_owned()),
        }
    }

    pub(super) fn report(&self, host_id: HostId) -> HostReport {
        let state = self.state.lock();
        let mut sandboxes: Vec<HostSandbox> = state
            .slots
            .iter()
            .map(|(id, slot)| HostSandbox {
                id: *id,
                generation: slot.generation,
                state: match &slot.standing {
                    Standing::Creating { .. } => HostSandboxState::Creating,
                    Standing::Running(_) => HostSandboxState::Running,
                    Standing::Stopped { reason } => HostSandboxState::Stopped {
                        reason: reason.clone(),
                    },
                },
            })
            .collect();
        sandboxes.sort_by_key(|sandbox| sandbox.id);
        HostReport {
            host_id,
            sequence: *self.sequence.borrow(),
            sandboxes,
        }
    }

    pub(super) async fn changed(&self, seen: u64, wait: Duration) -> u64 {
        let mut sequence = self.sequence.subscribe();
        // Elapsed or not, the newest number is the answer.
        let _ = tokio::time::timeout(wait, sequence.wait_for(|newest| *newest > seen)).await;
        *sequence.borrow()
    }

    /// Forgets all sandboxes, and returns those that run.
    pub(super) fn leave(&self) -> Vec<Arc<Machine>> {
        let mut state = self.state.lock();
        let slots = std::mem::take(&mut state.slots);
        let running = slots.into_values().filter_map(|slot| match slot.standing {
            Standing::Running(machine) => Some(machine),
            Standing::Creating { .. } | Standing::Stopped { .. } => None,
        });
        running.collect()
    }

    /// Takes no more creates.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
    }

    fn bump(&self) {
        self.sequence.send_modify(|sequence| *sequence += 1);
    }
}
