//! A simulated host's images, and the orders that make and delete them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    faults::{Call, When},
    machines::{AtWork, wrong},
    state::Shared,
};
use crate::{
    clock::Clock,
    host::{HostError, HostImage, HostImport, HostSandboxState, HostSnapshot, ImageDeletion},
    id::TemplateId,
    planted::{Bug, planted},
    sim::guest::SimGuest,
    size::{DISK_SIZE_MB_MIN, MachineSize},
    template::{ImportSource, MINIMAL_TEMPLATE_ID, TemplateKind},
};

/// Physical bytes of a simulated disk.
const DISK_BYTES: u64 = 40 * 1024 * 1024;
/// Physical bytes of a simulated memory.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// The least disk that an image's content fits, in MiB: any that may be asked for is enough, as what
/// an import holds cannot be known from the request.
const CONTENT_MB: u32 = DISK_SIZE_MB_MIN;
/// Likewise where the source is a folder whose name says that it is large.
const LARGE_CONTENT_MB: u32 = 128;

/// An image: a guest that stands still.
pub(super) struct Image {
    kind: TemplateKind,
    size: MachineSize,
    guest: SimGuest,
    /// What processes in its sandboxes find in their environment.
    env: BTreeMap<String, String>,
    pub(super) deleting: bool,
}

impl Image {
    pub(super) fn minimal(clock: &Arc<dyn Clock>) -> (TemplateId, Self) {
        (MINIMAL_TEMPLATE_ID, Self::empty(clock))
    }

    /// A disk with nothing special on it.
    pub(super) fn empty(clock: &Arc<dyn Clock>) -> Self {
        let guest = SimGuest::new(Arc::clone(clock), BTreeMap::new());
        guest.stand_still();
        Self {
            kind: TemplateKind::Image,
            size: MachineSize {
                disk_size_mb: CONTENT_MB,
                ..MachineSize::default()
            },
            guest,
            env: BTreeMap::new(),
            deleting: false,
        }
    }

    /// A machine's guest that starts from it; it stands still until the machine runs.
    pub(super) fn start(&self, env: BTreeMap<String, String>) -> Arc<SimGuest> {
        let with_memory = self.kind == TemplateKind::Snapshot;
        let mut all = self.env.clone();
        all.extend(env);
        Arc::new(self.guest.fork(all, with_memory))
    }

    pub(super) fn report(&self, id: TemplateId, users: u32) -> HostImage {
        let memory_bytes = match self.kind {
            TemplateKind::Image => 0,
            TemplateKind::Snapshot => MEMORY_BYTES,
        };
        HostImage {
            id,
            kind: self.kind,
            size: self.size,
            disk_bytes: DISK_BYTES,
            memory_bytes,
            users,
            deleting: self.deleting,
        }
    }
}

/// An image in the making. Dropped before it is published, it leaves nothing.
struct Making<'a> {
    shared: &'a Shared,
    image: TemplateId,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.shared.lock().making.remove(&self.image);
    }
}

impl Shared {
    /// The image, if it was made before.
    fn made(&self, image: TemplateId) -> Option<HostImage> {
        let state = self.lock();
        let made = state.images.get(&image).filter(|image| !image.deleting);
        made.map(|made| made.report(image, state.users(image)))
    }

