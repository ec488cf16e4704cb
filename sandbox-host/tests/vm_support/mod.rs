//! A host in a temporary folder whose template is booted already, and what tests ask of guests.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "not every test target uses all of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helper fails the test"
)]

pub(crate) mod oci;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use sandbox_core::{
    disk::{DiskBackend, DiskChoice},
    guest::Guest,
    host::{Host, HostCreate, HostError, HostOrder, HostSandboxState, HostSnapshot},
    id::{SandboxId, TemplateId},
    name::TemplateName,
    process::{Exit, OutputRequest, ProcessSpec, Stdin},
    size::MachineSize,
    template::MINIMAL_TEMPLATE_ID,
};
use sandbox_host::{
    HostConfig, HostManager,
    testkit::{leftovers::Leftovers, machine_files, seed},
};
use tempfile::TempDir;
use uuid::Uuid;

/// Long enough for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub(crate) host: HostManager,
    leftovers: Leftovers,
    folder: TempDir,
    order: u64,
    /// What the next host on the folder is to make disks with.
    pub(crate) disks: DiskChoice,
}

/// What the shared images were made for.
const SEEDED: DiskChoice = DiskChoice::Only(DiskBackend::Qcow2);

impl Fixture {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let leftovers = Leftovers::watch(folder.path());
        let data = folder.path().join("host");
        seed::plant(Path::new(env!("CARGO_TARGET_TMPDIR")), &data).await;
        Self {
            host: open(&data).await,
            leftovers,
            folder,
            order: 0,
            disks: SEEDED,
        }
    }

    /// A host with nothing in it but the answer to how guests run, in a folder below `place`.
    pub(crate) async fn bare(place: &Path, disks: DiskChoice) -> Self {
        let folder = tempfile::tempdir_in(place).unwrap();
        let leftovers = Leftovers::watch(folder.path());
        let data = folder.path().join("host");
        seed::plant_accelerator(Path::new(env!("CARGO_TARGET_TMPDIR")), &data).await;
        Self {
            host: open_with(&data, disks).await,
            leftovers,
            folder,
            order: 0,
            disks,
        }
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("host")
    }

    /// Stops the host and starts another on its folder.
    pub(crate) async fn restart(&mut self) {
        self.host.shutdown().await;
        self.host = open_with(&self.data(), self.disks).await;
    }

    /// Another host's work on the folder, while this one is down.
    pub(crate) async fn while_down(&mut self, work: impl AsyncFnOnce(&Path)) {
        self.host.shutdown().await;
        work(&self.data()).await;
        self.host = open_with(&self.data(), self.disks).await;
    }

    pub(crate) async fn create(&self) -> SandboxId {
        self.create_from(MINIMAL_TEMPLATE_ID, MachineSize::default())
            .await
            .unwrap()
    }

    pub(crate) async fn create_from(
        &self,
        image: TemplateId,
        size: MachineSize,
    ) -> Result<SandboxId, HostError> {
        create_on(&self.host, image, size).await
    }

    pub(crate) fn next_order(&mut self, id: SandboxId) -> HostOrder {
        self.order += 1;
        HostOrder {
            id,
            generation: 1,
            order: self.order,
        }
    }

    pub(crate) async fn pause(&mut self, id: SandboxId) {
        let order = self.next_order(id);
        self.host.pause_sandbox(order).await.unwrap();
    }

    pub(crate) async fn resume(&mut self, id: SandboxId) {
        let order = self.next_order(id);
        self.host.resume_sandbox(order).await.unwrap();
    }

    pub(crate) fn snapshot_order(&mut self, id: SandboxId, resume: bool) -> HostSnapshot {
        HostSnapshot {
            order: self.next_order(id),
            image: TemplateId::from_uuid(Uuid::now_v7()),
            resume,
        }
    }

    pub(crate) async fn state(&self, id: SandboxId) -> Option<HostSandboxState> {
        let report = self.host.list_sandboxes().await.unwrap();
        let found = report
            .sandboxes
            .into_iter()
            .find(|sandbox| sandbox.id == id);
        found.map(|sandbox| sandbox.state)
    }

    pub(crate) async fn run(&self, id: SandboxId, line: &str) -> String {
        run(&self.host, id, line).await
    }

    pub(crate) async fn start(&self, id: SandboxId, line: &str) -> Process<'_> {
        let mut spec = ProcessSpec::shell(line);
        spec.stdin = Stdin::Piped;
        let guest = self.host.guest(id);
        let pid = guest.start_process(spec, Duration::ZERO).await.unwrap().pid;
        self.process(id, pid, 0)
    }

    /// A process that was there before, read on from `offset`.
    pub(crate) fn process(&self, id: SandboxId, pid: u32, offset: u64) -> Process<'_> {
        Process {
            host: &self.host,
            id,
            pid,
            offset,
        }
    }

    pub(crate) fn machine_pids(&self) -> Vec<i32> {
        self.leftovers.machine_pids()
    }

    /// Files of the machines' folders, by name.
    pub(crate) fn machine_files(&self) -> Vec<String> {
        machine_files::of_all(&self.data())
    }

    /// Destroys these and checks that nothing is left of the test.
    pub(crate) async fn end(self, sandboxes: &[SandboxId]) {
        for id in sandboxes {
            self.host.destroy_sandbox(*id, 1).await.unwrap();
        }
        self.host.shutdown().await;
        drop(self.host);
        self.leftovers.assert_none().await;
    }
}

