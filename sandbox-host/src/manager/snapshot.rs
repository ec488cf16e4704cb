//! Making an image of a sandbox: with its memory (a snapshot), or of its disk alone.
//!
//! ```text
//! runs, and runs on:  at rest ─► memory, devices, disk set aside ─► goes on ─► image made, published
//! runs, then paused:  pause ────────────────────────────────────────────────► image made, published
//! paused:                        ────────────────────────────────────────────► image made, published
//!                                                                     and where it is asked, resumed
//! ```
//!
//! An image is made in a folder of its own beside the others and is visible when it is whole. What is
//! set aside lies in the machine's folder. Either is removed at the next start where it was cut off.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::Arc,
};

use sandbox_core::{
    host::{HostError, HostImage, HostSnapshot},
    size::{MIB, MachineSize},
    template::TemplateKind,
};
use tokio::task::spawn_blocking;

use super::{
    Inner,
    table::{Begun, Paused, Present},
};
use crate::{
    disk::{Disk, sparse},
    emulator::{Emulator, SavedAs},
    fault,
    image::{Content, FrozenDisk, Making, StoredImage, copy_exact, flatten_disk},
    inventory::Origin,
    machine::{Guest, Machine, SaveFor, Saved, called_off},
    memory::Delta,
    space,
};

/// What an image is made of: files that nobody writes to while it is made.
#[derive(Debug, Clone)]
struct Source {
    origin: Origin,
    disk: Disk,
    /// Absent for an image of the disk alone.
    memory: Option<SourceMemory>,
}

#[derive(Debug, Clone)]
struct SourceMemory {
    /// What the delta is against.
    ram_file: PathBuf,
    delta: PathBuf,
    devices: PathBuf,
}

impl Inner {
    /// Carries out an order for an image of this kind.
    pub(super) async fn snapshot(
        self: Arc<Self>,
        order: HostSnapshot,
        kind: TemplateKind,
    ) -> Result<HostImage, HostError> {
        let id = order.order.id;
        let lock = self.table.order_lock(id);
        let _one_at_a_time = lock.lock().await;
        let published = self.published(&order, kind)?;
        let (made, begun) = match (published, self.begin_order(&order.order)) {
            // Overtaken by another order for the machine, which is not to be touched any more.
            (Some(image), Err(_)) => return Ok(image.report(0)),
            (Some(image), Ok(begun)) => (Ok(image), begun),
            (None, Err(error)) => return Err(error),
            (None, Ok(begun)) => (self.make_image_of(&order, kind, &begun).await, begun),
        };
        if made.is_ok() && order.resume {
            self.have_run(&order, &begun).await;
        }
        self.end_order(id);
        let image = made.map_err(|error| self.or_called_off(&begun.cancel, error))?;
        self.table.images_changed();
        Ok(image.report(0))
    }

    /// Resumes a machine that was paused before its image was made, by an earlier attempt or by
    /// whoever. The image is there whatever becomes of that.
    async fn have_run(self: &Arc<Self>, order: &HostSnapshot, begun: &Begun) {
        let Present::Paused(paused) = &begun.present else {
            return;
        };
        if let Err(error) = self.resume_machine(&order.order, begun, paused).await {
            let id = order.order.id;
            tracing::error!(%id, %error, "a sandbox stays paused behind its snapshot");
        }
    }

    /// The image, if the same order was carried out before.
    fn published(
        &self,
        order: &HostSnapshot,
        kind: TemplateKind,
    ) -> Result<Option<StoredImage>, HostError> {
        let found = self.images.store().find(order.image);
        let Some(image) = found.map_err(self.step("looking for the image"))? else {
            return Ok(None);
        };
        if image.deleting || image.manifest.content.kind() != kind {
            return Err(HostError::ImageExists(order.image));
        }
        Ok(Some(image))
    }

