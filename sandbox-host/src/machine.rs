//! One running machine: its QEMU, its guest link, and the task that notices its end.

use std::{fs::File, os::fd::AsRawFd, path::PathBuf, sync::OnceLock, time::Duration};

use parking_lot::Mutex;
use sandbox_core::host::HostError;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    boot::BootParts,
    durable,
    folder::SocketFolder,
    identity,
    image::MemoryImage,
    inventory::Origin,
    link::client::GuestClient,
    qemu::{
        GUEST_SOCKET, MachineConfig, MachineProcess, QMP_SOCKET, Qmp, QmpEvent, Start,
        find_in_folder, launch, reason_of_end,
    },
    space,
};

/// A restored guest answers in a fifth of a second; a busy host takes longer.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);
/// How often a guest that was stopped by a full disk is tried again.
const RETRY_AFTER_FULL: Duration = Duration::from_millis(500);
const KILLED: &str = "its machine was ended from outside";

/// A running machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: Uuid,
    pub(crate) origin: Origin,
    pub(crate) guest: GuestClient,
    process: MachineProcess,
    sockets: SocketFolder,
    /// The control connection, from its making until the watching begins.
    qmp: Mutex<Option<Qmp>>,
    folder: PathBuf,
    /// Holds the reason once the machine has ended or is standing still.
    standing: watch::Sender<Option<String>>,
    end: OnceLock<Ended>,
}

/// Where a machine ended and why.
#[derive(Debug, Clone)]
pub(crate) struct Ended(pub(crate) String);

/// How a machine's process is called, in `ps` and when it is looked for.
pub(crate) fn process_name(machine: Uuid) -> String {
    format!("sandbox-{machine}")
}