pub(crate) async fn open(data: &Path) -> HostManager {
    open_with(data, SEEDED).await
}

async fn open_with(data: &Path, disks: DiskChoice) -> HostManager {
    let mut config = HostConfig::new(data);
    config.pool_size = 0;
    config.disk_backend = disks;
    HostManager::open(config).await.unwrap()
}

pub(crate) async fn create_on(
    host: &HostManager,
    image: TemplateId,
    size: MachineSize,
) -> Result<SandboxId, HostError> {
    let id = SandboxId::from_uuid(Uuid::new_v4());
    let order = HostCreate {
        id,
        generation: 1,
        template: TemplateName::default(),
        image,
        size,
        env: [("WHO".to_owned(), id.to_string())].into(),
    };
    host.create_sandbox(order).await.map(|()| id)
}

/// Runs a shell line to its end; what it printed.
pub(crate) async fn run(host: &HostManager, id: SandboxId, line: &str) -> String {
    let guest = host.guest(id);
    let started = guest
        .start_process(ProcessSpec::shell(line), PATIENCE)
        .await
        .unwrap();
    let exit = started.output.exit.expect("it ends");
    let text = text_of(&started.output.chunks);
    assert!(exit.status.success(), "{line}: {exit:?}: {text}");
    text.trim_end().to_owned()
}

fn text_of(chunks: &[sandbox_core::process::OutputChunk]) -> String {
    chunks
        .iter()
        .map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned())
        .collect()
}

/// A process that goes on running.
pub(crate) struct Process<'a> {
    host: &'a HostManager,
    id: SandboxId,
    pub(crate) pid: u32,
    pub(crate) offset: u64,
}

impl Process<'_> {
    fn guest(&self) -> std::sync::Arc<dyn Guest> {
        self.host.guest(self.id)
    }

    pub(crate) async fn say(&self, line: &str) {
        let bytes = Bytes::from(format!("{line}\n"));
        let length = bytes.len() as u64;
        let taken = self.guest().write_stdin(self.pid, bytes, false).await;
        assert_eq!(taken, Ok(length));
    }

    /// Output until a line that ends so, which it returns with what came before.
    pub(crate) async fn hear(&mut self, end: &str) -> String {
        let mut heard = String::new();
        let until = tokio::time::Instant::now() + PATIENCE;
        while !heard.trim_end().ends_with(end) {
            assert!(tokio::time::Instant::now() < until, "heard only {heard:?}");
            let (text, exit) = self.read(1000).await;
            heard.push_str(&text);
            assert!(exit.is_none(), "it has ended, with {heard:?}");
        }
        heard
    }

    pub(crate) async fn read(&mut self, wait_ms: u32) -> (String, Option<Exit>) {
        let request = OutputRequest {
            offset: self.offset,
            max_bytes: 64 * 1024,
            wait_ms,
        };
        let output = self.guest().read_output(self.pid, request).await.unwrap();
        assert_eq!(output.dropped_bytes, 0);
        self.offset = output.next_offset;
        (text_of(&output.chunks), output.exit)
    }
}
