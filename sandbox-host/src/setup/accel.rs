//! How guests are run: by the processor where that really works, by emulation otherwise.
//!
//! `/dev/kvm` being there proves nothing. A probe guest is booted once per boot of the machine and
//! version of QEMU, and the answer is kept.

use std::{io, path::Path, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

use super::Setup;
use crate::durable;

/// What a guest's processor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Accelerator {
    /// The host's, through KVM.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Accelerator {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Under KVM a guest reaches its agent within a second; where KVM hangs it hangs for ever.
const PROBE_LIMIT: Duration = Duration::from_secs(6);

/// Tells the agent of the probe guest to say [`PROBE_WORD`] and power off.
const PROBE_PARAMETER: &str = "sandbox.probe=1";
const PROBE_WORD: &str = "sandbox-agent: probe ok";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    qemu_version: String,
    kernel_version: String,
    accelerator: Accelerator,
}

/// The accelerator to use, from the answer remembered in `memo` or from a probe.
pub(crate) async fn choose_accelerator(
    setup: &Setup,
    initramfs: &Path,
    memo: &Path,
) -> io::Result<Accelerator> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned();
    if let Some(known) = read(memo)
        && known.boot_id == boot_id
        && known.qemu_version == setup.qemu_version
        && known.kernel_version == setup.kernel.version
    {
        return Ok(known.accelerator);
    }
    let accelerator = if kvm_boots(setup, initramfs).await {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    let answer = Remembered {
        boot_id,
        qemu_version: setup.qemu_version.clone(),
        kernel_version: setup.kernel.version.clone(),
        accelerator,
    };
    durable::write_json(memo, &answer)?;
    tracing::info!(
        accelerator = accelerator.as_str(),
        "probed how guests run here"
    );
    Ok(accelerator)
}

fn read(memo: &Path) -> Option<Remembered> {
    serde_json::from_slice(&std::fs::read(memo).ok()?).ok()
}

/// What the last probe found, whenever that was.
pub(super) fn remembered(memo: &Path) -> Option<Accelerator> {
    read(memo).map(|known| known.accelerator)
}

/// Whether a guest with our kernel and agent gets as far as its first words under KVM.
async fn kvm_boots(setup: &Setup, initramfs: &Path) -> bool {
    if std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return false;
    }
    let mut command = Command::new(&setup.qemu);
    command
        .args([
            "-machine",
            crate::qemu::MACHINE_TYPE,
            "-accel",
            "kvm",
            "-cpu",
            "host",
        ])
        .args([
            "-m",
            "256M",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args([
            "-serial",
            "stdio",
            "-append",
            &format!("console=ttyS0 quiet {PROBE_PARAMETER}"),
        ])
        .arg("-kernel")
        .arg(&setup.kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    let Some(mut console) = child.stdout.take() else {
        return false;
    };
    let mut said = Vec::new();
    let ended = timeout(PROBE_LIMIT, console.read_to_end(&mut said))
        .await
        .is_ok();
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "the probe guest's QEMU could not be ended");
    }
    // A guest that crashes early ends QEMU as well: only the agent's word counts.
    ended && String::from_utf8_lossy(&said).contains(PROBE_WORD)
}

#[cfg(test)]
mod tests {
    use sandbox_core::disk::DiskChoice;

    use super::*;
    use crate::boot::BootParts;

    #[tokio::test]
    async fn the_probes_answer_is_kept_until_the_machine_boots_again() {
        let data = tempfile::tempdir().unwrap();
        let boot = BootParts::prepare(data.path(), None, DiskChoice::Auto)
            .await
            .expect("`make test` sets it up");
        let memo = data.path().join("accelerator.json");
        let mut kept = read(&memo).unwrap();
        assert_eq!(kept.accelerator, boot.accelerator);

        // What is kept is believed, even where it is the other one …
        let other = match boot.accelerator {
            Accelerator::Kvm => Accelerator::Tcg,
            Accelerator::Tcg => Accelerator::Kvm,
        };
        kept.accelerator = other;
        durable::write_json(&memo, &kept).unwrap();
        let chosen = choose_accelerator(&boot.setup, &boot.initramfs, &memo)
            .await
            .unwrap();
        assert_eq!(chosen, other);

        // … but not behind another boot of the machine.
        kept.boot_id = "another boot".to_owned();
        durable::write_json(&memo, &kept).unwrap();
        let chosen = choose_accelerator(&boot.setup, &boot.initramfs, &memo)
            .await
            .unwrap();
        assert_eq!(chosen, boot.accelerator);
    }
}
