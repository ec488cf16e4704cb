//! What a machine runs on, and whether what was saved of one can go on here.
//!
//! A saved machine brings its kernel, its agent and its programs along in its memory, so that none
//! of them counts: the agent's version shows in its hello. What is not in there is the emulator.

use std::fmt;

use sandbox_core::host::HostError;
use serde::{Deserialize, Serialize};

use crate::{boot::BootParts, qemu::MACHINE_TYPE, setup::Accelerator};

/// What must be the same for a saved machine to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Emulator {
    machine_type: String,
    accelerator: String,
    qemu_version: String,
    /// The host's processor, where the guest sees it as it is. Under emulation QEMU's version says
    /// what it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
}

/// What was saved, and so what helps where it does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SavedAs {
    /// A paused sandbox.
    Sandbox,
    /// A template with memory.
    Template,
}

impl Emulator {
    /// This host's.
    pub(crate) fn of(boot: &BootParts) -> Self {
        Self {
            machine_type: MACHINE_TYPE.to_owned(),
            accelerator: boot.accelerator.as_str().to_owned(),
            qemu_version: boot.setup.qemu_version.clone(),
            cpu: match boot.accelerator {
                Accelerator::Kvm => host_cpu(),
                Accelerator::Tcg => None,
            },
        }
    }

    /// A running machine's, which may have been started by an older QEMU.
    pub(crate) fn of_machine(boot: &BootParts, qemu_version: String) -> Self {
        Self {
            qemu_version,
            ..Self::of(boot)
        }
    }

    /// Whether this one can go on from what was saved on `saved`.
    ///
    /// # Errors
    /// [`HostError::Incompatible`] with both, and what to do.
    pub(crate) fn check(&self, saved: &Self, saved_as: SavedAs) -> Result<(), HostError> {
        let same_cpu = match (&self.cpu, &saved.cpu) {
            (Some(here), Some(there)) => here == there,
            // One of them was not written down.
            _ => true,
        };
        let same = self.machine_type == saved.machine_type
            && self.accelerator == saved.accelerator
            && self.qemu_version == saved.qemu_version
            && same_cpu;
        if same {
            return Ok(());
        }
        let mend = match saved_as {
            SavedAs::Sandbox => "make an image of its disk, which starts anywhere",
            SavedAs::Template => "make the template again here",
        };
        Err(HostError::Incompatible(format!(
            "it was saved on {saved}, and this is {self}; go back to what it was saved on, or {mend}"
        )))
    }
}

impl fmt::Display for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            machine_type,
            accelerator,
            qemu_version,
            cpu,
        } = self;
        write!(f, "QEMU {qemu_version} ({machine_type}, {accelerator}")?;
        if let Some(cpu) = cpu {
            write!(f, " on {cpu}")?;
        }
        f.write_str(")")
    }
}

/// The processor's name, by the kernel.
fn host_cpu() -> Option<String> {
    cpu_name(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn emulator(changed: &serde_json::Value) -> Emulator {
        let mut all = json!({ "machine_type": "pc", "accelerator": "tcg", "qemu_version": "7.2" });
        for (name, value) in changed.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn r12_only_what_a_saved_memory_does_not_bring_along_must_be_the_same() {
        let here = emulator(&json!({}));
        // As older releases wrote it down.
        let more = emulator(&json!({ "kernel_version": "6.1", "initramfs": "abc" }));
        assert!(here.check(&more, SavedAs::Template).is_ok());
        for change in [
            json!({ "machine_type": "other" }),
            json!({ "accelerator": "kvm" }),
            json!({ "qemu_version": "8.0" }),
        ] {
            let saved = emulator(&change);
            let error = here.check(&saved, SavedAs::Template).unwrap_err();
            let error = error.to_string();
            for part in [saved.to_string().as_str(), "7.2", "again here"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        let error = here.check(&emulator(&json!({ "qemu_version": "8" })), SavedAs::Sandbox);
        assert!(error.unwrap_err().to_string().contains("image of its disk"));
    }

    #[test]
    fn a_processor_counts_where_both_are_known() {
        let of = |cpu: &str| emulator(&json!({ "accelerator": "kvm", "cpu": cpu }));
        let unknown = emulator(&json!({ "accelerator": "kvm" }));
        assert!(of("a").check(&of("a"), SavedAs::Sandbox).is_ok());
        assert!(of("a").check(&unknown, SavedAs::Sandbox).is_ok());
        let error = of("a").check(&of("b"), SavedAs::Sandbox).unwrap_err();
        assert!(error.to_string().contains("on b"), "{error}");
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: x\n";
        assert_eq!(cpu_name(cpuinfo), Some("Some CPU @ 2 GHz".to_owned()));
        assert_eq!(cpu_name("processor: 0\n"), None);
    }
}
