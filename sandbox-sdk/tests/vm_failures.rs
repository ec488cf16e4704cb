//! Bad input and failures against real VMs: a clear error, and nothing left behind.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "suite/sleepers.rs"]
mod sleepers;
mod vm_support;

use std::{fs, future::IntoFuture, time::Duration};

use sandbox_core::{guest::GuestError, process::ExitStatus};
use sandbox_sdk::{Error, PageRequest, Sandbox, SandboxFilter, SandboxId, SandboxState};
use sleepers::until_sleepers_are;
use vm_support::{LONG, Platform, eventually, kill_9, lives, stopped, text, with_platform};

#[tokio::test]
async fn an_unknown_template_is_refused_by_name() {
    with_platform(async |platform| {
        let unknown = platform
            .client
            .create()
            .template("plan9")
            .await
            .unwrap_err();
        assert_eq!(unknown, Error::TemplateNotFound("plan9".to_owned()));
        assert!(unknown.to_string().contains("no template `plan9`"));
        for name in ["../../etc", "", "A B", "x/../minimal"] {
            let refused = platform.client.create().template(name).await.unwrap_err();
            assert!(matches!(&refused, Error::InvalidRequest(words) if words.contains("template")));
        }
        assert_nothing_made(platform).await;
    })
    .await;
}

#[tokio::test]
async fn r42_absurd_sizes_are_refused_with_the_field_and_its_bounds() {
    with_platform(async |platform| {
        let create = || platform.client.create();
        for (create, field) in [
            (create().vcpus(0), "vcpus"),
            (create().vcpus(u32::MAX), "vcpus"),
            (create().memory_mb(0), "memory_mb"),
            (create().memory_mb(u32::MAX), "memory_mb"),
            (create().disk_size_mb(0), "disk_size_mb"),
            (create().disk_size_mb(u32::MAX), "disk_size_mb"),
        ] {
            let refused = create.await.unwrap_err();
            let Error::InvalidRequest(words) = &refused else {
                panic!("{field}: {refused:?}");
            };
            assert!(
                words.contains(field) && words.contains("must be from"),
                "{words}"
            );
        }
        // Within bounds, and more than this host has.
        for (create, what) in [
            (create().vcpus(64), "virtual CPUs"),
            (create().memory_mb(1024 * 1024), "MiB of memory"),
        ] {
            let refused = create.await.unwrap_err();
            let Error::Capacity(words) = &refused else {
                panic!("{what}: {refused:?}");
            };
            assert!(
                words.contains(what) && words.contains("the host has"),
                "{words}"
            );
        }
        for timeout in [Duration::ZERO, Duration::from_secs(u64::MAX)] {
            let refused = create().timeout(timeout).await.unwrap_err();
            assert!(refused.to_string().contains("timeout_sec"), "{refused}");
        }
        assert_nothing_made(platform).await;
    })
    .await;
}

/// No machine and no record.
async fn assert_nothing_made(platform: &Platform) {
    let (filter, page) = (SandboxFilter::default(), PageRequest::default());
    let listed = platform.client.list(filter, page).await.unwrap();
    assert!(listed.items.is_empty(), "{listed:?}");
    assert!(platform.leftovers.machine_pids().is_empty());
    let machines = fs::read_dir(platform.folder.join("host/machines")).unwrap();
    assert_eq!(machines.count(), 0);
}