    fn begin_making(&self, image: TemplateId) -> Result<Making<'_>, HostError> {
        let mut state = self.lock();
        if state.images.contains_key(&image) || state.making.contains_key(&image) {
            return Err(HostError::ImageExists(image));
        }
        state.making.insert(image, false);
        Ok(Making {
            shared: self,
            image,
        })
    }

    pub(super) async fn snapshot(
        self: Arc<Self>,
        order: HostSnapshot,
        kind: TemplateKind,
    ) -> Result<HostImage, HostError> {
        self.travel(Call::Snapshot).await;
        self.enter(Call::Snapshot)?;
        let work = self.take(order.order).await?;
        let image = match self.made(order.image) {
            Some(image) => image,
            None => self.make_of_machine(&work, order, kind).await?,
        };
        drop(work);
        self.fault(Call::Snapshot, When::After)?;
        Ok(image)
    }

    async fn make_of_machine(
        &self,
        work: &AtWork,
        order: HostSnapshot,
        kind: TemplateKind,
    ) -> Result<HostImage, HostError> {
        let making = self.begin_making(order.image)?;
        {
            let mut state = self.lock();
            let machine = state.ordered(order.order)?;
            match &machine.state {
                HostSandboxState::Running => machine.pause(),
                HostSandboxState::Paused => {}
                other => return Err(wrong(other)),
            }
            machine.out = true;
        }
        self.bump();
        self.linger(Call::Snapshot).await;
        self.fault(Call::Snapshot, When::During)?;
        let made = {
            let mut state = self.lock();
            work.still(state.epoch)?;
            let machine = state.ordered(order.order)?;
            if machine.state != HostSandboxState::Paused {
                return Err(wrong(&machine.state));
            }
            let origin = machine.image;
            let image = Image {
                env: order.env.clone(),
                kind,
                size: match kind {
                    TemplateKind::Snapshot => machine.size,
                    TemplateKind::Image => MachineSize {
                        disk_size_mb: CONTENT_MB,
                        ..machine.size
                    },
                },
                guest: machine
                    .guest
                    .fork(BTreeMap::new(), kind == TemplateKind::Snapshot),
                deleting: false,
            };
            if order.resume {
                machine.resume();
            }
            machine.out = false;
            if state.making.get(&order.image) == Some(&true) {
                return Err(HostError::UnknownImage(order.image));
            }
            let mut image = image;
            let mut env = state
                .images
                .get(&origin)
                .map(|origin| origin.env.clone())
                .unwrap_or_default();
            env.append(&mut image.env);
            image.env = env;
            let made = image.report(order.image, 0);
            state.images.insert(order.image, image);
            made
        };
        drop(making);
        self.bump();
        Ok(made)
    }

    pub(super) async fn import(self: Arc<Self>, order: HostImport) -> Result<HostImage, HostError> {
        self.travel(Call::Import).await;
        self.enter(Call::Import)?;
        if let Some(made) = self.made(order.image) {
            return Ok(made);
        }
        // What a real host finds out by looking.
        if let ImportSource::Directory { path } | ImportSource::Tar { path } = &order.source
            && path.contains("missing")
        {
            return Err(HostError::BadSource(format!("there is no `{path}`")));
        }
        let epoch = self.lock().epoch;
        let making = self.begin_making(order.image)?;
        self.linger(Call::Import).await;
        self.fault(Call::Import, When::During)?;
        let made = {
            let mut state = self.lock();
            if state.epoch != epoch {
                return Err(HostError::Unavailable("the host went down".to_owned()));
            }
            if state.making.get(&order.image) == Some(&true) {
                return Err(HostError::UnknownImage(order.image));
            }
            let mut image = Image::empty(&self.clock);
            if let ImportSource::Directory { path } = &order.source
                && path.contains("large")
            {
                image.size.disk_size_mb = LARGE_CONTENT_MB;
            }
            let made = image.report(order.image, 0);
            state.images.insert(order.image, image);
            made
        };
        drop(making);
        self.bump();
        self.fault(Call::Import, When::After)?;
        Ok(made)
    }

    pub(super) async fn delete_image(
        self: Arc<Self>,
        image: TemplateId,
    ) -> Result<ImageDeletion, HostError> {
        self.travel(Call::DeleteImage).await;
        self.enter(Call::DeleteImage)?;
        self.linger(Call::DeleteImage).await;
        let deletion = {
            let mut state = self.lock();
            let users = state.users(image);
            if let Some(cut) = state.making.get_mut(&image) {
                *cut = true;
            }
            match state.images.get_mut(&image) {
                Some(there) if users > 0 && !planted(Bug::FreedInUse) => {
                    there.deleting = true;
                    ImageDeletion::InUse
                }
                _ => {
                    state.images.remove(&image);
                    ImageDeletion::Freed
                }
            }
        };
        self.bump();
        self.fault(Call::DeleteImage, When::After)?;
        Ok(deletion)
    }
}
