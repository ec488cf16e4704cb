//! What a memory image's manifest says: all that a restore must find unchanged.

use sandbox_core::{host::HostError, id::TemplateId, size::MachineSize};
use serde::{Deserialize, Serialize};

use crate::{boot::BootParts, qemu::MACHINE_TYPE};

/// The manifest's name in the image's folder. It is written last.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// What a memory image was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) image: TemplateId,
    /// Of `minimal`, what it was made of; other images' disks never change.
    pub(super) image_version: String,
    pub(super) size: MachineSize,
    pub(super) platform: Platform,
}

/// What must be the same on the host that goes on from memory as on the one that froze it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    machine_type: String,
    accelerator: String,
    qemu_version: String,
    kernel_version: String,
    pub(super) initramfs: String,
}

impl Platform {
    /// This host's.
    pub(crate) fn of(boot: &BootParts) -> Self {
        Self {
            machine_type: MACHINE_TYPE.to_owned(),
            accelerator: boot.accelerator.as_str().to_owned(),
            qemu_version: boot.setup.qemu_version.clone(),
            kernel_version: boot.setup.kernel.version.clone(),
            initramfs: boot.initramfs_key.clone(),
        }
    }

    /// Whether a host of this platform can go on from what was frozen on `frozen`.
    ///
    /// # Errors
    /// [`HostError::Incompatible`] with all that differs.
    pub(crate) fn check(&self, frozen: &Self) -> Result<(), HostError> {
        let parts = [
            ("machine type", &frozen.machine_type, &self.machine_type),
            ("accelerator", &frozen.accelerator, &self.accelerator),
            ("QEMU", &frozen.qemu_version, &self.qemu_version),
            ("guest kernel", &frozen.kernel_version, &self.kernel_version),
            ("guest agent", &frozen.initramfs, &self.initramfs),
        ];
        let differing: Vec<_> = parts
            .iter()
            .filter(|(_, frozen, here)| frozen != here)
            .map(|(what, frozen, here)| format!("it has {what} {frozen}, the host {here}"))
            .collect();
        if differing.is_empty() {
            Ok(())
        } else {
            Err(HostError::Incompatible(differing.join("; ")))
        }
    }
}
