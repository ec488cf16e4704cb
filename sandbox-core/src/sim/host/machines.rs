//! Orders for a simulated host's machines.

use std::sync::Arc;

use super::{
    faults::{Call, When},
    state::{Machine, Shared},
};
use crate::{
    host::{HostCreate, HostError, HostOrder, HostSandboxState},
    id::SandboxId,
};

/// What an order for a machine meets.
pub(super) enum Admitted {
    Begun,
    Ready,
    InTheMaking,
}

/// An order at work on a machine, which it has to itself.
pub(super) struct AtWork {
    shared: Arc<Shared>,
    pub(super) order: HostOrder,
    epoch: u64,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            let epoch = state.epoch;
            if let Ok(machine) = state.ordered(self.order)
                && epoch == self.epoch
            {
                machine.busy = false;
                machine.out = false;
            }
        }
        self.shared.bump();
    }
}

impl AtWork {
    /// Fails when the host's process is another by now.
    pub(super) fn still(&self, epoch: u64) -> Result<(), HostError> {
        if self.epoch == epoch {
            return Ok(());
        }
        Err(HostError::Unavailable("the host went down".to_owned()))
    }
}

/// Why nothing can be done with a machine as it stands.
pub(super) fn wrong(state: &HostSandboxState) -> HostError {
    let (state, reason) = match state {
        HostSandboxState::Creating => ("creating", "it is being made".to_owned()),
        HostSandboxState::Running => ("running", "it runs".to_owned()),
        HostSandboxState::Paused => ("paused", "it is paused".to_owned()),
        HostSandboxState::Stopped { reason } => ("stopped", reason.clone()),
    };
    HostError::WrongState {
        state: state.to_owned(),
        reason,
    }
}

/// Does work that goes on when whoever ordered it has gone.
pub(super) async fn on_a_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, HostError>> + Send + 'static,
) -> Result<T, HostError> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|error| Err(HostError::Internal(error.to_string())))
}

impl Shared {
    pub(super) fn admit(&self, order: &HostCreate) -> Result<Admitted, HostError> {
        let mut state = self.lock();
        let present = state.present(order.id);
        if order.generation < present {
            return Err(HostError::StaleGeneration {
                ordered: order.generation,
                present,
            });
        }
        let there = state
            .machines
            .get(&order.id)
            .filter(|machine| machine.generation == order.generation);
        match there.map(|machine| &machine.state) {
            Some(HostSandboxState::Running | HostSandboxState::Paused) => {
                return Ok(Admitted::Ready);
            }
            Some(HostSandboxState::Creating) => return Ok(Admitted::InTheMaking),
            Some(HostSandboxState::Stopped { reason }) => {
                return Err(HostError::Boot(reason.clone()));
            }
            None => {}
        }
        let image = state.images.get(&order.image);
        let image = image.filter(|image| !image.deleting);
        let image = image.ok_or(HostError::UnknownImage(order.image))?;
        let machine = Machine::new(
            order.generation,
            HostSandboxState::Creating,
            image.start(order.env.clone()),
            order.image,
            order.size,
        );
        state.machines.insert(order.id, machine);
        drop(state);
        self.bump();
        Ok(Admitted::Begun)
    }

    /// The half-made machine runs, unless it was ended meanwhile.
    pub(super) fn complete(&self, order: &HostCreate, epoch: u64) -> Result<(), HostError> {
        let mut state = self.lock();
        if state.epoch != epoch {
            return Err(HostError::Unavailable("the host went down".to_owned()));
        }
        let present = state.present(order.id);
        let machine = state
            .machines
            .get_mut(&order.id)
            .filter(|machine| machine.generation == order.generation);
        match machine {
            Some(machine) if machine.state == HostSandboxState::Creating => machine.resume(),
            // The same order, done by another message: what became of the machine since, stays.
            Some(_) => return Ok(()),
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

    pub(super) fn end(&self, id: SandboxId, generation: u64) -> Result<(), HostError> {
        {
            let mut state = self.lock();
            let machine = state.machines.get(&id).map(|machine| machine.generation);
            if let Some(present) = machine.filter(|present| *present > generation) {
                return Err(HostError::StaleGeneration {
                    ordered: generation,
                    present,
                });
            }
            state.remove_machine(id);
            let ended = state.ended.entry(id).or_default();
            *ended = (*ended).max(generation);
        }
        self.bump();
        Ok(())
    }

    /// Takes an order: refuses it if a newer one was taken, and waits for one that is at work.
    pub(super) async fn take(self: &Arc<Self>, order: HostOrder) -> Result<AtWork, HostError> {
        loop {
            let seen = self.sequence.changes();
            {
                let mut state = self.lock();
                let epoch = state.epoch;
                let machine = state.ordered(order)?;
                if order.order < machine.order {
                    return Err(HostError::StaleOrder {
                        ordered: order.order,
                        present: machine.order,
                    });
                }
                machine.order = order.order;
                if !machine.busy {
                    machine.busy = true;
                    drop(state);
                    self.bump();
                    return Ok(AtWork {
                        shared: Arc::clone(self),
                        order,
                        epoch,
                    });
                }
            }
            self.sequence.changed_since(seen).await;
        }
    }

    pub(super) async fn pause(self: Arc<Self>, order: HostOrder) -> Result<(), HostError> {
        self.travel(Call::Pause).await;
        self.enter(Call::Pause)?;
        let work = self.take(order).await?;
        let standing = self.lock().ordered(order)?.state.clone();
        match standing {
            HostSandboxState::Paused => {}
            HostSandboxState::Running => {
                self.linger(Call::Pause).await;
                self.fault(Call::Pause, When::During)?;
                let mut state = self.lock();
                work.still(state.epoch)?;
                let machine = state.ordered(order)?;
                if machine.state != HostSandboxState::Running {
                    return Err(wrong(&machine.state));
                }
                machine.pause();
            }
            other => return Err(wrong(&other)),
        }
        drop(work);
        self.fault(Call::Pause, When::After)
    }

    pub(super) async fn resume(self: Arc<Self>, order: HostOrder) -> Result<(), HostError> {
        self.travel(Call::Resume).await;
        self.enter(Call::Resume)?;
        let work = self.take(order).await?;
        let standing = self.lock().ordered(order)?.state.clone();
        match standing {
            HostSandboxState::Running => {}
            HostSandboxState::Paused => {
                self.linger(Call::Resume).await;
                self.fault(Call::Resume, When::During)?;
                let mut state = self.lock();
                work.still(state.epoch)?;
                let machine = state.ordered(order)?;
                if machine.state != HostSandboxState::Paused {
                    return Err(wrong(&machine.state));
                }
                machine.resume();
            }
            other => return Err(wrong(&other)),
        }
        drop(work);
        self.fault(Call::Resume, When::After)
    }
}
