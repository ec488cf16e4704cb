//! What a memory image's manifest says: all that a restore must find unchanged.

use sandbox_core::size::MachineSize;
use serde::{Deserialize, Serialize};

use crate::{boot::BootParts, qemu::MACHINE_TYPE};

/// The manifest's name in the image's folder. It is written last.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// What a memory image was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) template: String,
    pub(super) image_version: String,
    pub(super) size: MachineSize,
    pub(super) platform: Platform,
}

/// The part of it that is this machine's and this program's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Platform {
    machine_type: String,
    accelerator: String,
    qemu_version: String,
    kernel_version: String,
    pub(super) initramfs: String,
}

impl Platform {
    pub(super) fn of(boot: &BootParts) -> Self {
        Self {
            machine_type: MACHINE_TYPE.to_owned(),
            accelerator: boot.accelerator.as_str().to_owned(),
            qemu_version: boot.setup.qemu_version.clone(),
            kernel_version: boot.setup.kernel.version.clone(),
            initramfs: boot.initramfs_key.clone(),
        }
    }
}
