//! The store fails at each write of a pause, a resume, a snapshot, a flatten and the deletion of a
//! template, in several ways, over a real host. Once it works again the engine finds its way back to
//! what the host has, and nothing is leaked.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod failing_store;
mod vm_support;

use std::{sync::Arc, time::Duration};

use failing_store::{FailingStore, Failure};
use sandbox_core::{
    api::Api,
    audit::Actor,
    caller::Caller,
    engine::{Engine, EngineConfig, Parts},
    error::Error,
    host::{Host, HostSandboxState},
    id::SandboxId,
    process::ProcessSpec,
    sandbox::{CreateSandbox, SandboxState},
    sim::SimQueue,
    store::Store,
    template::{
        MINIMAL_TEMPLATE_ID, SnapshotRequest, TemplateFilter, TemplateKind, TemplatePageRequest,
        TemplateState,
    },
};
use sandbox_host::{SystemClock, testkit::machine_files};
use tokio::time::{Instant, sleep};
use vm_support::Fixture;

const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "made";
/// Those that leave it open what was written, for what goes the same way as another.
const HARDEST: [Failure; 2] = [Failure::GoneBehind, Failure::ReplyLost];

struct Test {
    vm: Fixture,
    store: Arc<FailingStore>,
    engine: Engine,
    api: Arc<dyn Api>,
    id: SandboxId,
    counted: u64,
}

impl Test {
    async fn new() -> Self {
        let vm = Fixture::new().await;
        let store = Arc::new(FailingStore::default());
        let parts = Parts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            host: Arc::new(vm.host.clone()),
            queue: Arc::new(SimQueue::new()),
            clock: Arc::new(SystemClock),
        };
        // All patience is short, so that the reconciler takes over within the test.
        let config = EngineConfig {
            lease: Duration::from_millis(500),
            backoff: Duration::from_millis(5),
            destroy_retry: Duration::from_millis(100),
            unknown_grace: Duration::from_millis(300),
            round_max: Duration::from_millis(500),
            round_min: Duration::from_millis(20),
            ..EngineConfig::DEFAULT
        };
        let engine = Engine::start(parts, config).await.unwrap();
        let api: Arc<dyn Api> = Arc::new(engine.api(Caller::admin(Actor::app())));
        let id = api.create(CreateSandbox::default()).await.unwrap().id;
        let line = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/new; \
                    mv /dev/shm/new /dev/shm/n; usleep 5000; done";
        let spec = ProcessSpec::shell(line);
        api.start_process(id, spec, Duration::ZERO).await.unwrap();
        vm.run(id, "while ! test -s /dev/shm/n; do usleep 5000; done")
            .await;
        Self {
            vm,
            store,
            engine,
            api,
            id,
            counted: 0,
        }
    }

    /// Does this again and again from the same beginning, with a failure at its first write, its
    /// second, and so on until it has no more.
    async fn at_each_write<T>(
        &mut self,
        what: &str,
        failures: &[Failure],
        begin: impl AsyncFn(&Self),
        work: impl AsyncFn(&Self) -> Result<T, Error>,
    ) {
        for &failure in failures {
            let mut writes = 0;
            loop {
                let at = format!("{what}, {failure:?} behind {writes} writes");
                begin(self).await;
                self.store.arm(failure, writes);
                let worked = work(self).await;
                let failed = self.store.heal();
                self.settled(&at).await;
                if !failed {
                    assert!(worked.is_ok(), "{at}: {:?}", worked.err());
                    break;
                }
                writes += 1;
                assert!(writes < 20, "{at}");
            }
            // Its beginning and its end.
            assert!(writes >= 2, "{what}, {failure:?}: {writes} writes");
        }
    }

    /// Records and host come to agree; the sandbox is usable, and so is what it had in memory.
    async fn settled(&mut self, at: &str) {
        let until = Instant::now() + PATIENCE;
        while let Err(why) = self.agree().await {
            assert!(Instant::now() < until, "{at}: {why}");
            sleep(Duration::from_millis(20)).await;
        }
        self.api.resume(self.id).await.unwrap();
        let line = format!(
            "until [ $(cat /dev/shm/n) -gt {} ]; do usleep 5000; done; cat /dev/shm/n",
            self.counted
        );
        let counted = self.vm.run(self.id, &line).await.parse().unwrap();
        self.counted = counted;
        assert_eq!(self.vm.machine_pids().len(), 1, "{at}");
        assert_eq!(self.vm.machine_files(), machine_files::RUNNING, "{at}");
        match self.api.delete_template(NAME).await {
            Ok(()) | Err(Error::TemplateNotFound(_)) => {}
            Err(error) => panic!("{at}: {error:?}"),
        }
    }

    async fn agree(&self) -> Result<(), String> {
        let record = self.api.get(self.id).await.unwrap();
        if record.operation.is_some() {
            return Err(format!("{:?} is in flight", record.operation));
        }
        let shown = self.vm.state(self.id).await;
        match (record.state, &shown) {
            (SandboxState::Running, Some(HostSandboxState::Running))
            | (SandboxState::Paused, Some(HostSandboxState::Paused)) => {}
            (state, shown) => return Err(format!("the record says {state:?}, the host {shown:?}")),
        }
        let filter = TemplateFilter {
            all_states: true,
            ..TemplateFilter::default()
        };
        let page = TemplatePageRequest::default();
        let templates = self.store.list_templates(&filter, page).await.unwrap();
        let templates: Vec<_> = templates
            .items
            .into_iter()
            .filter(|template| template.id != MINIMAL_TEMPLATE_ID)
            .collect();
        let unready = templates.iter().find(|template| {
            template.state != TemplateState::Ready || template.operation.is_some()
        });
        if let Some(unready) = unready {
            return Err(format!("{unready:?}"));
        }
        let report = self.vm.host.list_sandboxes().await.unwrap();
        let mut images: Vec<_> = report.images.iter().map(|image| image.id).collect();
        images.retain(|image| *image != MINIMAL_TEMPLATE_ID);
        let known: Vec<_> = templates.iter().map(|template| template.id).collect();
        if images != known {
            return Err(format!("the host has {images:?}, the store {known:?}"));
        }
        let folder = std::fs::read_dir(self.vm.data().join("images")).unwrap();
        // One of them is `minimal`.
        if folder.count() != known.len() + 1 {
            return Err("something lies beside the images".to_owned());
        }
        Ok(())
    }

    async fn snapshot(&self, kind: TemplateKind, resume: bool) -> Result<(), Error> {
        let request = SnapshotRequest {
            sandbox_id: self.id,
            name: Some(NAME.to_owned()),
            resume,
            kind,
        };
        self.api.snapshot(request).await.map(drop)
    }

    async fn end(self) {
        self.api.destroy(self.id).await.unwrap();
        self.engine.shutdown().await;
        drop((self.api, self.engine));
        self.vm.end(&[]).await;
    }
}

