//! The guest contract against the agent where it belongs: PID 1 of a VM, behind a virtio port,
//! restored from a memory image and given an identity.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use sandbox_core::{
    guest::Guest,
    host::{Host, HostCreate},
    id::SandboxId,
    name::TemplateName,
    size::MachineSize,
};
use sandbox_host::{
    HostConfig, HostManager,
    testkit::{leftovers::Leftovers, seed},
};
use uuid::Uuid;

/// A VM of its own for each test, that leaves nothing.
async fn with_vm(test: impl AsyncFnOnce(&dyn Guest)) {
    let folder = tempfile::tempdir().unwrap();
    let leftovers = Leftovers::watch(folder.path());
    let data = folder.path().join("host");
    seed::plant(Path::new(env!("CARGO_TARGET_TMPDIR")), &data).await;
    let mut config = HostConfig::new(&data);
    config.pool_size = 0;
    let host = HostManager::open(config).await.unwrap();
    let id = SandboxId::from_uuid(Uuid::now_v7());
    let order = HostCreate {
        id,
        generation: 1,
        template: TemplateName::default(),
        image: sandbox_core::template::MINIMAL_TEMPLATE_ID,
        size: MachineSize::default(),
        env: [("SANDBOX".to_owned(), "yes".to_owned())].into(),
    };
    host.create_sandbox(order).await.unwrap();
    test(&*host.guest(id)).await;
    host.destroy_sandbox(id, 1).await.unwrap();
    host.shutdown().await;
    drop(host);
    leftovers.assert_none().await;
}

sandbox_host::guest_contract_tests!(with_vm);
