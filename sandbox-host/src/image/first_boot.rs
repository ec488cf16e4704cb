//! The one boot of a template, whose guest is then frozen: its memory goes to a file while it runs,
//! its devices' state beside it at the end.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};

use sandbox_core::{host::HostError, size::MachineSize};
use tokio::{net::UnixListener, sync::watch};

use super::{MEMORY_FILE, STATE_FILE};
use crate::{
    boot::BootParts,
    disk::OpenDisk,
    folder::SocketFolder,
    identity,
    link::client::GuestClient,
    qemu::{
        GUEST_SOCKET, MachineConfig, MachineProcess, QMP_SOCKET, Qmp, Start, console_tail, launch,
    },
    space,
};

const STATE_SOCKET: &str = "state.sock";

/// A boot takes some three seconds under emulation; on a machine that is busy with other things
/// many times that.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Quiet, since every line costs time on an emulated serial port; a panic or a triple fault resets
/// at once, which QEMU turns into its own end.
const KERNEL_PARAMETERS: &str =
    "console=ttyS0 quiet panic=-1 reboot=t no_timer_check random.trust_cpu=on";

/// Boots and freezes a guest in `folder`. No process is left in any case; what is in the folder after
/// an error is the caller's to remove.
pub(super) async fn run(
    boot: &BootParts,
    folder: &Path,
    disk: OpenDisk,
    size: MachineSize,
) -> Result<(), HostError> {
    let step =
        |what: &'static str| move |error: io::Error| space::or_internal(folder, what, &error);
    let config = MachineConfig {
        name: format!("sandbox-template-{}", uuid::Uuid::now_v7()),
        size,
        accelerator: boot.accelerator,
        disk,
        start: Start::Boot {
            kernel: boot.setup.kernel.image.clone(),
            initramfs: boot.initramfs.clone(),
            ram_file: folder.join(MEMORY_FILE),
            append: KERNEL_PARAMETERS.to_owned(),
        },
    };
    let process =
        KillOnDrop(launch(&boot.setup.qemu, folder, &config, None).map_err(step("starting QEMU"))?);
    if let Err(error) = boot_and_save(folder).await {
        return Err(process.0.own_words_or(folder, error).await);
    }
    process.0.kill().await.map_err(step("ending QEMU"))?;
    for socket in [QMP_SOCKET, GUEST_SOCKET] {
        fs::remove_file(folder.join(socket)).map_err(step("removing a socket"))?;
    }
    File::open(folder.join(MEMORY_FILE))
        .and_then(|file| file.sync_all())
        .map_err(step("syncing the memory file"))
}

/// Ends the process also where its task is dropped or fails.
struct KillOnDrop(MachineProcess);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill_now();
    }
}

/// Waits for the agent, lets it settle the disk, stops the guest between two instructions and has
/// QEMU write the devices' state to the inherited descriptor.
async fn boot_and_save(folder: &Path) -> Result<(), HostError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| HostError::Boot(format!("{what}: {error}"));
    let sockets = SocketFolder::open(folder).map_err(|error| failed("its folder", &error))?;
    let mut qmp = Qmp::connect(&sockets.path(QMP_SOCKET))
        .await
        .map_err(|error| failed("connecting to QEMU", &error))?;
    let (_running, not_running) = watch::channel(None);
    let guest = GuestClient::new(sockets.connector(GUEST_SOCKET), not_running);
    if let Err(error) = guest.wait_ready(BOOT_LIMIT).await {
        let console = qmp.console().await.unwrap_or_default();
        return Err(HostError::Boot(format!(
            "its agent did not answer ({error}); the console's last lines: {}",
            console_tail(&console)
        )));
    }
    let placeholder = identity::placeholder().map_err(|error| failed("an identity", &error))?;
    guest
        .warm_up(placeholder)
        .await
        .map_err(|error| failed("warming up", &error))?;
    guest
        .prepare_snapshot()
        .await
        .map_err(|error| failed("settling the disk", &error))?;
    // The clones' agents must find nobody connected.
    guest.disconnect().await;
    let saved = async {
        let listener = UnixListener::bind(sockets.path(STATE_SOCKET))?;
        let file = tokio::fs::File::create_new(folder.join(STATE_FILE)).await?;
        // A guest that runs is stopped by the saving itself, and its clones run by themselves.
        let (sent, received) =
            tokio::join!(qmp.save_devices(STATE_SOCKET), receive(listener, file));
        sent?;
        received?;
        Ok::<_, crate::qemu::QmpError>(())
    };
    saved
        .await
        .map_err(|error| failed("saving the state", &error))?;
    fs::remove_file(sockets.path(STATE_SOCKET)).map_err(|error| failed("its folder", &error))
}

/// Takes one stream to a file and brings it to disk.
async fn receive(listener: UnixListener, mut file: tokio::fs::File) -> io::Result<()> {
    let (mut stream, _) = tokio::time::timeout(CONNECT_LIMIT, listener.accept())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    tokio::io::copy(&mut stream, &mut file).await?;
    file.sync_all().await
}
