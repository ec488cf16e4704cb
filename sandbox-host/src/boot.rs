//! What every machine of this host boots from, found and made once.

use std::{
    io,
    path::{Path, PathBuf},
};

use sandbox_core::{
    disk::{DiskBackend, DiskChoice, NoBackend},
    host::HostError,
};

use crate::{
    disk,
    image::ensure_initramfs,
    setup::{Accelerator, Setup, choose_accelerator},
};

/// Programs, kernel, initramfs, accelerator, and what makes disks.
#[derive(Debug)]
pub(crate) struct BootParts {
    pub(crate) setup: Setup,
    pub(crate) initramfs: PathBuf,
    pub(crate) initramfs_key: String,
    pub(crate) accelerator: Accelerator,
    /// Of new disks. Those that are there know theirs.
    pub(crate) disk_backend: DiskBackend,
}

impl BootParts {
    /// Finds and makes everything below `data`.
    pub(crate) async fn prepare(
        data: &Path,
        kernel_dir: Option<&Path>,
        disks: DiskChoice,
    ) -> Result<Self, HostError> {
        let setup = Setup::locate(kernel_dir).await?;
        let internal =
            |step: &'static str| move |e: io::Error| HostError::Internal(format!("{step}: {e}"));
        let (initramfs, initramfs_key) = ensure_initramfs(&data.join("boot"), &setup.kernel)
            .map_err(internal("making the initramfs"))?;
        let disk_backend = choose_backend(data, disks, &setup)?;
        let memo = data.join("accelerator.json");
        let accelerator = choose_accelerator(&setup, &initramfs, &memo)
            .await
            .map_err(internal("probing for KVM"))?;
        Ok(Self {
            setup,
            initramfs,
            initramfs_key,
            accelerator,
            disk_backend,
        })
    }
}

fn choose_backend(
    data: &Path,
    choice: DiskChoice,
    setup: &Setup,
) -> Result<DiskBackend, HostError> {
    let [machines, memory, images] = ["machines", "memory", "images"].map(|name| data.join(name));
    for folder in [&machines, &memory, &images] {
        std::fs::create_dir_all(folder).map_err(|error| {
            HostError::Internal(format!("making a folder in the data folder: {error}"))
        })?;
    }
    let chosen = disk::choose(choice, &machines, &[&memory, &images], &setup.qemu_img);
    let chosen = chosen.map_err(|error: NoBackend| HostError::NotSetUp {
        missing: error.to_string(),
        mend: "choose another disk backend, such as auto".to_owned(),
    })?;
    tracing::debug!(backend = %chosen, "chose what makes disks");
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::{Mounted, is_root};

    #[tokio::test]
    async fn r48_a_backend_that_can_not_be_had_is_refused_with_the_reason() {
        if !is_root() {
            return;
        }
        let ext4 = Mounted::new(128, &["mke2fs", "-q", "-t", "ext4", "-m", "0"]);
        let asked = DiskChoice::Only(DiskBackend::Reflink);
        let refused = BootParts::prepare(&ext4.place, None, asked).await;
        let Err(HostError::NotSetUp { missing, mend }) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            missing.contains("reflink") && missing.contains("XFS"),
            "{missing}"
        );
        assert!(mend.contains("auto"), "{mend}");
        let boot = BootParts::prepare(&ext4.place, None, DiskChoice::Auto).await;
        assert_eq!(boot.unwrap().disk_backend, DiskBackend::Qcow2);
    }
}
