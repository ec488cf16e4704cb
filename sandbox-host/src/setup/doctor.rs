//! What this machine can do, what is missing, and the command that mends it.

use std::{fmt, path::Path};

use serde::Serialize;

use super::{MEND_BUSYBOX, MEND_E2FSPROGS, MEND_QEMU, Missing, find_program, program_version};
use super::{find_static_busybox, kernel::Kernel};
use crate::space;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works without it, less well.
    Note,
    /// Nothing works without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// The command that mends it, or what to do.
    pub mend: Option<String>,
}

/// All checks, in the order in which a person would read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// The checks.
    pub checks: Vec<Check>,
}

impl DoctorReport {
    /// Whether sandboxes can run here.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.verdict != Verdict::Missing)
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let sign = match check.verdict {
                Verdict::Ok => "ok     ",
                Verdict::Note => "note   ",
                Verdict::Missing => "MISSING",
            };
            writeln!(f, "{sign}  {:<14} {}", check.name, check.found)?;
            if let Some(mend) = &check.mend {
                writeln!(f, "         {:<14} to mend it: {mend}", "")?;
            }
        }
        let summary = if self.healthy() {
            "Sandboxes can run on this machine."
        } else {
            "Sandboxes can't run on this machine yet."
        };
        writeln!(f, "{summary}")
    }
}

/// Looks at this machine. Changes nothing and boots nothing; how guests really run is probed when a
/// host is first opened on `data_dir`, and shown from there afterwards.
pub async fn doctor(data_dir: &Path, kernel_dir: Option<&Path>) -> DoctorReport {
    let mut checks = vec![
        program("qemu", "qemu-system-x86_64", MEND_QEMU).await,
        program("qemu-img", "qemu-img", MEND_QEMU).await,
        present("e2fsprogs", find_program("mke2fs", MEND_E2FSPROGS)),
        present("busybox", find_static_busybox_or_say()),
        kernel(kernel_dir),
        accelerator(data_dir),
        memory(),
        disk(data_dir),
    ];
    checks.extend(super::disks::checks(existing(data_dir)));
    DoctorReport { checks }
}

fn find_static_busybox_or_say() -> Result<std::path::PathBuf, Missing> {
    find_static_busybox().map_err(|missing| Missing {
        mend: MEND_BUSYBOX.to_owned(),
        ..missing
    })
}

async fn program(name: &'static str, program: &str, mend: &str) -> Check {
    match find_program(program, mend) {
        Ok(path) => match program_version(&path).await {
            Ok(version) => ok(name, format!("{version} ({})", path.display())),
            Err(error) => missing(
                name,
                format!("{} does not run: {error}", path.display()),
                mend,
            ),
        },
        Err(absent) => missing(
            name,
            format!("{} is not installed", absent.what),
            &absent.mend,
        ),
    }
}

fn present(name: &'static str, found: Result<std::path::PathBuf, Missing>) -> Check {
    match found {
        Ok(path) => ok(name, path.display().to_string()),
        Err(absent) => missing(
            name,
            format!("{} is not installed", absent.what),
            &absent.mend,
        ),
    }
}

fn kernel(kernel_dir: Option<&Path>) -> Check {
    match Kernel::find(kernel_dir) {
        Ok(kernel) => match kernel.boot_modules() {
            Ok(_) => ok(
                "guest kernel",
                format!("{} ({})", kernel.version, kernel.image.display()),
            ),
            Err(error) => missing("guest kernel", error.to_string(), "install it again"),
        },
        Err(absent) => missing("guest kernel", "there is none".to_owned(), &absent.mend),
    }
}

fn accelerator(data_dir: &Path) -> Check {
    let remembered = super::accel::remembered(&data_dir.join("accelerator.json"));
    let device = Path::new("/dev/kvm").exists();
    match remembered {
        Some(super::Accelerator::Kvm) => ok("accelerator", "KVM, tried with a guest".to_owned()),
        Some(super::Accelerator::Tcg) if device => note(
            "accelerator",
            "emulation: /dev/kvm is there, but a guest did not boot with it".to_owned(),
            "nested virtualization must be enabled for this machine, if it is one itself",
        ),
        Some(super::Accelerator::Tcg) => note(
            "accelerator",
            "emulation: there is no /dev/kvm".to_owned(),
            "load kvm_intel or kvm_amd, and enable virtualization in the firmware",
        ),
        None => Check {
            name: "accelerator",
            verdict: Verdict::Ok,
            found: format!(
                "not tried yet ({}); the first sandbox does",
                if device {
                    "/dev/kvm is there"
                } else {
                    "there is no /dev/kvm"
                }
            ),
            mend: None,
        },
    }
}

fn memory() -> Check {
    match crate::manager::memory_mb() {
        Ok(mb) if mb >= 1024 => ok("memory", format!("{mb} MiB")),
        Ok(mb) => note(
            "memory",
            format!("{mb} MiB"),
            "give sandboxes less memory_mb",
        ),
        Err(error) => note("memory", error.to_string(), "mount /proc"),
    }
}

fn disk(data_dir: &Path) -> Check {
    const WANTED_MB: u64 = 1024;
    let existing = existing(data_dir);
    match space::free_mb(existing) {
        Ok(free) if free >= WANTED_MB => {
            ok("disk", format!("{free} MiB free in {}", existing.display()))
        }
        Ok(free) => note(
            "disk",
            format!("{free} MiB free in {}", existing.display()),
            "make room, or choose another data folder",
        ),
        Err(error) => note("disk", error.to_string(), "choose another data folder"),
    }
}

/// The data folder may not be there yet: where it will be.
fn existing(data_dir: &Path) -> &Path {
    data_dir
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"))
}

pub(super) fn ok(name: &'static str, found: String) -> Check {
    Check {
        name,
        verdict: Verdict::Ok,
        found,
        mend: None,
    }
}

pub(super) fn note(name: &'static str, found: String, mend: &str) -> Check {
    Check {
        name,
        verdict: Verdict::Note,
        found,
        mend: Some(mend.to_owned()),
    }
}

fn missing(name: &'static str, found: String, mend: &str) -> Check {
    Check {
        name,
        verdict: Verdict::Missing,
        found,
        mend: Some(mend.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn r48_doctor_names_what_it_found_and_what_mends_the_rest() {
        let report = doctor(Path::new("/nonexistent/data"), None).await;
        let names: Vec<_> = report.checks.iter().map(|check| check.name).collect();
        for name in [
            "qemu",
            "e2fsprogs",
            "busybox",
            "guest kernel",
            "accelerator",
            "disk",
            "disk backend",
            "reflink",
            "dm-snapshot",
        ] {
            assert!(names.contains(&name), "{name} is missing from {names:?}");
        }
        for check in &report.checks {
            assert_eq!(
                check.verdict == Verdict::Ok,
                check.mend.is_none(),
                "{check:?}"
            );
        }
        assert!(report.to_string().contains("Sandboxes can"));
    }

    #[tokio::test]
    async fn r48_a_missing_program_is_reported_with_the_command_that_installs_it() {
        let check = program("x", "no-such-program-anywhere", MEND_QEMU).await;
        assert_eq!(check.verdict, Verdict::Missing);
        let report = DoctorReport {
            checks: vec![check],
        };
        assert!(!report.healthy());
        assert!(report.to_string().contains(MEND_QEMU));
    }
}
