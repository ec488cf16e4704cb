//! The durable inventory: a folder per machine, with a manifest that says whose it is and how it
//! stands. What is on disk is the truth about this host; what the manager holds in memory is a
//! cache that a restart rebuilds.
//!
//! ```text
//! waiting ──claimed──► creating ──identity given──► running ──► stopped
//!    (pool)               ▲                         │     ▲        │
//!  new folder ────────────┘                      saved   before    │
//!                                                   ▼   it runs    │
//!                                                   paused         │
//!                                               folder removed ◄───┘ (from any state)
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sandbox_core::{
    id::{SandboxId, TemplateId},
    size::MachineSize,
    template::MINIMAL_TEMPLATE_ID,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{durable, emulator::Emulator};

const MANIFEST: &str = "manifest.json";

/// Whose machine a folder holds, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) origin: Origin,
    /// The newest order that was taken.
    #[serde(default)]
    pub(crate) order: u64,
    #[serde(rename = "use")]
    pub(crate) use_: Use,
}

/// What a machine is a clone of. Its disk lies on that image's, and its memory partly in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The template, whose files must stay as long as the machine.
    #[serde(default = "minimal")]
    pub(crate) image: TemplateId,
    /// The key of a memory image.
    pub(crate) memory_image: String,
    pub(crate) size: MachineSize,
}

impl Origin {
    /// Whether it was cloned from a sandbox's snapshot, not from a template that was booted.
    pub(crate) fn is_snapshot(&self) -> bool {
        self.memory_image.parse() == Ok(self.image)
    }
}

/// What manifests meant that named none.
const fn minimal() -> TemplateId {
    MINIMAL_TEMPLATE_ID
}

/// What a machine is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum Use {
    /// It waits in the pool. Of no use after a restart.
    Waiting,
    /// It is on its way to being a sandbox.
    Creating { sandbox: SandboxId, generation: u64 },
    /// It is a sandbox.
    Running { sandbox: SandboxId, generation: u64 },
    /// It is a sandbox; its memory and devices are saved in its folder.
    Paused {
        sandbox: SandboxId,
        generation: u64,
        /// Whether the user's processes stand still in the saved memory until they are woken.
        quiesced: bool,
        /// What it was saved on.
        emulator: Emulator,
    },
    /// It was a sandbox and has ended; its disk is kept.
    Stopped {
        sandbox: SandboxId,
        generation: u64,
        reason: String,
    },
}

/// All machine folders of one data folder.
#[derive(Debug)]
pub(crate) struct Inventory {
    root: PathBuf,
}

impl Inventory {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn folder(&self, machine: Uuid) -> PathBuf {
        self.root.join(machine.to_string())
    }

    /// Makes a machine's folder with its manifest, so that nothing made in it can be forgotten.
    pub(crate) fn create(&self, machine: Uuid, manifest: &Manifest) -> io::Result<PathBuf> {
        let folder = self.folder(machine);
        fs::create_dir(&folder)?;
        if let Err(error) = durable::write_json(&folder.join(MANIFEST), manifest) {
            durable::remove_folder(&folder)?;
            return Err(error);
        }
        Ok(folder)
    }

    /// The manifest as it is on disk; `None` where it can't be read.
    pub(crate) fn read(&self, machine: Uuid) -> Option<Manifest> {
        read(&self.folder(machine))
    }

    pub(crate) fn write(&self, machine: Uuid, manifest: &Manifest) -> io::Result<()> {
        durable::write_json(&self.folder(machine).join(MANIFEST), manifest)
    }

    /// All machines. A folder without a readable manifest was cut off before anything ran in it.
    pub(crate) fn scan(&self) -> io::Result<Vec<(Uuid, Option<Manifest>)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            found.push((id, read(&entry.path())));
        }
        Ok(found)
    }
}

fn read(folder: &Path) -> Option<Manifest> {
    let bytes = fs::read(folder.join(MANIFEST)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r36_what_was_written_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let inventory = Inventory::open(folder.path().join("machines")).unwrap();
        let machine = Uuid::now_v7();
        let sandbox = SandboxId::from_uuid(Uuid::now_v7());
        let mut manifest = Manifest {
            order: 4,
            origin: Origin {
                image: MINIMAL_TEMPLATE_ID,
                memory_image: "key".to_owned(),
                size: MachineSize::default(),
            },
            use_: Use::Creating {
                sandbox,
                generation: 3,
            },
        };
        inventory.create(machine, &manifest).unwrap();
        manifest.use_ = Use::Running {
            sandbox,
            generation: 3,
        };
        inventory.write(machine, &manifest).unwrap();
        assert_eq!(inventory.scan().unwrap(), [(machine, Some(manifest))]);

        fs::write(inventory.folder(machine).join(MANIFEST), b"{\"si").unwrap();
        assert_eq!(inventory.scan().unwrap(), [(machine, None)]);
        durable::remove_folder(&inventory.folder(machine)).unwrap();
        assert!(inventory.scan().unwrap().is_empty());
    }
}