    async fn make_image_of(
        self: &Arc<Self>,
        order: &HostSnapshot,
        kind: TemplateKind,
        begun: &Begun,
    ) -> Result<StoredImage, HostError> {
        match &begun.present {
            Present::Running(machine) if order.resume => {
                let source = self.set_aside(begun, machine, kind).await?;
                let made = self.make_image(order, begun, &source).await;
                let saved = Saved::in_folder(&self.inventory.folder(machine.id));
                if let Err(error) = saved.remove_new() {
                    tracing::error!(machine = %machine.id, %error, "a snapshot left something");
                }
                made
            }
            Present::Running(machine) => {
                let paused = self
                    .pause_machine(&order.order, begun, machine, true, Guest::MustAgree)
                    .await?;
                self.make_image_of_paused(order, kind, begun, &paused).await
            }
            Present::Paused(paused) => self.make_image_of_paused(order, kind, begun, paused).await,
            Present::Neither(error) => Err(error.clone()),
        }
    }

    async fn make_image_of_paused(
        &self,
        order: &HostSnapshot,
        kind: TemplateKind,
        begun: &Begun,
        paused: &Paused,
    ) -> Result<StoredImage, HostError> {
        let folder = self.inventory.folder(begun.machine_id);
        let saved = Saved::in_folder(&folder);
        if kind == TemplateKind::Snapshot {
            Emulator::of(&self.boot).check(&paused.emulator, SavedAs::Sandbox)?;
            if !paused.quiesced {
                return Err(HostError::WrongState {
                    state: "paused".to_owned(),
                    reason: "its guest did not answer when it was paused, so that its processes \
                             would run in every clone; resume it and try again"
                        .to_owned(),
                });
            }
        }
        let disk =
            Disk::find(&folder).map_err(|error| self.step("looking for its disk")(error.into()))?;
        let source = Source {
            origin: paused.origin.clone(),
            disk,
            memory: (kind == TemplateKind::Snapshot).then(|| SourceMemory {
                ram_file: self.images.ram_file(&paused.origin),
                delta: saved.memory(),
                devices: saved.devices(),
            }),
        };
        let made = self.make_image(order, begun, &source).await;
        // Nobody else has it open.
        if let Err(error) = source.disk.close() {
            tracing::error!(%error, "an image's source could not be closed");
        }
        made
    }

    /// Sets aside what an image of a running machine is made of, while that is at rest for a moment.
    async fn set_aside(
        self: &Arc<Self>,
        begun: &Begun,
        machine: &Arc<Machine>,
        kind: TemplateKind,
    ) -> Result<Source, HostError> {
        let saved = Saved::in_folder(&self.inventory.folder(machine.id));
        let fork_bytes = machine.disk()?.fork_bytes();
        let fork_bytes =
            fork_bytes.map_err(|error| self.step("looking at the disk")(error.into()))?;
        space::require(
            self.inventory.root(),
            space::SPARE_MB + fork_bytes / MIB + 1,
        )?;
        let rest = tokio::select! {
            rest = machine.rest(true, Guest::MustAgree) => rest?,
            () = begun.cancel.cancelled() => {
                return Err(self.give_up_rest(begun, machine).await);
            }
        };
        let set_aside = async {
            if kind == TemplateKind::Snapshot {
                let emulator = Emulator::of_machine(&self.boot, machine.qemu_version().await?);
                Emulator::of(&self.boot).check(&emulator, SavedAs::Sandbox)?;
                machine
                    .save(SaveFor::Snapshot, begun.cancel.clone())
                    .await?;
            }
            let saved = saved.clone();
            let disk = blocking(move || saved.fork_disk()).await;
            disk.and_then(|disk| fault::point("disk copied").map(|()| disk))
                .map_err(self.step("copying the disk"))
        };
        let disk = match set_aside.await {
            Ok(disk) => disk,
            Err(error) => {
                self.undo_rest(begun, machine, rest).await;
                return Err(error);
            }
        };
        if !self.is_being_destroyed(&begun.cancel)
            && let Err(error) = machine.go_on(Some(rest)).await
        {
            return Err(self.without(&saved, error));
        }
        if let Err(error) = fault::point("went on") {
            return Err(self.without(&saved, self.step("going on")(error)));
        }
        Ok(Source {
            origin: machine.origin.clone(),
            disk,
            memory: (kind == TemplateKind::Snapshot).then(|| SourceMemory {
                ram_file: self.images.ram_file(&machine.origin),
                delta: saved.new_memory(),
                devices: saved.new_devices(),
            }),
        })
    }

