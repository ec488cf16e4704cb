//! Template builds on real VMs: what a recipe makes, and what a build that fails leaves.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use sandbox_sdk::{
    BuildError, BuildFilter, BuildPageRequest, BuildStatus, PageRequest, SandboxFilter,
    TemplateKind, TemplatePageRequest,
};
use vm_support::{Platform, eventually, text, with_platform};

/// Templates' names, and sandboxes that anyone sees.
async fn seen(platform: &Platform) -> (Vec<String>, usize) {
    let client = &platform.client;
    let whole = TemplatePageRequest::default();
    let page = client.templates().list(None, whole).await.unwrap();
    let mut names: Vec<_> = page.items.iter().map(|t| t.name.to_string()).collect();
    names.sort();
    let all = client
        .list(SandboxFilter::default(), PageRequest::default())
        .await
        .unwrap();
    (names, all.items.len())
}

/// Returns when no machine is left.
async fn no_machine(platform: &Platform) {
    eventually("the builds' machines end", || async {
        platform.leftovers.machine_pids().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r29_r33_a_failing_step_is_told_with_its_output_and_publishes_nothing() {
    with_platform(async |platform| {
        let client = &platform.client;
        let before = seen(platform).await;
        let build = client
            .build_template("broken")
            .memory_mb(256)
            .recipe([
                "echo fine > /a",
                "echo so far; echo no such thing >&2; exit 7",
                "echo never > /b",
            ])
            .submit()
            .await
            .unwrap();
        let Err(BuildError::Failed(failed)) = build.wait().await else {
            panic!("a failing step fails its build");
        };
        let details = build.get().await.unwrap();
        let steps = &details.steps;
        assert_eq!(details.record.status, BuildStatus::Failed, "{failed:?}");
        assert_eq!(details.record.template_id, None);
        assert_eq!(
            details.record.attempt, 1,
            "a failing step is not tried again"
        );
        let failure = details.record.failure.clone().unwrap();
        assert_eq!(failure.step, Some(3), "{failure:?}");
        assert_eq!(failure.error_id, None);
        assert!(failure.message.contains("no such thing"), "{failure:?}");
        let last = steps.last().unwrap();
        assert_eq!(
            (last.step.step, last.step.exit_code, last.step.ok),
            (3, Some(7), Some(false))
        );
        assert_eq!(steps.len(), 3, "nothing runs behind it");
        assert_eq!(last.stdout, b"so far\n");
        assert_eq!(last.stderr, b"no such thing\n");
        no_machine(platform).await;
        assert_eq!(seen(platform).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r28_r29_ten_builds_on_two_workers_run_in_their_order_and_all_succeed() {
    with_platform(async |platform| {
        let client = &platform.client;
        let mut builds = Vec::new();
        for number in 0..10 {
            let build = client
                .build_template(format!("queued-{number}"))
                .memory_mb(256)
                .recipe([format!("echo {number} > /number")]);
            builds.push(build.submit().await.unwrap());
        }
        let mut most = 0;
        loop {
            let running = BuildFilter {
                statuses: vec![BuildStatus::Running],
                ..BuildFilter::default()
            };
            let page = client
                .builds(running, BuildPageRequest::default())
                .await
                .unwrap();
            most = most.max(page.items.len());
            let last = builds.last().unwrap().get().await.unwrap();
            if last.record.status.ended() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(most, 2, "two workers");
        let mut begun = Vec::new();
        for build in &builds {
            build.wait().await.unwrap();
            begun.push(build.get().await.unwrap().record.started_at.unwrap());
        }
        assert!(begun.is_sorted(), "{begun:?}");
        let sandbox = client.create().template("queued-7").await.unwrap();
        assert_eq!(text(sandbox.exec("cat /number").await.unwrap()), "7\n");
        sandbox.destroy().await.unwrap();
        no_machine(platform).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r29_a_step_that_prints_a_hundred_mebibytes_is_bounded_noted_and_succeeds() {
    with_platform(async |platform| {
        let client = &platform.client;
        let build = client
            .build_template("talker")
            .memory_mb(256)
            .recipe(["echo first; head -c 104857600 /dev/zero | tr '\\0' x; echo; echo last"])
            .submit()
            .await
            .unwrap();
        build.wait().await.unwrap();
        let details = build.get().await.unwrap();
        let step = &details.steps[1];
        assert_eq!(step.step.ok, Some(true));
        let kept = step.stdout.len() as u64;
        assert!(kept < 8 << 20, "{kept} bytes are kept");
        assert!(
            step.step.dropped_bytes > (100 << 20) - kept,
            "{:?}",
            step.step
        );
        let said = String::from_utf8_lossy(&step.stdout);
        assert!(said.starts_with("first\n"), "its beginning is kept");
        let noted = String::from_utf8_lossy(&step.stderr);
        assert!(
            noted.contains("bytes of output are left out here"),
            "a note says what is missing: {noted}"
        );
        no_machine(platform).await;
    })
    .await;
}

/// A small app that makes a token when it starts and answers with it over HTTP.
const APP: &str = "#!/bin/sh\n\
    read token < /proc/sys/kernel/random/uuid\n\
    while :; do printf \"HTTP/1.0 200 OK\\r\\n\\r\\n$token\\n\" | nc -l -p 8000; done\n";
/// Asks it.
const ASK: &str =
    "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 127.0.0.1 8000 | tail -n 1 | grep -";

#[tokio::test(flavor = "multi_thread")]
async fn r30_a_healthy_app_goes_on_in_what_starts_from_the_template_and_without_a_check_it_does_not()
 {
    with_platform(async |platform| {
        let client = &platform.client;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("app")).unwrap();
        std::fs::write(folder.path().join("app/serve.sh"), APP).unwrap();
        let described = |name: &str| {
            client
                .build_template(name)
                .memory_mb(256)
                .context_dir(folder.path())
                .recipe([
                    "WORKDIR /srv",
                    "COPY --chmod=755 app ./app",
                    "START exec /srv/app/serve.sh",
                ])
        };
        let running = described("running")
            .healthcheck(ASK)
            .submit()
            .await
            .unwrap();
        let template = running.wait().await.unwrap();
        assert_eq!(template.kind(), TemplateKind::Snapshot);
        let steps = running.get().await.unwrap().steps;
        let checked = steps
            .iter()
            .find(|step| step.step.cmd.starts_with("healthcheck"))
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stdout);
        // What the app itself prints stands there, too.
        let token = said.lines().find(|line| line.len() == 36);
        let token = token
            .unwrap_or_else(|| panic!("no token in {said}"))
            .to_owned();
        no_machine(platform).await;
        for _ in 0..2 {
            let sandbox = client.create().template("running").await.unwrap();
            let answer = text(sandbox.exec(ASK).await.unwrap());
            assert_eq!(
                answer.trim(),
                token,
                "the process that the build started answers"
            );
            sandbox.destroy().await.unwrap();
        }

        let image = described("at-rest").submit().await.unwrap();
        let template = image.wait().await.unwrap();
        assert_eq!(template.kind(), TemplateKind::Image);
        let sandbox = client.create().template("at-rest").await.unwrap();
        let app = text(sandbox.exec("cat /srv/app/serve.sh").await.unwrap());
        assert_eq!(app, APP);
        let processes = text(sandbox.exec("ps").await.unwrap());
        assert!(!processes.contains("serve.sh"), "{processes}");
        sandbox.destroy().await.unwrap();
        no_machine(platform).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r18_a_second_build_takes_its_steps_from_the_cache_and_the_disk_has_the_size_asked_for() {
    with_platform(async |platform| {
        let client = &platform.client;
        let described = |last: &str| {
            client
                .build_template("layered")
                .memory_mb(256)
                .disk_size_mb(1024)
                .recipe([
                    "cat /proc/sys/kernel/random/uuid > /once".to_owned(),
                    format!("echo {last} > /last"),
                ])
        };
        let first = described("one").submit().await.unwrap();
        let old = first.wait().await.unwrap();
        let sandbox = client.create().template("layered").await.unwrap();
        let look = "cat /once /last";
        let seen_first = text(sandbox.exec(look).await.unwrap());

        let second = described("two").submit().await.unwrap();
        let new = second.wait().await.unwrap();
        assert_ne!(old.id(), new.id());
        let steps = second.get().await.unwrap().steps;
        let cached: Vec<bool> = steps.iter().map(|step| step.step.cached).collect();
        assert_eq!(cached, [false, true, false, false], "{steps:?}");
        // The sandbox of the old version goes on, with what it had.
        assert_eq!(text(sandbox.exec(look).await.unwrap()), seen_first);
        let other = client.create().template("layered").await.unwrap();
        assert_eq!(
            text(other.exec(look).await.unwrap()),
            seen_first.replace("one", "two")
        );
        let size = text(other.exec("df -m / | tail -n 1").await.unwrap());
        let size_mb: u32 = size.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!((900..=1024).contains(&size_mb), "{size}");

        let again = described("two").submit().await.unwrap();
        assert_eq!(again.wait().await.unwrap().id(), new.id());
        let steps = again.get().await.unwrap().steps;
        assert!(steps.iter().all(|step| step.step.cached), "{steps:?}");

        let image = platform
            .folder
            .join("host/images")
            .join(new.id().uuid().to_string());
        let mut taken = 0;
        for entry in std::fs::read_dir(&image).unwrap() {
            use std::os::unix::fs::MetadataExt;
            taken += entry.unwrap().metadata().unwrap().blocks() * 512;
        }
        let told = new.info().size_bytes();
        assert!(
            told.abs_diff(taken) <= 1 << 20,
            "told {told}, taken {taken}"
        );
        sandbox.destroy().await.unwrap();
        other.destroy().await.unwrap();
        no_machine(platform).await;
    })
    .await;
}
