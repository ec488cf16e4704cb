//! One running machine: its QEMU, its guest link, and the task that notices its end.
//!
//! ```text
//!                  ┌─────────────── go on ───────────────┐
//!                  ▼                                     │
//! restore ──► running ──rest──► at rest: guest quiesced, stopped ──save──► (process ended: paused)
//!                                                        ▲                          │
//!                                                        └───────── revive ─────────┘
//! ```

mod control;
mod leftovers;
mod rest;
mod saved;

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use parking_lot::Mutex;
use sandbox_core::host::HostError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    boot::BootParts,
    disk::{Disk, OpenDisk},
    fault,
    folder::SocketFolder,
    identity,
    image::MemoryImage,
    inventory::Origin,
    link::{
        client::GuestClient,
        protocol::{AgentHello, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN},
    },
    memory::{Delta, Mapping},
    qemu::{
        GUEST_SOCKET, MachineConfig, MachineProcess, QMP_SOCKET, Qmp, QmpError, Start, StateFormat,
        Then, find_in_folder, launch,
    },
    space,
};
pub(crate) use control::Ended;
use control::Request;
use leftovers::{forget_last_run, put_away_or_log};
pub(crate) use leftovers::{put_away, remove_machine_folder};
pub(crate) use rest::{Guest, Rest};
pub(crate) use saved::{SaveFor, Saved, called_off};

