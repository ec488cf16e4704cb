//! A simulated host: machines and images in memory, with faults and delays to order.

mod faults;
mod images;
mod machines;
mod sequence;
mod state;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use uuid::Uuid;

use self::{
    faults::Times,
    images::Image,
    machines::{Admitted, on_a_task},
    state::Machine,
};
use super::link::SimLink;
use crate::{
    clock::Clock,
    guest::Guest,
    host::{
        Host, HostCreate, HostError, HostImage, HostImport, HostInfo, HostOrder, HostReport,
        HostSandbox, HostSandboxState, HostSnapshot, ImageDeletion,
    },
    id::{HostId, SandboxId, TemplateId},
    size::MachineSize,
    template::{MINIMAL_TEMPLATE_ID, TemplateKind},
};

pub(super) use self::state::Shared;
pub use self::{
    faults::{Call, When},
    state::Window,
};

/// A host in memory. Clones are one host, so a new engine over the same one finds its machines.
///
/// Orders to pause, resume, and make images are worked off when whoever gave them has gone, unless
/// the host's own process dies: see [`restart`](Self::restart).
#[derive(Clone)]
pub struct SimHost {
    shared: Arc<Shared>,
}

const SIM_HOST_ID: HostId = HostId::from_uuid(Uuid::from_u128(0x51));

