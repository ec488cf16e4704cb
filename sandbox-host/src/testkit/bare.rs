//! QEMU without the manager: the floors that a benchmark measures the platform against.
//!
//! Everything here uses the driver and the memory images of a data folder that a
//! [`HostManager`](crate::HostManager) has used before; no inventory, no pool, no store.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use sandbox_core::{
    disk::{DiskChoice, DiskFormat},
    guest::Guest,
    host::HostError,
    process::ProcessSpec,
    size::MachineSize,
    template::MINIMAL_TEMPLATE_ID,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::{
    boot::BootParts,
    disk::OpenDisk,
    folder::SocketFolder,
    identity,
    image::{DIRECTORY, EXECUTABLE, Entry, MemoryImages, module_entries, newc_archive},
    machine::Machine,
    qemu::{GUEST_SOCKET, MachineConfig, QMP_SOCKET, Qmp, Start, console_tail, launch},
};

const RAW_LIMIT: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 64 * 1024;

/// How long bare QEMU took, from before its start.
#[derive(Debug, Clone, Copy)]
pub struct BareRestore {
    /// Until the agent answered for the first time.
    pub agent_answered: Duration,
    /// Until a guest shell's exit was known: the identity, without which no command starts, and
    /// then `sh -c true`.
    pub shell_answered: Duration,
}

/// What the virtio-serial port carries between two programs that do nothing else, in bytes a
/// second.
#[derive(Debug, Clone, Copy)]
pub struct RawPort {
    /// From the host to the guest.
    pub to_guest: f64,
    /// From the guest to the host.
    pub to_host: f64,
}

/// Bare QEMU on one host's data folder.
#[derive(Debug)]
pub struct Bare {
    boot: BootParts,
    images: MemoryImages,
    scratch: tempfile::TempDir,
}

impl Bare {
    /// Uses the images in a host's data folder. The host itself may have it open.
    ///
    /// # Errors
    /// As for opening a host.
    pub async fn open(data: &Path) -> Result<Self, HostError> {
        let failed = |error: io::Error| HostError::Internal(error.to_string());
        let boot = BootParts::prepare(data, None, DiskChoice::Auto).await?;
        let images =
            MemoryImages::open(data.join("memory"), data.join("images")).map_err(failed)?;
        let scratch = tempfile::tempdir_in(data).map_err(failed)?;
        Ok(Self {
            boot,
            images,
            scratch,
        })
    }

    /// Restores the memory image of `minimal` once, asks it for a first answer, and ends it.
    ///
    /// # Errors
    /// As for creating a sandbox.
    pub async fn restore(&self) -> Result<BareRestore, HostError> {
        let image = self
            .images
            .ensure(&self.boot, MINIMAL_TEMPLATE_ID, MachineSize::default())
            .await?;
        let id = Uuid::now_v7();
        let folder = self.scratch.path().join(id.to_string());
        let failed = |error: &dyn std::fmt::Display| HostError::Internal(error.to_string());
        fs::create_dir(&folder).map_err(|error| failed(&error))?;
        let start = Instant::now();
        let machine = Machine::restore(&self.boot, &image, id, folder).await?;
        let agent_answered = start.elapsed();
        let identity = identity::placeholder().map_err(|error| failed(&error))?;
        machine
            .guest
            .identify(identity)
            .await
            .map_err(|error| failed(&error))?;
        let started = machine
            .guest
            .start_process(ProcessSpec::shell("true"), RAW_LIMIT)
            .await;
        let shell_answered = start.elapsed();
        let ended = started.map_err(|error| failed(&error))?.output.exit;
        machine.destroy().await.map_err(|error| failed(&error))?;
        if ended.is_none_or(|exit| !exit.status.success()) {
            return Err(HostError::Internal(
                "the bare guest's shell failed".to_owned(),
            ));
        }
        Ok(BareRestore {
            agent_answered,
            shell_answered,
        })
    }