/// A restored guest answers in a fifth of a second; a busy host takes longer.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

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
    /// What is asked of the control connection once the watching has it.
    control: mpsc::Sender<Request>,
    requests: tokio::sync::Mutex<mpsc::Receiver<Request>>,
    folder: PathBuf,
    /// The image's memory, which the machine maps.
    ram_file: PathBuf,
    /// Holds the reason once the machine has ended or is standing still.
    standing: watch::Sender<Option<String>>,
    /// It was stopped for a purpose and must not be told to go on but by whoever stopped it.
    at_rest: AtomicBool,
    end: OnceLock<Ended>,
}

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
        let internal = |step| internal(&folder, step);
        let bytes = image.size.disk_bytes();
        let disk = Disk::create_open(boot.disk_backend, &folder, image.base(), bytes)
            .await
            .map_err(internal("making a disk"))?;
        let state = image
            .open_state()
            .map_err(internal("opening the memory image"))?;
        let (origin, ram_file) = (image.origin(), image.ram_file());
        let parts = Parts {
            disk,
            ram_file,
            state: &state,
        };
        let machine = Self::start(boot, id, origin, &folder, parts, Then::Run)?;
        let loaded = async {
            let mut qmp = Qmp::connect(&machine.sockets.path(QMP_SOCKET))
                .await
                .map_err(|error| loading(&error))?;
            qmp.load_devices(state.as_raw_fd())
                .await
                .map_err(|error| loading(&error))?;
            let hello = machine
                .guest
                .wait_ready(RESTORE_LIMIT)
                .await
                .map_err(|error| loading(&error))?;
            check_agent(&hello)?;
            Ok(qmp)
        };
        machine.come_up(loaded, &CancellationToken::new()).await?;
        Ok(machine)
    }

    /// Starts a paused machine again from what was saved in its folder. It stands still, with all
    /// its memory, until it is told to [go on](Self::go_on). On failure nothing runs, and what was
    /// saved is as it was.
    pub(crate) async fn revive(
        boot: &BootParts,
        id: Uuid,
        origin: Origin,
        folder: PathBuf,
        ram_file: PathBuf,
        cancel: CancellationToken,
    ) -> Result<Self, HostError> {
        let internal = |step| internal(&folder, step);
        let saved = Saved::in_folder(&folder);
        let state = File::open(saved.devices()).map_err(internal("opening the saved devices"))?;
        let delta = Delta::open(&saved.memory()).map_err(internal("opening the saved memory"))?;
        forget_last_run(&folder).map_err(internal("removing a socket"))?;
        let disk = Disk::find(&folder)
            .map_err(|error| internal("looking for its disk")(error.into()))?
            .open_in_background()
            .await
            .map_err(internal("opening its disk"))?;
        let parts = Parts {
            disk,
            ram_file,
            state: &state,
        };
        let started = Self::start(boot, id, origin, &folder, parts, Then::Wait);
        if started.is_err() {
            put_away_or_log(id, &folder);
        }
        let machine = started?;
        // Held while the memory is written to, which is by process ID.
        let filling = Arc::new(tokio::sync::Mutex::new(()));
        let loaded = async {
            fault::point("launched").map_err(internal("launching"))?;
            let mut qmp = Qmp::connect(&machine.sockets.path(QMP_SOCKET))
                .await
                .map_err(|error| loading(&error))?;
            // QEMU is past its own beginning now, and the devices look into memory as they load.
            tracing::debug!(machine = %id, pages = delta.pages(), "filling its memory");
            let (pid, ram_file) = (machine.pid(), machine.ram_file.clone());
            let (cancel, held) = (cancel.clone(), Arc::clone(&filling).lock_owned().await);
            tokio::task::spawn_blocking(move || {
                let _held = held;
                let mapping = Mapping::find(pid, &ram_file)?;
                delta.fill(&mapping, &|| called_off(&cancel))
            })
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(internal("filling the memory"))?;
            fault::point("memory filled").map_err(internal("filling the memory"))?;
            let devices = async {
                qmp.load_devices(state.as_raw_fd()).await?;
                qmp.wait_loaded().await
            };
            devices.await.map_err(|error| loading(&error))?;
            fault::point("devices loaded").map_err(internal("loading"))?;
            Ok(qmp)
        };
        let up = machine.come_up(loaded, &cancel).await;
        // The process, be it dead, must not be forgotten before.
        drop(filling.lock().await);
        if up.is_err() {
            put_away_or_log(id, &folder);
        }
        up.map(|()| machine)
    }

    fn start(
        boot: &BootParts,
        id: Uuid,
        origin: Origin,
        folder: &Path,
        parts: Parts<'_>,
        then: Then,
    ) -> Result<Self, HostError> {
        let Parts {
            disk,
            ram_file,
            state,
        } = parts;
        let config = MachineConfig {
            name: process_name(id),
            size: origin.size,
            accelerator: boot.accelerator,
            disk,
            start: Start::Restore {
                ram_file: ram_file.clone(),
                state: StateFormat::of(state)
                    .map_err(internal(folder, "reading the devices' state"))?,
                then,
            },
        };
        let process = launch(&boot.setup.qemu, folder, &config, Some(state))
            .map_err(internal(folder, "starting QEMU"))?;
        Self::attach(id, origin, folder.to_path_buf(), ram_file, process)
            .map_err(internal(folder, "connecting to QEMU"))
    }

    /// Waits until the machine is loaded, and ends it where that fails or is given up.
    async fn come_up(
        &self,
        loaded: impl Future<Output = Result<Qmp, HostError>>,
        cancel: &CancellationToken,
    ) -> Result<(), HostError> {
        let mut guard = KillUnlessUp(Some(&self.process));
        let loaded = tokio::select! {
            loaded = loaded => loaded,
            () = self.process.ended() => Err(HostError::Boot(String::new())),
            () = cancel.cancelled() => Err(HostError::Boot("it was called off".to_owned())),
        };
        match loaded {
            Ok(qmp) => {
                guard.0 = None;
                drop(guard);
                *self.qmp.lock() = Some(qmp);
                Ok(())
            }
            Err(error) => {
                let error = self.process.own_words_or(&self.folder, error).await;
                drop(guard);
                // Its folder is used again, or removed.
                if let Err(error) = self.process.kill().await {
                    tracing::error!(machine = %self.id, %error, "a machine's process does not end");
                }
                Err(error)
            }
        }
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
        ram_file: PathBuf,
    ) -> std::io::Result<Option<Self>> {
        match find_in_folder(&folder, &process_name(id))? {
            Some(process) => Self::attach(id, origin, folder, ram_file, process).map(Some),
            None => Ok(None),
        }
    }

    fn attach(
        id: Uuid,
        origin: Origin,
        folder: PathBuf,
        ram_file: PathBuf,
        process: MachineProcess,
    ) -> std::io::Result<Self> {
        let (standing, not_running) = watch::channel(None);
        let (control, requests) = mpsc::channel(1);
        let sockets = SocketFolder::open(&folder)?;
        let guest = GuestClient::new(sockets.connector(GUEST_SOCKET), not_running);
        Ok(Self {
            id,
            origin,
            guest,
            process,
            sockets,
            qmp: Mutex::default(),
            control,
            requests: tokio::sync::Mutex::new(requests),
            folder,
            ram_file,
            standing,
            at_rest: AtomicBool::new(false),
            end: OnceLock::new(),
        })
    }

    /// QEMU's process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
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
        if let Err(error) = remove_machine_folder(&self.folder) {
            tracing::warn!(machine = %self.id, %error, "a machine's folder was not removed");
        }
    }

    /// Ends the machine and removes its folder.
    pub(crate) async fn destroy(&self) -> std::io::Result<()> {
        self.standing
            .send_replace(Some("it was destroyed".to_owned()));
        self.process.kill().await?;
        remove_machine_folder(&self.folder)
    }

    /// Ends the process of a machine that was saved. Its folder stays.
    pub(crate) async fn end_saved(&self) -> std::io::Result<()> {
        self.standing.send_replace(Some("it is paused".to_owned()));
        self.process.kill().await?;
        put_away(&self.folder)
    }

    /// Closes the disk of a machine that has ended.
    pub(crate) fn close_disk(&self) {
        if let Err(error) = Disk::close_in(&self.folder) {
            tracing::error!(machine = %self.id, %error, "an ended machine left its disk open");
        }
    }

    /// The machine's disk.
    pub(crate) fn disk(&self) -> Result<Disk, HostError> {
        Disk::find(&self.folder)
            .map_err(|error| internal(&self.folder, "looking for its disk")(error.into()))
    }
}