impl SimHost {
    /// A host without machines. It has the image of `minimal`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared::new(clock)),
        }
    }

    /// The next such call fails so.
    pub fn fail(&self, call: Call, when: When, error: HostError) {
        let mut state = self.shared.lock();
        state.faults.add(call, when, error, Times::Once);
    }

    /// All such calls fail so, until [`heal`](Self::heal).
    pub fn fail_always(&self, call: Call, when: When, error: HostError) {
        let mut state = self.shared.lock();
        state.faults.add(call, when, error, Times::Always);
    }

    /// Such calls take this long, until [`heal`](Self::heal).
    pub fn delay(&self, call: Call, duration: Duration) {
        self.shared.lock().faults.delay(call, duration);
    }

    /// Such orders are on their way for this long before the host knows of them, until
    /// [`heal`](Self::heal). Works for all that change something.
    pub fn delay_delivery(&self, call: Call, duration: Duration) {
        self.shared.lock().faults.delay_delivery(call, duration);
    }

    /// How machines are shown from now on while images are made of them.
    pub fn show_at_work(&self, window: Window) {
        self.shared.lock().window = window;
    }

    /// The host forgets which machines it was told to end.
    pub fn forget_ended(&self) {
        self.shared.lock().ended.clear();
    }

    /// Ends all faults and delays.
    pub fn heal(&self) {
        self.shared.lock().faults.heal();
    }

    /// How many such calls were made.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        self.shared.lock().faults.count(call)
    }

    /// The machines in its report.
    #[must_use]
    pub fn machines(&self) -> Vec<HostSandbox> {
        self.shared.lock().report()
    }

    /// Its images but `minimal`, which it always has.
    #[must_use]
    pub fn images(&self) -> Vec<HostImage> {
        let mut images = self.shared.lock().report_images();
        images.retain(|image| image.id != MINIMAL_TEMPLATE_ID);
        images
    }

    /// Machines whose image is not there: none, on a host that can be trusted.
    #[must_use]
    pub fn without_image(&self) -> Vec<SandboxId> {
        let state = self.shared.lock();
        let machines = state.machines.iter();
        let bare = machines.filter(|(_, machine)| !state.images.contains_key(&machine.image));
        bare.map(|(id, _)| *id).collect()
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

    /// A running machine is paused by the host itself.
    pub fn pause_machine(&self, id: SandboxId) {
        let mut state = self.shared.lock();
        let machine = state.machines.get_mut(&id);
        if let Some(machine) = machine.filter(|m| m.state == HostSandboxState::Running) {
            machine.pause();
            machine.told = Some(false);
        }
        drop(state);
        self.shared.bump();
    }

    /// A machine and all it held are gone without a word.
    pub fn lose_machine(&self, id: SandboxId) {
        self.shared.lock().remove_machine(id);
        self.shared.bump();
    }

    /// Puts a running machine there that nobody ordered.
    pub fn put_machine(&self, id: SandboxId, generation: u64) {
        let machine = Machine::new(
            generation,
            HostSandboxState::Running,
            self.shared.new_guest(BTreeMap::new()),
            MINIMAL_TEMPLATE_ID,
            MachineSize::default(),
        );
        self.shared.lock().machines.insert(id, machine);
        self.shared.bump();
    }

    /// Puts an image there that nobody ordered.
    pub fn put_image(&self, id: TemplateId) {
        let image = Image::empty(&self.shared.clock);
        self.shared.lock().images.insert(id, image);
        self.shared.bump();
    }

    /// The host's process dies and starts again: machines go on, half-made ones stay half-made, and
    /// nothing comes of the orders at work.
    pub fn restart(&self) {
        {
            let mut state = self.shared.lock();
            state.epoch += 1;
            state.making.clear();
            for machine in state.machines.values_mut() {
                machine.busy = false;
                machine.out = false;
            }
        }
        self.forget_ended();
        self.shared.sequence.reset();
    }
}

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimHost").field(&self.machines()).finish()
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
        let epoch = shared.lock().epoch;
        match shared.admit(&order)? {
            Admitted::Ready => {}
            Admitted::Begun | Admitted::InTheMaking => {
                shared.linger(Call::Create).await;
                shared.complete(&order, epoch)?;
            }
        }
        shared.fault(Call::Create, When::After)
    }

    async fn destroy_sandbox(&self, id: SandboxId, generation: u64) -> Result<(), HostError> {
        let shared = &self.shared;
        shared.travel(Call::Destroy).await;
        shared.enter(Call::Destroy)?;
        shared.linger(Call::Destroy).await;
        shared.end(id, generation)?;
        shared.fault(Call::Destroy, When::After)
    }

    async fn pause_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        on_a_task(Arc::clone(&self.shared).pause(order)).await
    }

    async fn resume_sandbox(&self, order: HostOrder) -> Result<(), HostError> {
        on_a_task(Arc::clone(&self.shared).resume(order)).await
    }

    async fn create_snapshot(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        on_a_task(Arc::clone(&self.shared).snapshot(order, TemplateKind::Snapshot)).await
    }

    async fn flatten_rootfs(&self, order: HostSnapshot) -> Result<HostImage, HostError> {
        on_a_task(Arc::clone(&self.shared).snapshot(order, TemplateKind::Image)).await
    }

    async fn import_image(&self, order: HostImport) -> Result<HostImage, HostError> {
        on_a_task(Arc::clone(&self.shared).import(order)).await
    }

    async fn delete_snapshot(&self, image: TemplateId) -> Result<ImageDeletion, HostError> {
        on_a_task(Arc::clone(&self.shared).delete_image(image)).await
    }

    async fn list_sandboxes(&self) -> Result<HostReport, HostError> {
        self.shared.enter(Call::List)?;
        let report = {
            let mut state = self.shared.lock();
            let report = HostReport {
                host_id: SIM_HOST_ID,
                epoch: state.epoch,
                sequence: self.shared.sequence.get(),
                sandboxes: state.report(),
                images: state.report_images(),
            };
            for machine in state.machines.values_mut() {
                machine.told = machine.told.map(|_| true);
            }
            report
        };
        // A slow answer is an old one.
        self.shared.linger(Call::List).await;
        self.shared.fault(Call::List, When::After)?;
        Ok(report)
    }

    async fn changed(&self, seen: u64, wait: Duration) -> Result<u64, HostError> {
        let newer = self.shared.sequence.beyond(seen);
        tokio::select! {
            biased;
            () = newer => {}
            () = self.shared.clock.sleep(wait) => {}
        }
        Ok(self.shared.sequence.get())
    }

    fn guest(&self, id: SandboxId) -> Arc<dyn Guest> {
        Arc::new(SimLink::new(Arc::clone(&self.shared), id))
    }
}
