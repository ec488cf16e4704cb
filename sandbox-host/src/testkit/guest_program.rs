//! A program as the first process of a VM, for what this machine's kernel can't do and Debian's
//! can.

use std::{fs, io, path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, process::Command, time::timeout};

use crate::{
    image::{DIRECTORY, EXECUTABLE, Entry, module_entries, newc_archive},
    qemu::MACHINE_TYPE,
    setup::Setup,
};

/// Boots a VM with 512 MiB of memory whose first process is `program`, a static executable, and
/// returns what came over the console until the VM turned itself off. The program finds `modules`
/// and what they need in `/modules`, named in the order of their loading.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] with the console's output when it did not end in time, and when
/// something that it needs is not installed. No process is left in any case.
pub async fn run(program: &Path, modules: &[&str], limit: Duration) -> io::Result<String> {
    let setup = Setup::locate(None).await.map_err(io::Error::other)?;
    let program = fs::read(program)?;
    let modules = setup.kernel.modules(modules)?;
    let mut entries: Vec<Entry<'_>> = ["dev", "proc", "sys", "tmp", "work"]
        .map(|folder| (folder.to_owned(), DIRECTORY, &[][..]))
        .into();
    entries.push(("init".to_owned(), EXECUTABLE, &program));
    entries.extend(module_entries(&modules));
    let initramfs = tempfile::NamedTempFile::new()?;
    fs::write(initramfs.path(), newc_archive(&entries)?)?;

    let mut command = Command::new(&setup.qemu);
    command
        .args(["-machine", MACHINE_TYPE, "-accel", "tcg", "-cpu", "max"])
        .args(["-m", "512M", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio", "-append"])
        .arg("console=ttyS0 quiet panic=-1 reboot=t no_timer_check random.trust_cpu=on")
        .arg("-kernel")
        .arg(&setup.kernel.image)
        .arg("-initrd")
        .arg(initramfs.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut qemu = command.spawn()?;
    let mut console = qemu
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("QEMU has no console"))?;
    let mut said = Vec::new();
    let ended = timeout(limit, console.read_to_end(&mut said)).await;
    qemu.kill().await?;
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    match ended {
        Ok(read) => read.map(|_| said),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, said)),
    }
}
