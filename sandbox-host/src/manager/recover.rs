//! Taking up a data folder that another process has used, whatever became of that process.

use std::{collections::HashSet, fs, io, path::Path, sync::Arc, time::Duration};

use sandbox_core::id::SandboxId;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Inner;
use crate::{
    disk::Disk,
    durable,
    inventory::{Manifest, Use},
    machine::{Machine, Saved, process_name, put_away},
    qemu::{find_in_folder, kill_all_in_folder},
};

const SAVED_LOST: &str = "what was saved of it is not there any more";
/// New orders for an adopted machine wait at most this long for its guest.
const GOING_ON_LIMIT: Duration = Duration::from_secs(10);
const ENDED_MEANWHILE: &str = "its machine ended while the host was down";

impl Inner {
    /// Reads the inventory: adopts what runs, notes what has ended, removes what was half-made.
    pub(super) async fn recover(self: &Arc<Self>) -> io::Result<()> {
        let mut in_use = HashSet::new();
        for (id, manifest) in self.inventory.scan()? {
            let Some(Manifest {
                origin,
                order,
                use_,
            }) = manifest
            else {
                self.clear_machine(id).await?;
                continue;
            };
            in_use.insert(origin.memory_image.clone());
            let folder = self.inventory.folder(id);
            let base = self.images.base_of_overlay(&origin);
            if let Err(error) = Disk::note_overlay(&folder, base, origin.size.disk_bytes()) {
                tracing::warn!(machine = %id, %error, "a disk could not be written down");
            }
            let found = Manifest {
                origin: origin.clone(),
                order,
                use_: use_.clone(),
            };
            match use_ {
                Use::Waiting | Use::Creating { .. } => self.clear_machine(id).await?,
                Use::Stopped { .. } => {
                    self.end_leftover(id, &folder).await?;
                    Saved::in_folder(&folder).remove()?;
                    self.table.insert_found(id, found);
                }
                Use::Paused {
                    sandbox,
                    generation,
                    ..
                } => {
                    // One that is there was saved already, or did not run again yet.
                    self.end_leftover(id, &folder).await?;
                    let saved = Saved::in_folder(&folder);
                    saved.remove_new()?;
                    if saved.is_whole() {
                        self.table.insert_found(id, found);
                    } else {
                        let use_ = Use::Stopped {
                            sandbox,
                            generation,
                            reason: SAVED_LOST.to_owned(),
                        };
                        self.found_stopped(id, Manifest { use_, ..found }).await;
                    }
                }
                Use::Running {
                    sandbox,
                    generation,
                } => {
                    let ram_file = self.images.ram_file(&origin);
                    // What was saved of it is from before it ran, or was never finished.
                    Saved::in_folder(&folder).remove()?;
                    match Machine::adopt(id, origin, folder.clone(), ram_file)? {
                        Some(machine) => {
                            let machine = Arc::new(machine);
                            tracing::info!(%sandbox, pid = machine.pid(), "adopted a running sandbox");
                            let cancel = self.stopping.child_token();
                            self.table.insert_running(
                                sandbox,
                                generation,
                                order,
                                Arc::clone(&machine),
                                Some(cancel.clone()),
                            );
                            self.watch(&machine);
                            self.have_go_on(sandbox, machine, cancel).await;
                        }
                        None => {
                            put_away(&folder)?;
                            let use_ = Use::Stopped {
                                sandbox,
                                generation,
                                reason: ENDED_MEANWHILE.to_owned(),
                            };
                            self.found_stopped(id, Manifest { use_, ..found }).await;
                        }
                    }
                }
            }
        }
        self.images.remove_outdated(&self.boot, &in_use)
    }

    async fn found_stopped(self: &Arc<Self>, id: Uuid, manifest: Manifest) {
        self.note(id, manifest.clone()).await;
        self.table.insert_found(id, manifest);
    }

    /// Ends the process of a machine that should have none, and gives up what it left.
    async fn end_leftover(&self, id: Uuid, folder: &Path) -> io::Result<()> {
        if let Some(process) = find_in_folder(folder, &process_name(id))? {
            process.kill().await?;
        }
        put_away(folder)
    }

    /// An order may have been cut off while the machine was at rest for it. Harmless to one that
    /// runs. New orders wait for it.
    async fn have_go_on(
        self: &Arc<Self>,
        sandbox: SandboxId,
        machine: Arc<Machine>,
        cancel: CancellationToken,
    ) {
        // Nobody has it yet.
        let turn = self.table.order_lock(sandbox).lock_owned().await;
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let _turn = turn;
            let going_on = async {
                if machine.status().await? == "paused" {
                    tracing::warn!(machine = %machine.id, "a machine was found stopped");
                    machine.cont().await?;
                }
                machine.wake().await
            };
            let result = tokio::select! {
                result = timeout(GOING_ON_LIMIT, going_on) => result,
                () = cancel.cancelled() => Ok(Ok(())),
            };
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(machine = %machine.id, %error, "an adopted machine fails");
                }
                Err(_) => tracing::warn!(machine = %machine.id, "an adopted guest is silent"),
            }
            inner.end_order(sandbox);
        });
    }

    /// Removes images that were being made when the process ended, with the guests that booted for
    /// them.
    pub(super) async fn remove_half_made(&self, data: &Path) -> io::Result<()> {
        kill_all_in_folder(&data.join("memory"), "sandbox-template-").await?;
        for parent in ["boot", "memory", "images", "images/minimal"] {
            let Ok(entries) = fs::read_dir(data.join(parent)) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with('.') {
                    durable::remove_folder(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}
