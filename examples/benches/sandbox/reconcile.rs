//! The reconciler: its plan over ever more sandboxes, and a whole look at a store.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    clock::{Clock, Timestamp},
    engine::{Engine, EngineConfig, Parts},
    host::{Host, HostReport, HostSandbox, HostSandboxState},
    id::{AuditId, HostId, OperationId, PLATFORM_TEAM_ID, SandboxId},
    lifecycle::{NewSandbox, Stamp, birth},
    name::TemplateName,
    reconcile::{Heard, HostView, Records, plan},
    sandbox::{OnTimeout, SandboxRecord, SandboxState},
    sim::{SimHost, SimQueue},
    size::MachineSize,
    store::{SandboxWrite, Store},
    template::MINIMAL_TEMPLATE_ID,
};
use sandbox_host::SystemClock;
use sandbox_store::SqliteStore;
use uuid::Uuid;

use crate::table::{Samples, Table};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Of so many sandboxes one disagrees with its host.
const ONE_IN: usize = 100;
/// Records in the store.
const STORED: usize = 10_000;
const LOOKS: usize = 20;

pub(crate) async fn rows(folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let mut first = None;
    for size in SIZES {
        let (samples, bytes) = planning(size)?;
        let each_ns = samples.median().as_secs_f64() * 1e9 / size as f64;
        let first = *first.get_or_insert(each_ns);
        table.row(
            &format!("plan over {size} sandboxes, 1 in {ONE_IN} amiss"),
            &samples,
            None,
        );
        table.note(&format!(
            "plan over {size}: {each_ns:.0} ns and {} bytes for each, {:.2} x the time of each of {}",
            bytes / size as u64,
            each_ns / first,
            SIZES[0]
        ));
    }
    look(folder, table).await
}

/// How long a plan takes, and what it takes of memory at most.
fn planning(size: usize) -> anyhow::Result<(Samples, u64)> {
    let now = SystemClock.now();
    let records: Vec<SandboxRecord> = (0..size).map(|number| running(number, now)).collect();
    let report = HostReport {
        host_id: HostId::from_uuid(Uuid::from_u128(1)),
        epoch: 1,
        sequence: 1,
        sandboxes: records
            .iter()
            .enumerate()
            .map(|(number, record)| HostSandbox {
                id: record.id,
                generation: record.generation,
                state: match number % ONE_IN {
                    0 => HostSandboxState::Paused,
                    _ => HostSandboxState::Running,
                },
                at_work: false,
            })
            .collect(),
        images: Vec::new(),
    };
    let view = HostView {
        host_id: report.host_id,
        heard: Heard::Report(&report),
        unknown_since: &BTreeMap::new(),
        unknown_images_since: &BTreeMap::new(),
        unknown_grace: Duration::from_secs(60),
        layer_retention: Duration::from_secs(7 * 24 * 3600),
    };
    let mut samples = Samples::default();
    // The most that was resident since this line.
    fs::write("/proc/self/clear_refs", "5")?;
    let before = resident_kb("VmRSS")?;
    let rounds = (2_000_000 / size).clamp(3, 200);
    for _ in 0..rounds {
        let start = Instant::now();
        let actions = plan(
            Records {
                sandboxes: &records,
                ..Records::default()
            },
            &view,
            now,
        );
        samples.add(start.elapsed());
        anyhow::ensure!(actions.len() == size.div_ceil(ONE_IN), "another plan");
    }
    let bytes = resident_kb("VmHWM")?.saturating_sub(before) * 1024;
    Ok((samples, bytes))
}

fn resident_kb(field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.context("the kernel does not say")?.parse()?)
}

fn running(number: usize, now: Timestamp) -> SandboxRecord {
    let write = written(number, HostId::from_uuid(Uuid::from_u128(1)), now);
    write.record
}

/// A sandbox that runs, as a store would keep it.
fn written(number: usize, host_id: HostId, now: Timestamp) -> SandboxWrite {
    let id = Uuid::from_u128(number as u128);
    let new = NewSandbox {
        template: TemplateName::default(),
        template_id: MINIMAL_TEMPLATE_ID,
        size: MachineSize::default(),
        timeout_sec: None,
        on_timeout: OnTimeout::Destroy,
        metadata: BTreeMap::from([("job".to_owned(), number.to_string())]),
        env: BTreeMap::new(),
        idempotency_key: None,
        build_id: None,
    };
    let stamp = Stamp {
        actor: Actor::app(),
        at: now,
        audit_id: AuditId::from_uuid(id),
    };
    let mut write = birth(
        new,
        SandboxId::from_uuid(id),
        PLATFORM_TEAM_ID,
        host_id,
        OperationId::from_uuid(id),
        now,
        stamp,
    );
    write.record.state = SandboxState::Running;
    write.record.operation = None;
    write.operations.clear();
    write.audit = None;
    write
}

/// A look of the real engine at a store of many records, all in order: what a round costs that has
/// nothing to do.
async fn look(folder: &Path, table: &mut Table) -> anyhow::Result<()> {
    let store = Arc::new(SqliteStore::open(folder.join("reconcile.db")).await?);
    let clock = Arc::new(SystemClock);
    let host = SimHost::new(clock.clone());
    let (host_id, now) = (host.hello().await?.host_id, clock.now());
    for number in 0..STORED {
        let write = written(number, host_id, now);
        host.put_machine(write.record.id, write.record.generation);
        store.insert_sandbox(write).await?;
    }
    let parts = Parts {
        store,
        host: Arc::new(host),
        queue: Arc::new(SimQueue::new()),
        clock,
    };
    let engine = Engine::start(parts, EngineConfig::default()).await?;
    let api = engine.api(Caller::admin(Actor::app()));
    let mut samples = Samples::default();
    for _ in 0..LOOKS {
        let start = Instant::now();
        let plan = api.reconciler_plan().await?;
        samples.add(start.elapsed());
        anyhow::ensure!(plan.actions_total == 0, "{plan:?}");
        anyhow::ensure!(plan.sandboxes == STORED as u64, "{plan:?}");
    }
    engine.shutdown().await;
    table.row(
        &format!("a reconciler's round over SQLite, {STORED} records"),
        &samples,
        None,
    );
    Ok(())
}