impl Machine {
    /// Starts a clone of `image` in `folder` and waits until its agent answers. On failure nothing
    /// runs; the folder is the caller's.
    pub(crate) async fn restore(
        boot: &BootParts,
        image: &MemoryImage,
        id: Uuid,
        folder: PathBuf,
    ) -> Result<Self, HostError> {
        let internal = |step: &'static str| {
            let folder = folder.clone();
            move |error: std::io::Error| space::or_internal(&folder, step, &error)
        };
        image
            .clone_disk(&folder)
            .map_err(internal("making a disk"))?;
        let state = image
            .open_state()
            .map_err(internal("opening the memory image"))?;
        let config = MachineConfig {
            name: process_name(id),
            size: image.size,
            accelerator: boot.accelerator,
            start: Start::Restore {
                ram_file: image.ram_file(),
            },
        };
        let process = launch(&boot.setup.qemu, &folder, &config, Some(&state))
            .map_err(internal("starting QEMU"))?;
        let machine = Self::attach(id, image.origin(), folder.clone(), process)
            .map_err(internal("connecting to QEMU"))?;
        let loaded = tokio::select! {
            loaded = machine.load(&state) => loaded,
            () = machine.process.ended() => Err(HostError::Boot(String::new())),
        };
        if let Err(error) = loaded {
            let error = machine.process.own_words_or(&folder, error).await;
            machine.process.kill_now();
            return Err(error);
        }
        Ok(machine)
    }

    /// Has QEMU load the devices' state, and waits for the guest's agent.
    async fn load(&self, state: &File) -> Result<(), HostError> {
        let failed = |error: &dyn std::fmt::Display| {
            HostError::Boot(format!("loading the memory image: {error}"))
        };
        let loaded = async {
            let mut qmp = Qmp::connect(&self.sockets.path(QMP_SOCKET)).await?;
            qmp.load_devices(state.as_raw_fd()).await?;
            Ok::<_, crate::qemu::QmpError>(qmp)
        };
        let qmp = loaded.await.map_err(|error| failed(&error))?;
        self.guest
            .wait_ready(RESTORE_LIMIT)
            .await
            .map_err(|error| failed(&error))?;
        *self.qmp.lock() = Some(qmp);
        Ok(())
    }

    /// Brings what an identity and a first command need into the caches of guest and emulator.
    pub(crate) async fn warm_up(&self) -> Result<(), HostError> {
        let placeholder = identity::placeholder()
            .map_err(|error| HostError::Internal(format!("making an identity: {error}")))?;
        self.guest
            .warm_up(placeholder)
            .await
            .map_err(|error| HostError::Boot(format!("warming up: {error}")))
    }

    /// Holds on to a machine that a former process of this host started, if it still runs.
    pub(crate) fn adopt(
        id: Uuid,
        origin: Origin,
        folder: PathBuf,
    ) -> std::io::Result<Option<Self>> {
        match find_in_folder(&folder, &process_name(id))? {
            Some(process) => Self::attach(id, origin, folder, process).map(Some),
            None => Ok(None),
        }
    }

    fn attach(
        id: Uuid,
        origin: Origin,
        folder: PathBuf,
        process: MachineProcess,
    ) -> std::io::Result<Self> {
        let (standing, not_running) = watch::channel(None);
        let sockets = SocketFolder::open(&folder)?;
        let guest = GuestClient::new(sockets.connector(GUEST_SOCKET), not_running);
        Ok(Self {
            id,
            origin,
            guest,
            process,
            sockets,
            qmp: Mutex::default(),
            folder,
            standing,
            end: OnceLock::new(),
        })
    }

    /// QEMU's process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the machine's end and says why it came. Leaves no process behind.
    pub(crate) async fn watch(&self) -> Ended {
        let reason = tokio::select! {
            biased;
            reason = self.follow_events() => reason,
            () = self.process.ended() => KILLED.to_owned(),
        };
        self.standing.send_replace(Some(reason.clone()));
        if let Err(error) = self.process.kill().await {
            tracing::error!(machine = %self.id, %error, "a machine's process does not end");
        }
        let ended = Ended(reason);
        self.end.get_or_init(|| ended.clone());
        ended
    }

    /// How the machine ended, if [`watch`](Self::watch) has seen it end.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.end.get().cloned()
    }

    /// Lets go of a machine that runs on.
    pub(crate) async fn leave(&self) {
        self.standing
            .send_replace(Some("its host was shut down; it runs on".to_owned()));
        self.guest.disconnect().await;
        drop(self.qmp.lock().take());
    }

    /// Ends the machine without waiting, and removes its folder as far as that goes.
    pub(crate) fn discard_now(&self) {
        self.process.kill_now();
        if let Err(error) = durable::remove_folder(&self.folder) {
            tracing::warn!(machine = %self.id, %error, "a machine's folder was not removed");
        }
    }

    /// Ends the machine and removes its folder.
    pub(crate) async fn destroy(&self) -> std::io::Result<()> {
        self.standing
            .send_replace(Some("it was destroyed".to_owned()));
        self.process.kill().await?;
        durable::remove_folder(&self.folder)
    }

    /// Follows QEMU's events until one of them means the machine's end. Never returns where the
    /// control connection can't be had: the process's own end is then what counts.
    async fn follow_events(&self) -> String {
        match self.try_follow_events().await {
            Ok(reason) => reason,
            Err(error) => {
                tracing::debug!(machine = %self.id, %error, "QEMU's control connection ended");
                std::future::pending().await
            }
        }
    }

    async fn try_follow_events(&self) -> Result<String, crate::qemu::QmpError> {
        let made = self.qmp.lock().take();
        let mut qmp = match made {
            Some(qmp) => qmp,
            None => Qmp::connect(&self.sockets.path(QMP_SOCKET)).await?,
        };
        // What happened before the connection was there shows in the status.
        match qmp.status().await?.as_str() {
            "shutdown" => return self.explain(&mut qmp, "guest-shutdown").await,
            "guest-panicked" => return self.explain(&mut qmp, "guest-panic").await,
            "io-error" => self.wait_for_space(&mut qmp).await?,
            _ => {}
        }
        loop {
            match qmp.event().await? {
                QmpEvent::Shutdown { reason } => return self.explain(&mut qmp, &reason).await,
                QmpEvent::DiskFull => self.wait_for_space(&mut qmp).await?,
                QmpEvent::Other => {}
            }
        }
    }

    async fn explain(&self, qmp: &mut Qmp, event: &str) -> Result<String, crate::qemu::QmpError> {
        let console = qmp.console().await?;
        Ok(reason_of_end(event, &console))
    }

    /// QEMU has stopped the guest in the middle of a write that found the host's disk full. The
    /// write is tried again, and with it the guest goes on, once there is room.
    async fn wait_for_space(&self, qmp: &mut Qmp) -> Result<(), crate::qemu::QmpError> {
        tracing::warn!(machine = %self.id, "the host's disk is full; the guest stands still");
        self.standing.send_replace(Some(
            "the host's disk is full; it goes on when there is room again".to_owned(),
        ));
        loop {
            tokio::time::sleep(RETRY_AFTER_FULL).await;
            if space::free_mb(&self.folder)? >= space::SPARE_MB / 4 {
                qmp.command("cont", serde_json::Value::Null).await?;
                self.standing.send_replace(None);
                return Ok(());
            }
        }
    }
}