    /// Removes what was set aside for nothing.
    fn without(&self, saved: &Saved, error: HostError) -> HostError {
        if let Err(error) = saved.remove_new() {
            tracing::error!(%error, "a failed snapshot left something");
        }
        error
    }

    /// Makes the image and publishes it. Whatever fails, nothing of it is left.
    async fn make_image(
        &self,
        order: &HostSnapshot,
        begun: &Begun,
        source: &Source,
    ) -> Result<StoredImage, HostError> {
        let making = async {
            self.require_space(source)?;
            let making = self.images.store().begin(order.image).map_err(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    HostError::ImageExists(order.image)
                } else {
                    self.step("making an image's folder")(error)
                }
            })?;
            let (content, size) = self.fill_image(&making, begun, source).await?;
            // The image that the machine lies on is there as long as the machine.
            let env = self
                .image_env(source.origin.image)
                .map_err(self.step("looking at the machine's image"))?;
            let published = making
                .publish(content, size, env)
                .await
                .map_err(self.step("publishing the image"))?;
            fault::passed(fault::PUBLISHED);
            Ok(published)
        };
        tokio::select! {
            made = making => made,
            () = begun.cancel.cancelled() => {
                Err(HostError::Internal("it was called off".to_owned()))
            }
        }
    }

    async fn fill_image(
        &self,
        making: &Making,
        begun: &Begun,
        source: &Source,
    ) -> Result<(Content, MachineSize), HostError> {
        let setup = &self.boot.setup;
        let opened = source.disk.open_in_background().await;
        let frozen = FrozenDisk::from(opened.map_err(self.step("opening the disk"))?);
        let size = source.origin.size;
        let Some(memory) = source.memory.clone() else {
            let flat = flatten_disk(setup, &frozen, &making.disk()).await?;
            fault::point("image disk made").map_err(self.step("making the disk"))?;
            let disk_size_mb = flat.disk_size_mb;
            return Ok((
                Content::Image,
                MachineSize {
                    disk_size_mb,
                    ..size
                },
            ));
        };
        let (to, devices_to) = (making.memory(), making.device_state());
        let cancel = begun.cancel.clone();
        blocking(move || {
            sparse::copy(&memory.ram_file, &to)?;
            called_off(&cancel)?;
            let file = File::options().write(true).open(&to)?;
            Delta::open(&memory.delta)?.apply(&file, &|| called_off(&cancel))?;
            fs::copy(&memory.devices, &devices_to)?;
            fault::point("image memory made")
        })
        .await
        .map_err(self.step("making the memory"))?;
        copy_exact(setup, &frozen, &making.disk()).await?;
        fault::point("image disk made").map_err(self.step("making the disk"))?;
        let platform = Emulator::of(&self.boot);
        Ok((Content::Snapshot { platform }, size))
    }

    /// Room for copies of all that the image is made of.
    fn require_space(&self, source: &Source) -> Result<(), HostError> {
        let disk_bytes = source.disk.fork_bytes().map_err(io::Error::from);
        let mut needed_mb = disk_bytes.map(|bytes| bytes / MIB + 1);
        if let Some(memory) = &source.memory {
            for part in [&memory.ram_file, &memory.delta] {
                needed_mb =
                    needed_mb.and_then(|sum| Ok(sum + sparse::physical_bytes(part)? / MIB + 1));
            }
        }
        let needed_mb = needed_mb.map_err(self.step("looking at the machine's files"))?;
        space::require(self.images.store().root(), space::SPARE_MB + needed_mb)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