/// What a restored machine starts from.
struct Parts<'a> {
    disk: OpenDisk,
    ram_file: PathBuf,
    state: &'a File,
}

fn internal(folder: &Path, step: &'static str) -> impl Fn(std::io::Error) -> HostError + use<> {
    let folder = folder.to_path_buf();
    move |error| space::or_internal(&folder, step, &error)
}

fn loading(error: &dyn std::fmt::Display) -> HostError {
    HostError::Boot(format!("loading the memory image: {error}"))
}

/// The agent came with the memory, and may be of another release than this host.
fn check_agent(hello: &AgentHello) -> Result<(), HostError> {
    let version = hello.protocol_version;
    if (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&version) {
        return Ok(());
    }
    Err(HostError::Incompatible(format!(
        "its agent ({}) speaks version {version} of the guest protocol, and this host versions \
         {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}; go back to the release that it was made \
         with, or make it again here",
        hello.agent_version
    )))
}

/// Ends a process whose machine did not come up, also where nobody waits for that any more.
struct KillUnlessUp<'a>(Option<&'a MachineProcess>);

impl Drop for KillUnlessUp<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.0 {
            process.kill_now();
        }
    }
}

/// Why a machine could not be controlled.
fn control_error(what: &str, error: &QmpError) -> HostError {
    HostError::Internal(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_another_release_is_judged_by_its_protocol_and_nothing_else() {
        let hello = |protocol_version| AgentHello {
            protocol_version,
            agent_version: "0.0.7-other".to_owned(),
            boot_id: String::new(),
            capabilities: Vec::new(),
        };
        for version in [PROTOCOL_VERSION_MIN, PROTOCOL_VERSION] {
            assert_eq!(check_agent(&hello(version)), Ok(()));
        }
        for version in [PROTOCOL_VERSION_MIN - 1, PROTOCOL_VERSION + 1] {
            let error = check_agent(&hello(version)).unwrap_err();
            assert!(matches!(error, HostError::Incompatible(_)), "{error}");
            let said = error.to_string();
            for part in [
                "0.0.7-other",
                &format!("version {version} "),
                "make it again",
            ] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }
}
