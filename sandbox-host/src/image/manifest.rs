//! What a booted memory image's manifest says: all that it was made from.

use sandbox_core::{
    disk::{DiskBackend, DiskFormat},
    id::TemplateId,
    size::MachineSize,
};
use serde::{Deserialize, Serialize};

use crate::{boot::BootParts, emulator::Emulator};

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

/// What a host boots templates with. Where any of it changes they are booted again, so that new
/// sandboxes have the newest agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(flatten)]
    emulator: Emulator,
    kernel_version: String,
    pub(super) initramfs: String,
    /// How its disk is frozen, by which backends can lie on it.
    #[serde(default = "overlay", skip_serializing_if = "is_overlay")]
    pub(super) disk: DiskFormat,
}

/// What it was before there was a choice.
const fn overlay() -> DiskFormat {
    DiskFormat::Qcow2
}

fn is_overlay(format: &DiskFormat) -> bool {
    *format == overlay()
}

impl Platform {
    /// This host's.
    pub(super) fn of(boot: &BootParts) -> Self {
        Self {
            emulator: Emulator::of(boot),
            kernel_version: boot.setup.kernel.version.clone(),
            initramfs: boot.initramfs_key.clone(),
            disk: match boot.disk_backend {
                // On the image's own disk, of which nothing is copied.
                DiskBackend::Qcow2 => DiskFormat::Qcow2,
                // They start from bytes as they are.
                DiskBackend::Reflink | DiskBackend::DmSnapshot => DiskFormat::Raw,
            },
        }
    }
}
