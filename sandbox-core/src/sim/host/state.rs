//! What a simulated host holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    faults::{Call, Faults, When},
    images::Image,
    sequence::Sequence,
};
use crate::{
    clock::Clock,
    host::{HostError, HostImage, HostOrder, HostSandbox, HostSandboxState},
    id::{SandboxId, TemplateId},
    planted::{Bug, planted},
    sim::guest::SimGuest,
    size::MachineSize,
};

/// How a machine is shown while an image is made of it: it is out of the live map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Window {
    /// As paused.
    #[default]
    Paused,
    /// Not at all.
    Absent,
}

pub(in crate::sim) struct Shared {
    pub(in crate::sim) clock: Arc<dyn Clock>,
    state: Mutex<State>,
    pub(super) sequence: Sequence,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) machines: BTreeMap<SandboxId, Machine>,
    /// The newest generation that was ordered to end, by sandbox.
    pub(super) ended: BTreeMap<SandboxId, u64>,
    pub(super) images: BTreeMap<TemplateId, Image>,
    /// Images that are being made, and whether they were ordered to go meanwhile.
    pub(super) making: BTreeMap<TemplateId, bool>,
    pub(super) faults: Faults,
    pub(super) window: Window,
    /// Counts the starts of the host's process.
    pub(super) epoch: u64,
}

pub(super) struct Machine {
    pub(super) generation: u64,
    pub(super) state: HostSandboxState,
    pub(super) guest: Arc<SimGuest>,
    pub(super) image: TemplateId,
    pub(super) size: MachineSize,
    /// The newest order taken.
    pub(super) order: u64,
    /// An order is at work on it.
    pub(super) busy: bool,
    /// It is out of the live map while an image is made of it.
    pub(super) out: bool,
    /// The host itself paused it, and has said so.
    pub(super) told: Option<bool>,
    /// Counts the times that it began or ceased to run: a connection lasts for one of them.
    pub(super) turns: u64,
}

impl Machine {
    pub(super) fn new(
        generation: u64,
        state: HostSandboxState,
        guest: Arc<SimGuest>,
        image: TemplateId,
        size: MachineSize,
    ) -> Self {
        Self {
            generation,
            state,
            guest,
            image,
            size,
            order: 0,
            busy: false,
            out: false,
            told: None,
            turns: 0,
        }
    }

    pub(super) fn pause(&mut self) {
        self.state = HostSandboxState::Paused;
        self.guest.stand_still();
        self.turns += 1;
    }

    pub(super) fn resume(&mut self) {
        self.told = None;
        self.state = HostSandboxState::Running;
        self.guest.go_on();
        self.turns += 1;
    }
}

impl State {
    pub(super) fn report(&self) -> Vec<HostSandbox> {
        let machines = self.machines.iter();
        machines
            .filter(|(_, machine)| !(machine.out && self.window == Window::Absent))
            .filter(|(_, machine)| !(machine.told == Some(true) && planted(Bug::ReportDrained)))
            .map(|(id, machine)| HostSandbox {
                id: *id,
                generation: machine.generation,
                state: machine.state.clone(),
                at_work: machine.busy,
            })
            .collect()
    }

    pub(super) fn report_images(&self) -> Vec<HostImage> {
        let images = self.images.iter();
        images
            .map(|(id, image)| image.report(*id, self.users(*id)))
            .collect()
    }

    pub(super) fn users(&self, image: TemplateId) -> u32 {
        let users = self
            .machines
            .values()
            .filter(|machine| machine.image == image);
        u32::try_from(users.count()).unwrap_or(u32::MAX)
    }

    /// The newest generation that it knows of.
    pub(super) fn present(&self, id: SandboxId) -> u64 {
        let machine = self
            .machines
            .get(&id)
            .map_or(0, |machine| machine.generation);
        machine.max(self.ended.get(&id).copied().unwrap_or(0))
    }

    pub(super) fn remove_machine(&mut self, id: SandboxId) {
        self.machines.remove(&id);
        let unused: Vec<TemplateId> = self
            .images
            .iter()
            .filter(|(id, image)| image.deleting && self.users(**id) == 0)
            .map(|(id, _)| *id)
            .collect();
        for id in unused {
            self.images.remove(&id);
        }
    }

    /// The machine that an order is for.
    pub(super) fn ordered(&mut self, order: HostOrder) -> Result<&mut Machine, HostError> {
        let present = self.present(order.id);
        if order.generation < present {
            return Err(HostError::StaleGeneration {
                ordered: order.generation,
                present,
            });
        }
        self.machines
            .get_mut(&order.id)
            .filter(|machine| machine.generation == order.generation)
            .ok_or(HostError::UnknownSandbox(order.id))
    }
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            images: BTreeMap::from([Image::minimal(&clock)]),
            ..State::default()
        };
        Self {
            clock,
            state: Mutex::new(state),
            sequence: Sequence::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bump(&self) {
        self.sequence.bump();
    }

    pub(super) fn new_guest(&self, env: BTreeMap<String, String>) -> Arc<SimGuest> {
        Arc::new(SimGuest::new(Arc::clone(&self.clock), env))
    }

    pub(in crate::sim) fn fault(&self, call: Call, when: When) -> Result<(), HostError> {
        self.lock().faults.strike(call, when)
    }

    /// What comes before each call.
    pub(in crate::sim) fn enter(&self, call: Call) -> Result<(), HostError> {
        self.lock().faults.note(call);
        self.fault(call, When::Before)
    }

    pub(super) async fn travel(&self, call: Call) {
        let transit = self.lock().faults.transit_of(call);
        if let Some(transit) = transit {
            self.clock.sleep(transit).await;
        }
    }

    pub(in crate::sim) async fn linger(&self, call: Call) {
        let delay = self.lock().faults.delay_of(call);
        if let Some(delay) = delay {
            self.clock.sleep(delay).await;
        }
    }

    /// The guest of a machine that runs, and which of its turns this is; or why it doesn't.
    pub(in crate::sim) fn running(
        &self,
        id: SandboxId,
    ) -> Result<((u64, u64), Arc<SimGuest>), String> {
        match self.lock().machines.get(&id) {
            None => Err("its host has no machine of it".to_owned()),
            Some(machine) => match &machine.state {
                HostSandboxState::Creating => Err("it is being made".to_owned()),
                HostSandboxState::Running => {
                    let turn = (machine.generation, machine.turns);
                    Ok((turn, Arc::clone(&machine.guest)))
                }
                HostSandboxState::Paused => Err("it is paused".to_owned()),
                HostSandboxState::Stopped { reason } => Err(reason.clone()),
            },
        }
    }

    /// Returns when the machine no longer runs as it did in this turn.
    pub(in crate::sim) async fn until_ended(&self, id: SandboxId, turn: (u64, u64)) {
        loop {
            let seen = self.sequence.changes();
            if self.running(id).is_ok_and(|(now, _)| now == turn) {
                self.sequence.changed_since(seen).await;
            } else {
                return;
            }
        }
    }
}
