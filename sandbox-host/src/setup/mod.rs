//! What the host needs from the machine that it runs on, and what to do where it is missing.
//!
//! Nothing is installed from here: a missing piece is an error with the command that mends it.

mod accel;
mod disks;
mod doctor;
mod kernel;

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use sandbox_core::host::HostError;
use tokio::process::Command;

pub(crate) use accel::{Accelerator, choose_accelerator};
pub use doctor::{Check, DoctorReport, Verdict, doctor};
pub(crate) use kernel::Kernel;

/// One version of both in one command: Debian's `qemu-system-x86` and a `qemu-utils` of another
/// version exclude each other, and a newer one may be there.
const MEND_QEMU: &str = "sh -c 'v=$(apt-cache policy qemu-system-x86 | sed -n \"s/.*Candidate: //p\"); \
apt-get install --no-install-recommends --allow-downgrades qemu-system-x86=$v qemu-utils=$v'";
const MEND_E2FSPROGS: &str = "apt-get install e2fsprogs";
const MEND_BUSYBOX: &str = "apt-get install busybox-static";

/// A piece that is missing, and the command that installs it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is missing. To mend it: {mend}")]
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) mend: String,
}

impl From<Missing> for HostError {
    fn from(missing: Missing) -> Self {
        Self::NotSetUp {
            missing: format!("{} is missing", missing.what),
            mend: missing.mend,
        }
    }
}

/// The programs and the kernel, found.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) qemu: PathBuf,
    pub(crate) qemu_version: String,
    pub(crate) qemu_img: PathBuf,
    pub(crate) mke2fs: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) kernel: Kernel,
}

impl Setup {
    /// Finds everything. `kernel_dir` goes before the usual places for the guest kernel.
    pub(crate) async fn locate(kernel_dir: Option<&Path>) -> Result<Self, Missing> {
        let qemu = find_program("qemu-system-x86_64", MEND_QEMU)?;
        let qemu_version = program_version(&qemu).await.map_err(|error| Missing {
            what: format!("a working {} ({error})", qemu.display()),
            mend: MEND_QEMU.to_owned(),
        })?;
        Ok(Self {
            qemu,
            qemu_version,
            qemu_img: find_program("qemu-img", MEND_QEMU)?,
            mke2fs: find_program("mke2fs", MEND_E2FSPROGS)?,
            busybox: find_static_busybox()?,
            kernel: Kernel::find(kernel_dir)?,
        })
    }
}

/// Looks a program up in `PATH` and in the folders for administrators' programs, which an ordinary
/// user's `PATH` leaves out.
pub(crate) fn find_program(name: &str, mend: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| Missing {
            what: name.to_owned(),
            mend: mend.to_owned(),
        })
}

fn is_executable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

/// The `minimal` template holds nothing but busybox, which therefore must need no libraries.
fn find_static_busybox() -> Result<PathBuf, Missing> {
    let busybox = find_program("busybox", MEND_BUSYBOX)?;
    let is_static = std::fs::read(&busybox).is_ok_and(|content| !has_interpreter(&content));
    if is_static {
        Ok(busybox)
    } else {
        Err(Missing {
            what: format!("a static busybox ({} needs libraries)", busybox.display()),
            mend: MEND_BUSYBOX.to_owned(),
        })
    }
}

/// Whether a 64-bit little-endian ELF file names a dynamic loader (has a `PT_INTERP` segment; the
/// layout is that of elf(5)).
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| {
        elf.get(at..at + 2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
    };
    let u32_at = |at: usize| {
        elf.get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    // The program header table starts in the low half of e_phoff in every real file.
    let (Some(table), Some(entry_size), Some(entries)) = (u32_at(32), u16_at(54), u16_at(56))
    else {
        return true;
    };
    (0..usize::from(entries))
        .any(|index| u32_at(table as usize + index * usize::from(entry_size)) == Some(PT_INTERP))
}

async fn program_version(program: &Path) -> io::Result<String> {
    let output = run(program, ["--version"]).await?;
    let first = output.lines().next().unwrap_or_default();
    let version = first
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or(first);
    Ok(version.to_owned())
}

/// Runs a helper program to its end and returns what it printed.
///
/// # Errors
/// With the program's own words when it fails.
pub(crate) async fn run<I, S>(program: &Path, args: I) -> io::Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let words = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!(
            "{} ended with {}: {}",
            program.display(),
            output.status,
            words.trim()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_command_that_installs_it() {
        let missing = find_program("no-such-program-anywhere", MEND_QEMU).unwrap_err();
        let error = HostError::from(missing).to_string();
        assert!(
            error.contains("no-such-program-anywhere is missing"),
            "{error}"
        );
        assert!(error.contains("apt-get install"), "{error}");
    }

    #[test]
    fn a_program_with_libraries_is_told_from_a_static_one() {
        assert!(has_interpreter(&std::fs::read("/bin/sh").unwrap()));
        assert!(!has_interpreter(crate::agent_binary()));
    }
}
