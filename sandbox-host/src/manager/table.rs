//! The sandboxes of this host, in memory: a cache of the inventory with the running machines beside
//! it. Holds its lock for moments and does no I/O.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sandbox_core::{
    host::{HostError, HostImage, HostOrder, HostReport, HostSandbox, HostSandboxState},
    id::{HostId, SandboxId, TemplateId},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    emulator::Emulator,
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
    /// The newest order taken.
    order: u64,
    machine_id: Uuid,
    /// The template that the machine lies on.
    image: TemplateId,
    standing: Standing,
    /// Calls off the order that is being carried out. Meanwhile nothing but that order changes how
    /// the machine stands.
    under_way: Option<CancellationToken>,
}

#[derive(Debug)]
enum Standing {
    Creating,
    Running(Arc<Machine>),
    Paused(Paused),
    Stopped { reason: String },
}

/// A paused machine.
#[derive(Debug, Clone)]
pub(super) struct Paused {
    pub(super) origin: Origin,
    /// See [`Use::Paused`].
    pub(super) quiesced: bool,
    pub(super) emulator: Emulator,
}

/// How a machine stands at the beginning of an order.
#[derive(Debug)]
pub(super) enum Present {
    Running(Arc<Machine>),
    Paused(Paused),
    /// The reason why nothing can be done with it.
    Neither(HostError),
}

/// An order that may be carried out.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) machine_id: Uuid,
    pub(super) present: Present,
    /// The order calls itself off when this says so.
    pub(super) cancel: CancellationToken,
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
pub(super) struct JustStopped {
    pub(super) sandbox: SandboxId,
    order: u64,
    use_: Use,
}

impl JustStopped {
    pub(super) fn manifest(self, origin: Origin) -> Manifest {
        Manifest {
            origin,
            order: self.order,
            use_: self.use_,
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
        image: TemplateId,
    ) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.insert(
            id,
            Slot {
                generation,
                order: 0,
                machine_id,
                image,
                standing: Standing::Creating,
                under_way: Some(cancel.clone()),
            },
        );
        cancel
    }

    /// A machine that was made, or was found running. With `under_way`, as at the beginning of an
    /// order.
    pub(super) fn insert_running(
        &self,
        id: SandboxId,
        generation: u64,
        order: u64,
        machine: Arc<Machine>,
        under_way: Option<CancellationToken>,
    ) {
        self.insert(
            id,
            Slot {
                generation,
                order,
                machine_id: machine.id,
                image: machine.origin.image,
                standing: Standing::Running(machine),
                under_way,
            },
        );
    }

    /// A machine that was found without a process.
    pub(super) fn insert_found(&self, machine_id: Uuid, manifest: Manifest) {
        let image = manifest.origin.image;
        let (id, generation, standing) = match manifest.use_ {
            Use::Stopped {
                sandbox,
                generation,
                reason,
            } => (sandbox, generation, Standing::Stopped { reason }),
            Use::Paused {
                sandbox,
                generation,
                quiesced,
                emulator,
            } => {
                let paused = Paused {
                    origin: manifest.origin,
                    quiesced,
                    emulator,
                };
                (sandbox, generation, Standing::Paused(paused))
            }
            Use::Waiting | Use::Creating { .. } | Use::Running { .. } => return,
        };
        self.insert(
            id,
            Slot {
                generation,
                order: manifest.order,
                machine_id,
                image,
                standing,
                under_way: None,
            },
        );
    }

    fn insert(&self, id: SandboxId, slot: Slot) {
        self.state.lock().slots.insert(id, slot);
        self.bump();
    }

