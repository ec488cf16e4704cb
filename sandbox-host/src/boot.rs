//! What every machine of this host boots from, found and made once.

use std::{
    io,
    path::{Path, PathBuf},
};

use sandbox_core::host::HostError;

use crate::{
    image::ensure_initramfs,
    setup::{Accelerator, Setup, choose_accelerator},
};

/// Programs, kernel, initramfs and accelerator.
#[derive(Debug)]
pub(crate) struct BootParts {
    pub(crate) setup: Setup,
    pub(crate) initramfs: PathBuf,
    pub(crate) initramfs_key: String,
    pub(crate) accelerator: Accelerator,
}

impl BootParts {
    /// Finds and makes everything below `data`.
    pub(crate) async fn prepare(data: &Path, kernel_dir: Option<&Path>) -> Result<Self, HostError> {
        let setup = Setup::locate(kernel_dir).await?;
        let internal =
            |step: &'static str| move |e: io::Error| HostError::Internal(format!("{step}: {e}"));
        let (initramfs, initramfs_key) = ensure_initramfs(&data.join("boot"), &setup.kernel)
            .map_err(internal("making the initramfs"))?;
        let memo = data.join("accelerator.json");
        let accelerator = choose_accelerator(&setup, &initramfs, &memo)
            .await
            .map_err(internal("probing for KVM"))?;
        Ok(Self {
            setup,
            initramfs,
            initramfs_key,
            accelerator,
        })
    }
}
