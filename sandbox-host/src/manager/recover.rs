//! Taking up a data folder that another process has used, whatever became of that process.

use std::{collections::HashSet, fs, io, path::Path, sync::Arc};

use super::Inner;
use crate::{
    durable,
    inventory::{Manifest, Use},
    machine::Machine,
    qemu::kill_all_in_folder,
};

const ENDED_MEANWHILE: &str = "its machine ended while the host was down";

impl Inner {
    /// Reads the inventory: adopts what runs, notes what has ended, removes what was half-made.
    pub(super) async fn recover(self: &Arc<Self>) -> io::Result<()> {
        let mut in_use = HashSet::new();
        for (id, manifest) in self.inventory.scan()? {
            let Some(Manifest { origin, use_ }) = manifest else {
                self.clear_machine(id).await?;
                continue;
            };
            in_use.insert(origin.memory_image.clone());
            match use_ {
                Use::Waiting | Use::Creating { .. } => self.clear_machine(id).await?,
                Use::Stopped {
                    sandbox,
                    generation,
                    reason,
                } => {
                    self.table.insert_stopped(sandbox, generation, id, reason);
                }
                Use::Running {
                    sandbox,
                    generation,
                } => match Machine::adopt(id, origin.clone(), self.inventory.folder(id))? {
                    Some(machine) => {
                        let machine = Arc::new(machine);
                        tracing::info!(%sandbox, pid = machine.pid(), "adopted a running sandbox");
                        self.table
                            .set_running(sandbox, generation, Arc::clone(&machine));
                        self.watch(&machine);
                    }
                    None => {
                        let reason = ENDED_MEANWHILE.to_owned();
                        let use_ = Use::Stopped {
                            sandbox,
                            generation,
                            reason: reason.clone(),
                        };
                        self.note(id, Manifest { origin, use_ }).await;
                        self.table.insert_stopped(sandbox, generation, id, reason);
                    }
                },
            }
        }
        self.images.remove_outdated(&self.boot, &in_use)
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