    /// Takes an order, unless it is out of date, and keeps all else from changing how the machine
    /// stands until [`finish`](Self::finish).
    pub(super) fn begin(
        &self,
        order: &HostOrder,
        cancel: CancellationToken,
    ) -> Result<Begun, HostError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(HostError::Unavailable("the host is stopping".to_owned()));
        }
        let buried = state.tombstones.iter().find(|(dead, _)| *dead == order.id);
        let buried = buried.map(|(_, generation)| *generation);
        let slot = state.slots.get_mut(&order.id);
        let present = slot.as_ref().map(|slot| slot.generation).max(buried);
        if let Some(present) = present.filter(|present| order.generation < *present) {
            let ordered = order.generation;
            return Err(HostError::StaleGeneration { ordered, present });
        }
        let slot = slot
            .filter(|slot| slot.generation == order.generation)
            .ok_or(HostError::UnknownSandbox(order.id))?;
        if order.order < slot.order {
            return Err(HostError::StaleOrder {
                ordered: order.order,
                present: slot.order,
            });
        }
        slot.order = order.order;
        slot.under_way = Some(cancel.clone());
        // A report from before must not count as one that shows it at rest.
        self.bump();
        let neither = |state: &str, reason: &str| {
            Present::Neither(HostError::WrongState {
                state: state.to_owned(),
                reason: reason.to_owned(),
            })
        };
        let present = match &slot.standing {
            Standing::Running(machine) => Present::Running(Arc::clone(machine)),
            Standing::Paused(paused) => Present::Paused(paused.clone()),
            Standing::Creating => neither("creating", "it has not come up"),
            Standing::Stopped { reason } => neither("stopped", reason),
        };
        Ok(Begun {
            machine_id: slot.machine_id,
            present,
            cancel,
        })
    }

    /// The machine has been saved, or goes on. Only for the order that is under way.
    pub(super) fn set_paused(&self, id: SandboxId, paused: Paused) {
        self.set_standing(id, Standing::Paused(paused));
    }

    /// As [`set_paused`](Self::set_paused).
    pub(super) fn set_running(&self, id: SandboxId, machine: Arc<Machine>) {
        self.set_standing(id, Standing::Running(machine));
    }

    fn set_standing(&self, id: SandboxId, standing: Standing) {
        if let Some(slot) = self.state.lock().slots.get_mut(&id) {
            slot.standing = standing;
        }
        self.bump();
    }

    /// An order is over. Returns the machine if it runs, as its end may have gone unnoticed.
    pub(super) fn finish(&self, id: SandboxId) -> Option<Arc<Machine>> {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(&id)?;
        slot.under_way = None;
        self.bump();
        match &slot.standing {
            Standing::Running(machine) => Some(Arc::clone(machine)),
            _ => None,
        }
    }

    /// How many machines lie on each template.
    pub(super) fn users(&self) -> HashMap<TemplateId, u32> {
        let mut users = HashMap::new();
        for slot in self.state.lock().slots.values() {
            *users.entry(slot.image).or_default() += 1;
        }
        users
    }

    /// Marks the sandbox of a machine that has ended. An order that is under way for it sees to
    /// that itself.
    pub(super) fn stop(&self, machine: &Machine, reason: &str) -> Option<JustStopped> {
        let stopped = {
            let mut state = self.state.lock();
            let (id, slot) = state.slots.iter_mut().find(|(_, slot)| {
                slot.under_way.is_none()
                    && matches!(&slot.standing, Standing::Running(found) if found.id == machine.id)
            })?;
            slot.standing = Standing::Stopped {
                reason: reason.to_owned(),
            };
            JustStopped {
                sandbox: *id,
                order: slot.order,
                use_: Use::Stopped {
                    sandbox: *id,
                    generation: slot.generation,
                    reason: reason.to_owned(),
                },
            }
        };
        self.bump();
        Some(stopped)
    }

    /// Refuses every create up to `generation` from now on, and calls off what is under way.
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
            if let Some(cancel) = &slot.under_way {
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
            Standing::Creating | Standing::Paused(_) | Standing::Stopped { .. } => {
                Found::Folder(slot.machine_id)
            }
        }
    }

    /// Forgets a sandbox, and returns the template that it lay on.
    pub(super) fn remove(&self, id: SandboxId) -> Option<TemplateId> {
        let removed = self.state.lock().slots.remove(&id)?;
        self.bump();
        Some(removed.image)
    }

    /// News for those who wait for a change.
    pub(super) fn images_changed(&self) {
        self.bump();
    }

    /// Whether this is the sandbox's machine.
    pub(super) fn has_machine(&self, id: SandboxId, machine: Uuid) -> bool {
        let state = self.state.lock();
        state
            .slots
            .get(&id)
            .is_some_and(|slot| slot.machine_id == machine)
    }

    /// A sandbox's machine, or why there is none.
    pub(super) fn machine(&self, id: SandboxId) -> Result<Arc<Machine>, String> {
        let state = self.state.lock();
        match state.slots.get(&id).map(|slot| &slot.standing) {
            None if state.closed => Err("the host was shut down".to_owned()),
            Some(Standing::Running(machine)) => Ok(Arc::clone(machine)),
            Some(Standing::Creating) => Err("it is being created".to_owned()),
            Some(Standing::Paused(_)) => Err("it is paused".to_owned()),
            Some(Standing::Stopped { reason }) => Err(reason.clone()),
            None => Err("its host has no machine for it".to_owned()),
        }
    }

    pub(super) fn report(&self, host_id: HostId, epoch: u64, images: Vec<HostImage>) -> HostReport {
        let state = self.state.lock();
        let mut sandboxes: Vec<HostSandbox> = state
            .slots
            .iter()
            .map(|(id, slot)| HostSandbox {
                id: *id,
                generation: slot.generation,
                state: match &slot.standing {
                    Standing::Creating => HostSandboxState::Creating,
                    Standing::Paused(_) => HostSandboxState::Paused,
                    Standing::Running(_) => HostSandboxState::Running,
                    Standing::Stopped { reason } => HostSandboxState::Stopped {
                        reason: reason.clone(),
                    },
                },
                at_work: slot.under_way.is_some()
                    && matches!(slot.standing, Standing::Running(_) | Standing::Paused(_)),
            })
            .collect();
        sandboxes.sort_by_key(|sandbox| sandbox.id);
        HostReport {
            host_id,
            epoch,
            sequence: *self.sequence.borrow(),
            sandboxes,
            images,
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
            Standing::Creating | Standing::Paused(_) | Standing::Stopped { .. } => None,
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
