//! The REST interface over simulated machines: to try requests, or a client, without a VM.
//!
//! `cargo run -p sandbox-api --example simulated -- 127.0.0.1:8080`, with the key `sbk_simulated`.
//! It prints its address when it is ready.
//! A simulated shell knows `echo`, `cat`, `printenv`, `sleep`, `true`, `false` and `exit`.

use std::{io::Write, sync::Arc};

use sandbox_api::{AppState, Keyring, Limits, Metrics, router, serve};
use sandbox_core::{
    audit::Actor,
    caller::Caller,
    engine::{Engine, EngineConfig, Parts},
    sim::{MemoryStore, SimClock, SimHost, SimQueue},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:8080");
    let clock = Arc::new(SimClock::new());
    let parts = Parts {
        store: Arc::new(MemoryStore::new()),
        host: Arc::new(SimHost::new(clock.clone())),
        queue: Arc::new(SimQueue::new()),
        clock,
    };
    let engine = Engine::start(parts.clone(), EngineConfig::DEFAULT).await?;
    let metrics = Metrics::default();
    let counting = metrics.clone();
    engine.on_operation_end(move |ended| counting.operation_ended(ended));
    let admin = Caller::admin(Actor::api_key("admin-key"));
    let keys = Keyring::new().with("sbk_simulated", Arc::new(engine.api(admin)));
    let state = AppState {
        keys,
        store: parts.store,
        host: parts.host,
        clock: parts.clock,
        limits: Limits::default(),
        metrics,
        stopping: CancellationToken::new(),
    };
    let (limits, metrics, stopping) = (state.limits, state.metrics.clone(), state.stopping.clone());
    let listener = TcpListener::bind(address).await?;
    writeln!(
        std::io::stdout(),
        "listens on http://{}",
        listener.local_addr()?
    )?;
    serve(listener, router(state)?, limits, metrics, stopping).await?;
    Ok(())
}
