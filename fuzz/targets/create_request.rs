//! R4: a request for a sandbox, as JSON from a client, through the real engine over a simulated
//! host and a store in memory. It is refused by name and nothing is written, or the sandbox is what
//! was asked for; then it is destroyed, and nothing is left.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    engine::{Engine, EngineConfig, Parts},
    error::Error,
    sandbox::{CreateSandbox, SandboxRecord, SandboxState},
    sim::{MemoryStore, SimClock, SimHost, SimQueue},
    size::MachineSize,
};

fuzz_target!(|data: &[u8]| {
    let Ok(request) = serde_json::from_slice::<CreateSandbox>(data) else {
        return;
    };
    let written = serde_json::to_vec(&request).expect("a request can be written");
    assert_eq!(
        serde_json::from_slice::<CreateSandbox>(&written)
            .ok()
            .as_ref(),
        Some(&request)
    );
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be made")
        .block_on(life(request));
});

async fn life(request: CreateSandbox) {
    let clock = Arc::new(SimClock::new());
    let (host, store) = (SimHost::new(clock.clone()), Arc::new(MemoryStore::new()));
    let parts = Parts {
        store: store.clone(),
        host: Arc::new(host.clone()),
        queue: Arc::new(SimQueue::new()),
        clock,
    };
    let engine = Engine::start(parts, EngineConfig::default())
        .await
        .expect("a simulated platform starts");
    let api = engine.api(Caller::admin(Actor::app()));
    match api.create(request.clone()).await {
        Ok(record) => {
            is_as_asked(&record, &request);
            api.destroy(record.id)
                .await
                .expect("what runs can be destroyed");
            assert!(host.machines().is_empty());
            assert!(store.all_sandboxes().is_empty());
        }
        Err(Error::InvalidRequest(problem)) => {
            assert!(problem.contains('`'), "no field is named: {problem}");
            assert!(store.all_sandboxes().is_empty());
            assert!(store.all_operations().is_empty());
        }
        Err(Error::TemplateNotFound(name)) => {
            assert_eq!(request.template, Some(name));
            assert!(host.machines().is_empty());
        }
        Err(error) => panic!("{error}"),
    }
    engine.shutdown().await;
}

fn is_as_asked(record: &SandboxRecord, request: &CreateSandbox) {
    assert_eq!(record.state, SandboxState::Running);
    let size = MachineSize::from_request(request.vcpus, request.memory_mb, request.disk_size_mb);
    assert_eq!(Ok(record.size), size);
    assert_eq!(
        record.template.as_str(),
        request.template.as_deref().unwrap_or("minimal")
    );
    assert_eq!(record.metadata, request.metadata);
    assert_eq!(record.env, request.env);
    assert_eq!(record.timeout_sec, request.timeout_sec);
    assert_eq!(record.on_timeout, request.on_timeout.unwrap_or_default());
    assert_eq!(record.expires_at.is_some(), request.timeout_sec.is_some());
}