async fn nothing(_: &Test) {}

#[tokio::test(flavor = "multi_thread")]
async fn r35_a_store_that_fails_at_any_write_of_a_pause_or_resume_is_brought_to_the_hosts_truth() {
    let mut test = Test::new().await;
    test.at_each_write("pause", &Failure::ALL, nothing, async |test: &Test| {
        test.api.pause(test.id).await
    })
    .await;
    let paused = async |test: &Test| drop(test.api.pause(test.id).await.unwrap());
    test.at_each_write("resume", &HARDEST, paused, async |test: &Test| {
        test.api.resume(test.id).await
    })
    .await;
    test.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_a_store_that_fails_at_any_write_of_a_snapshot_leaves_a_whole_template_or_none() {
    let mut test = Test::new().await;
    test.at_each_write("snapshot", &Failure::ALL, nothing, async |test: &Test| {
        test.snapshot(TemplateKind::Snapshot, true).await
    })
    .await;
    test.at_each_write(
        "flatten, then paused",
        &HARDEST,
        nothing,
        async |test: &Test| test.snapshot(TemplateKind::Image, false).await,
    )
    .await;
    test.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_store_that_fails_at_any_write_of_a_template_s_end_leaves_it_whole_or_gone() {
    let mut test = Test::new().await;
    let made = async |test: &Test| test.snapshot(TemplateKind::Image, true).await.unwrap();
    test.at_each_write("delete", &HARDEST, made, async |test: &Test| {
        test.api.delete_template(NAME).await
    })
    .await;
    test.end().await;
}