    /// Boots a guest that holds nothing but busybox and moves `bytes` (a multiple of 64 KiB) each
    /// way over its port.
    ///
    /// # Errors
    /// When it does not boot, or ends before all was moved.
    pub async fn raw_port(&self, bytes: u64) -> Result<RawPort, HostError> {
        self.try_raw_port(bytes)
            .await
            .map_err(|error| HostError::Internal(error.to_string()))
    }

    async fn try_raw_port(&self, bytes: u64) -> io::Result<RawPort> {
        let id = Uuid::now_v7();
        let folder = self.scratch.path().join(id.to_string());
        fs::create_dir(&folder)?;
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, self.raw_initramfs(bytes)?)?;
        let disk = OpenDisk {
            path: folder.join("disk.raw"),
            format: DiskFormat::Raw,
        };
        fs::File::create_new(&disk.path)?.set_len(64 << 20)?;
        let config = MachineConfig {
            name: format!("sandbox-raw-{id}"),
            size: MachineSize::default(),
            accelerator: self.boot.accelerator,
            disk,
            start: Start::Boot {
                kernel: self.boot.setup.kernel.image.clone(),
                initramfs,
                ram_file: folder.join("memory"),
                append: "console=ttyS0 quiet panic=-1".to_owned(),
            },
        };
        let process = launch(&self.boot.setup.qemu, &folder, &config, None)?;
        let moved = tokio::time::timeout(RAW_LIMIT, move_bytes(&folder, bytes)).await;
        let console = console(&folder).await;
        process.kill().await?;
        moved
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| io::Error::other(format!("{error}; its console: {console}")))
    }

    fn raw_initramfs(&self, bytes: u64) -> io::Result<Vec<u8>> {
        let count = bytes / PIECE_BYTES as u64;
        let script = format!(
            "#!/bin/busybox sh\n\
             b=/bin/busybox\n\
             $b mount -t devtmpfs d /dev; $b mount -t sysfs s /sys\n\
             for m in /modules/*; do $b insmod $m; done\n\
             p=/dev/$($b ls /sys/class/virtio-ports)\n\
             exec 3<>$p\n\
             echo ready >&3\n\
             $b dd bs=64k iflag=fullblock count={count} of=/dev/null <&3 2>/dev/null\n\
             echo taken >&3\n\
             $b dd bs=64k count={count} if=/dev/zero >&3 2>/dev/null\n\
             $b sleep 1000\n"
        );
        let busybox = fs::read(&self.boot.setup.busybox)?;
        let modules = self.boot.setup.kernel.boot_modules()?;
        let mut entries: Vec<Entry<'_>> = ["dev", "sys", "bin"]
            .map(|folder| (folder.to_owned(), DIRECTORY, &[][..]))
            .into();
        entries.push(("bin/busybox".to_owned(), EXECUTABLE, &busybox));
        entries.push(("init".to_owned(), EXECUTABLE, script.as_bytes()));
        entries.extend(module_entries(&modules));
        newc_archive(&entries)
    }
}

/// The console's last lines, as far as QEMU still tells them.
async fn console(folder: &Path) -> String {
    let Ok(sockets) = SocketFolder::open(folder) else {
        return String::new();
    };
    match Qmp::connect(&sockets.path(QMP_SOCKET)).await {
        Ok(mut qmp) => console_tail(&qmp.console().await.unwrap_or_default()),
        Err(_) => String::new(),
    }
}

async fn move_bytes(folder: &Path, bytes: u64) -> io::Result<RawPort> {
    let mut port = SocketFolder::open(folder)?.connector(GUEST_SOCKET)().await?;
    let mut word = [0; 6];
    port.read_exact(&mut word).await?;
    let start = Instant::now();
    let piece = vec![1; PIECE_BYTES];
    for _ in 0..bytes / PIECE_BYTES as u64 {
        port.write_all(&piece).await?;
    }
    port.read_exact(&mut word).await?;
    let to_guest = start.elapsed();
    let start = Instant::now();
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..bytes / PIECE_BYTES as u64 {
        port.read_exact(&mut piece).await?;
    }
    let to_host = start.elapsed();
    let rate = |took: Duration| bytes as f64 / took.as_secs_f64();
    Ok(RawPort {
        to_guest: rate(to_guest),
        to_host: rate(to_host),
    })
}