#[tokio::test]
async fn r1_bad_and_unknown_ids_are_told_apart() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let good = sandbox.id().to_string();
        assert_eq!(good.parse::<SandboxId>().unwrap(), sandbox.id());
        let upper = good.to_uppercase();
        let other_kind = good.replacen("sb-", "tpl-", 1);
        for bad in [
            "",
            "sb-",
            "sb-1",
            upper.as_str(),
            other_kind.as_str(),
            &good[3..],
        ] {
            let error = bad.parse::<SandboxId>().unwrap_err();
            assert!(error.to_string().contains("sb-"), "{error}");
        }
        let unknown: SandboxId = "sb-0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        let error = platform.client.get(unknown).await.unwrap_err();
        assert_eq!(error, Error::SandboxNotFound(unknown));
        assert!(error.to_string().contains(&unknown.to_string()));
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r5_output_that_is_not_utf_8_comes_byte_for_byte() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let all: Vec<u8> = (0..=255).collect();
        let echo = sandbox.command("cat").stdin(all.clone());
        assert_eq!(echo.output().await.unwrap().stdout, all);
        let raw = sandbox.exec(r"printf '\377\000\376' >&2").await.unwrap();
        assert_eq!(&raw.stderr[..], [0xff, 0x00, 0xfe]);
        sandbox.files().write("/raw", all.clone()).await.unwrap();
        let not_text = sandbox.files().read_to_string("/raw").await.unwrap_err();
        assert!(not_text.to_string().contains("UTF-8"), "{not_text}");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r5_1_gib_of_output_ends_is_cut_and_says_so_in_bounded_memory() {
    const GIB: u64 = 1 << 30;
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let before = peak_memory_kib();
        let line = "dd if=/dev/zero bs=1M count=1024 2>/dev/null; echo the end >&2";
        let output = sandbox.exec(line).await.unwrap();
        assert!(output.status.success());
        assert!(output.truncated());
        let kept = (output.stdout.len() + output.stderr.len()) as u64;
        assert_eq!(kept + output.dropped_bytes, GIB + 8, "no byte is uncounted");
        assert_eq!(kept, 16 << 20, "as documented");
        let grown = peak_memory_kib() - before;
        assert!(grown < 100 * 1024, "this process grew by {grown} KiB");
        assert_eq!(text(sandbox.exec("echo fine").await.unwrap()), "fine\n");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

/// The most that this process ever had in memory.
fn peak_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn r5_a_command_that_never_ends_is_killed_with_its_children_at_its_timeout() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let endless = sandbox
            .shell("sleep 1000 & (sleep 2000 & sleep 3000) & echo begun; sleep 4000")
            .timeout(Duration::from_millis(700));
        let output = endless.output().await.unwrap();
        assert!(output.timed_out);
        assert_eq!(output.status, ExitStatus::Signal(9));
        assert_eq!(output.stdout, "begun\n", "what it wrote is kept");
        assert!(output.duration >= Duration::from_millis(700));
        until_sleepers_are(0, &sandbox).await;
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_sandbox_which_stays_manageable() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let neighbour = platform.create().await;
        // The first process needs no other to go on.
        let bomb = sandbox.shell("bomb() { bomb | bomb & }; bomb; read end");
        let bomb = bomb.piped_stdin().spawn().await.unwrap();
        // At its worst when the limit on processes is reached: some were refused.
        eventually("the bomb is at its limit", || async {
            let events = "/sys/fs/cgroup/sandbox/pids.events";
            let refused = sandbox.files().read_to_string(events).await.unwrap();
            (refused.trim() != "max 0").then_some(())
        })
        .await;
        sandbox.ping().await.unwrap();
        let listed = sandbox.processes().await.unwrap();
        assert!(listed.iter().any(|listed| listed.pid == bomb.pid()));
        match sandbox.exec("echo room").await {
            Ok(output) => assert!(output.stdout == "room\n" || !output.status.success()),
            Err(error) => assert!(matches!(error, Error::Guest(_)), "{error:?}"),
        }
        assert_eq!(text(neighbour.exec("echo calm").await.unwrap()), "calm\n");

        // Every process of the bomb is in the group of the first. Hundreds take their time to end.
        bomb.kill().await.unwrap();
        let over = eventually("there is room again", || async {
            match sandbox.exec("echo over").await {
                Ok(output) => output.status.success().then_some(output),
                Err(Error::Guest(GuestError::Spawn { .. })) => None,
                Err(error) => panic!("{error}"),
            }
        });
        assert_eq!(text(over.await), "over\n");
        sandbox.destroy().await.unwrap();
        neighbour.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_memory_hog_is_killed_and_the_agent_lives() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let hog = sandbox.exec("head -c 2000000000 /dev/zero | tail -c 2000000000 | wc -c");
        let output = hog.await.unwrap();
        assert_ne!(output.stdout, "2000000000\n", "{output:?}");
        sandbox.ping().await.unwrap();
        assert_eq!(text(sandbox.exec("echo alive").await.unwrap()), "alive\n");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

/// Calls into a sandbox that has stopped say so, with the reason; it can still be destroyed.
async fn assert_stopped_and_clear(sandbox: &Sandbox, reason: &str) {
    let record = stopped(sandbox).await;
    assert!(record.reason.contains(reason), "{}", record.reason);
    for error in [
        sandbox.exec("true").await.map(drop).unwrap_err(),
        sandbox.ping().await.map(drop).unwrap_err(),
        sandbox
            .files()
            .read("/etc/passwd")
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(
            matches!(&error, Error::InvalidState { id, state: SandboxState::Stopped, reason: why }
                if *id == sandbox.id() && why.contains(reason)),
            "{error:?}"
        );
        assert!(error.to_string().contains("is stopped"), "{error}");
    }
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn a_kernel_panic_stops_the_sandbox_and_is_named() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let crash = sandbox.exec("echo c > /proc/sysrq-trigger").await;
        crash.expect_err("no answer comes from a machine that is gone");
        assert_stopped_and_clear(
            &sandbox,
            "the guest's kernel panicked: sysrq triggered crash",
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_or_reboots_is_stopped_with_that_reason() {
    with_platform(async |platform| {
        for (line, reason) in [
            ("poweroff", "the guest powered off"),
            ("poweroff -f", "the guest powered off"),
            ("reboot -f", "the guest rebooted"),
        ] {
            let sandbox = platform.create().await;
            let pid = platform.qemu_pid(&sandbox).unwrap();
            // The order may be answered before it takes effect.
            let _ = sandbox.exec(line).await;
            assert_stopped_and_clear(&sandbox, reason).await;
            assert!(!lives(pid), "{line}: no process is left");
        }
    })
    .await;
}

#[tokio::test]
async fn a_guest_that_panics_or_resets_after_a_resume_is_stopped_with_that_reason() {
    with_platform(async |platform| {
        const CRASH: &str = "echo c > /proc/sysrq-trigger";
        const CRASHED: &str = "the guest's kernel panicked: sysrq triggered crash";
        for (line, reason) in [
            (CRASH, CRASHED),
            ("reboot -f", "the guest rebooted"),
            // The hardware's own reset, without a word of the kernel's.
            ("echo b > /proc/sysrq-trigger", "the guest rebooted"),
        ] {
            let sandbox = platform.create().await;
            sandbox.pause().await.unwrap();
            sandbox.resume().await.unwrap();
            let pid = platform.qemu_pid(&sandbox).unwrap();
            let _ = sandbox.exec(line).await;
            let record = stopped(&sandbox).await;
            assert_eq!(record.operation, None);
            // Neither way leads out of it, and neither changes what the record says.
            for refused in [sandbox.pause().await, sandbox.resume().await] {
                let refused = refused.unwrap_err();
                assert!(
                    matches!(
                        &refused,
                        Error::InvalidState {
                            state: SandboxState::Stopped,
                            ..
                        }
                    ),
                    "{line}: {refused:?}"
                );
            }
            assert_stopped_and_clear(&sandbox, reason).await;
            assert!(!lives(pid), "{line}: no process is left");
        }

        // In the very moment in which it is woken; the resume may have been done, or not.
        let sandbox = platform.create().await;
        let bomb = format!("usleep 300000; {CRASH}");
        sandbox.shell(bomb).spawn().await.unwrap();
        sandbox.pause().await.unwrap();
        if let Err(error) = sandbox.resume().await {
            assert!(
                matches!(error, Error::InvalidState { .. } | Error::Host(_)),
                "{error:?}"
            );
        }
        assert_stopped_and_clear(&sandbox, CRASHED).await;

        // A clone that is told to at its very start; its template is good for others.
        let origin = platform.create().await;
        let line = "while ! test -e /go; do usleep 1000; done; echo c > /proc/sysrq-trigger";
        origin.shell(line).spawn().await.unwrap();
        let template = origin.snapshot("fragile").await.unwrap();
        for _ in 0..2 {
            let clone = platform.client.create().template(&template).await.unwrap();
            assert_eq!(text(clone.exec("echo well").await.unwrap()), "well\n");
            let _ = clone.exec(": > /go; sleep 1000").await;
            assert_stopped_and_clear(&clone, CRASHED).await;
        }
        origin.resume().await.unwrap();
        assert_eq!(text(origin.exec("echo on").await.unwrap()), "on\n");
        origin.destroy().await.unwrap();
        template.delete().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn qemu_killed_from_outside_stops_the_sandbox_and_waiting_callers_are_told() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let pid = platform.qemu_pid(&sandbox).unwrap();
        let waiting = sandbox.exec("sleep 1000");
        let killer = async {
            eventually("the command runs", || async {
                let listed = sandbox.processes().await.unwrap();
                (!listed.is_empty()).then_some(())
            })
            .await;
            kill_9(pid);
        };
        let (told, ()) = tokio::time::timeout(LONG, async { tokio::join!(waiting, killer) })
            .await
            .unwrap();
        let told = told.unwrap_err();
        assert!(
            matches!(
                told,
                Error::InvalidState { .. } | Error::GuestUnavailable(_)
            ),
            "{told:?}"
        );
        assert_stopped_and_clear(&sandbox, "its machine was ended from outside").await;
    })
    .await;
}

#[tokio::test]
async fn r9_a_destroy_while_the_create_is_in_flight_leaves_nothing() {
    with_platform(async |platform| {
        let client = &platform.client;
        let create = client.create().metadata("race", "1").into_future();
        let destroy = async {
            let id = eventually("the record is there", || async {
                let (filter, page) = (SandboxFilter::default(), PageRequest::default());
                let listed = client.list(filter, page).await.unwrap();
                listed.items.first().map(|item| item.id)
            })
            .await;
            client.get(id).await.unwrap().destroy().await.unwrap();
            id
        };
        let (created, id) = tokio::join!(create, destroy);
        // Whoever came first: afterwards there is nothing.
        if let Err(error) = created {
            let words = error.to_string();
            assert!(
                words.contains("destroyed") || words.contains("no sandbox"),
                "{error:?}"
            );
        }
        let gone = client.get(id).await.unwrap_err();
        assert_eq!(gone, Error::SandboxNotFound(id));
        assert_nothing_made(platform).await;
    })
    .await;
}

#[tokio::test]
async fn r15_a_create_whose_caller_went_away_goes_on_and_is_found() {
    with_platform(async |platform| {
        let client = &platform.client;
        let create = client.create().idempotency_key("once").into_future();
        // Long enough to begin, and not to end.
        tokio::time::timeout(Duration::from_millis(60), create)
            .await
            .expect_err("no machine is made that fast without a pool");
        let listed = eventually("the sandbox runs", || async {
            let filter = SandboxFilter {
                state: Some(SandboxState::Running),
                ..SandboxFilter::default()
            };
            let page = client.list(filter, PageRequest::default()).await.unwrap();
            (!page.items.is_empty()).then_some(page.items)
        })
        .await;
        let again = client.create().idempotency_key("once").await.unwrap();
        assert_eq!([again.id()], [listed[0].id]);
        assert_eq!(text(again.exec("echo mine").await.unwrap()), "mine\n");
        assert_eq!(platform.leftovers.machine_pids().len(), 1);
        again.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r15_an_exec_whose_caller_went_away_runs_on() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let long = "seq 1 200000; echo done > /tmp/done";
        let gone = tokio::time::timeout(Duration::from_millis(5), sandbox.exec(long)).await;
        gone.expect_err("it takes longer than that");
        eventually("the command has ended by itself", || async {
            sandbox
                .files()
                .exists("/tmp/done")
                .await
                .unwrap()
                .then_some(())
        })
        .await;
        sandbox.destroy().await.unwrap();
    })
    .await;
}
